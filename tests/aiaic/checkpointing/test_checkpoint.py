import json
import resource

import pytest
import torch

from aiaic.checkpointing import checkpoint
from tests.aiaic.records import record


def save(stage_folder, step, loss=None):
    def fill(folder):
        checkpoint.write(folder, record(step, loss), {"w": torch.ones(3)}, {"m": torch.zeros(2)})

    return checkpoint.commit(stage_folder / checkpoint.step_name(step), fill)


def test_round_trip(tmp_path):
    folder = save(tmp_path, 7, 0.25)
    read = checkpoint.read_record(folder)
    assert (read.step, read.metrics, read.curves) == (
        7,
        {"validation_loss": 0.25},
        record(7).curves,
    )
    assert torch.equal(checkpoint.read_model(folder)["w"], torch.ones(3))
    assert torch.equal(checkpoint.read_training(folder)["m"], torch.zeros(2))


def test_same_content_is_the_same_bytes(tmp_path):
    first, second = save(tmp_path / "a", 1), save(tmp_path / "b", 1)
    for file in sorted(first.iterdir()):
        assert file.read_bytes() == (second / file.name).read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors"])
@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
def test_damaged_weights_are_named(tmp_path, name, harm):
    folder = save(tmp_path, 1)
    path = folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(content if harm == "flip" else content[:-4])
    read = checkpoint.read_model if name.startswith("model") else checkpoint.read_training
    with pytest.raises(ValueError, match=f"{name} is missing or damaged"):
        read(folder)


def test_a_damaged_record_is_named(tmp_path):
    folder = save(tmp_path, 1)
    (folder / "checkpoint.json").write_text('{"stage": 1')
    with pytest.raises(ValueError, match=r"checkpoint.json is damaged"):
        checkpoint.read_record(folder)


def test_another_format_is_refused(tmp_path):
    folder = save(tmp_path, 1)
    path = folder / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(ValueError, match="format 99"):
        checkpoint.read_record(folder)


def test_no_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        checkpoint.read_record(tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.commit(tmp_path / "step-0000001", fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("bound", "name"), [(50, "model"), (700, "training")])
def test_a_disk_that_takes_no_more_is_an_error_of_the_system(tmp_path, bound, name):
    """Which may pass, and so ends no run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = {"m": torch.zeros(500)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (bound, hard))
    try:
        with pytest.raises(OSError, match=rf"{name}\.safetensors cannot be written"):
            checkpoint.commit(
                tmp_path / "step-0000001",
                lambda folder: checkpoint.write(folder, record(1), {"w": torch.ones(3)}, large),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
