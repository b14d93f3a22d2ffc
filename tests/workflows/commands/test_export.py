"""``aiaic export``: where an export goes, and which commands accept it."""

import numpy as np
import pytest
from PIL import Image

from aiaic.checkpointing import checkpoint
from aiaic.export import onnx_export
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.commands import colorize, evaluate, export
from workflows.options import Colorize, Evaluate, Export


def run(place, out):
    return export.run(Export(checkpoint=str(place), out=str(out)))


@pytest.fixture(scope="module")
def export_folder(untrained_run, tmp_path_factory):
    """The export of a run's last stage."""
    out = tmp_path_factory.mktemp("export") / "model"
    outcome = run(untrained_run, out)
    assert outcome.values["stage"] == 3
    assert set(outcome.values["files"]) == set(onnx_export.FILES) == {p.name for p in out.iterdir()}
    return out


def test_colorize_accepts_an_export(export_folder, untrained_run, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "in.png")
    results = []
    for place in (export_folder, untrained_run):
        out = tmp_path / f"{place.name}.png"
        colorize.run(Colorize(input=str(tmp_path / "in.png"), checkpoint=str(place), out=str(out)))
        results.append(out.read_bytes())
    assert results[0] == results[1]


def test_evaluate_accepts_an_export(export_folder, shards, tmp_path):
    options = Evaluate(
        shards=shards,
        checkpoint=str(export_folder),
        limit=2,
        out=str(tmp_path),
        tracking_uri="none",
    )
    result = evaluate.run(options).values
    assert result["conditions"]["missing"]["n"] == 2


def test_it_is_written_to_a_bucket_and_replaced_there(s3_place, untrained_run):
    place = f"{s3_place}/models/mine"
    run(untrained_run, place)
    again = run(run_folder.stage_place(str(untrained_run), 1), place)
    assert again.values["stage"] == 1
    lying = {file.name for file in storage.list_files(place)}
    assert lying == set(onnx_export.FILES) - {"audio.onnx"}
    assert checkpoint.read_record(run_folder.fetch(place)).stage == 1


def test_an_earlier_export_is_replaced_and_nothing_else(untrained_run, tmp_path):
    out = tmp_path / "model"
    run(untrained_run, out)
    run(f"{untrained_run}/stage1", out)
    assert not (out / "audio.onnx").exists()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'notes.txt', which is not part of an export"):
        run(untrained_run, out)
    with pytest.raises(ValueError, match="is a file"):
        run(untrained_run, out / "notes.txt")
    with pytest.raises(ValueError, match=r"training.safetensors"):
        run(untrained_run, f"{untrained_run}/stage1/{checkpoint.step_name(4)}")
    assert (out / "notes.txt").read_text() == "mine"


def test_a_failed_check_leaves_nothing_behind(untrained_run, tmp_path, monkeypatch):
    def refuse(*_args):
        raise ValueError("audio.onnx differs")

    monkeypatch.setattr(onnx_export, "check", refuse)
    with pytest.raises(ValueError, match="differs"):
        run(untrained_run, tmp_path / "out" / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_checkpoint_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        run(tmp_path / "nothing", tmp_path / "out")
