"""Where checkpoints are, and which one a place stands for."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aiaic.checkpointing import checkpoint
from aiaic.checkpointing.checkpoint import Record
from aiaic.checkpointing.store import FolderStore, best, newest_whole
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.artifacts.run_folder import PlaceStore, StageResult


@pytest.fixture(params=["local", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh run folder, on a path and in a bucket."""
    if request.param == "local":
        return str(tmp_path / "run")
    server: Any = request.getfixturevalue("rclone_s3")
    server.use(monkeypatch)
    return storage.join(server.new_place(), "run")


@pytest.fixture
def write() -> Callable[..., str]:
    """Publishes a small checkpoint."""

    def publish(run: str, stage: int, step: int, loss: float | None = None) -> str:
        metrics = {} if loss is None else {"validation_loss": loss}
        record = Record(
            stage=stage,
            step=step,
            recipe={},
            manifest_digest="d",
            split="train",
            init=None,
            metrics=metrics,
            curves=[],
            versions={},
        )
        target = storage.join(run_folder.stage_place(run, stage), checkpoint.step_name(step))
        weights = {"w": torch.full((2,), float(step))}
        run_folder.publish(
            lambda folder: checkpoint.write(folder, record, weights, {"m": torch.ones(1)}), target
        )
        return target

    return publish


def finish(run: str, stage: int, best: int, final: int) -> None:
    result = StageResult(
        stage=stage,
        final=checkpoint.step_name(final),
        best=checkpoint.step_name(best),
        steps=final,
        seconds=1.0,
        metrics={},
        precision="fp32",
        samples_per_s=1.0,
    )
    run_folder.finish(run_folder.stage_place(run, stage), result)


def step_of(folder: Path) -> int:
    return int(checkpoint.read_model(folder)["w"][0])


def test_a_run_means_the_best_of_its_last_finished_stage(
    place: str, write: Callable[..., str]
) -> None:
    for step, loss in ((1, 0.3), (2, 0.1), (3, 0.2)):
        write(place, 1, step, loss)
    finish(place, 1, best=2, final=3)
    write(place, 2, 4, 0.1)
    assert step_of(run_folder.fetch(place)) == 2
    assert step_of(run_folder.fetch(run_folder.stage_place(place, 1))) == 2
    final = storage.join(run_folder.stage_place(place, 1), checkpoint.step_name(3))
    assert step_of(run_folder.fetch(final)) == 3
    finish(place, 2, best=4, final=4)
    assert step_of(run_folder.fetch(place)) == 4
    for within in (place, run_folder.stage_place(place, 2), run_folder.resolve(place)):
        assert step_of(run_folder.fetch_stage(within, 1)) == 2
    with pytest.raises(FileNotFoundError, match="no finished stage 3"):
        run_folder.fetch_stage(place, 3)


def test_an_unfinished_stage_is_refused_with_a_way_out(
    place: str, write: Callable[..., str]
) -> None:
    newest = write(place, 1, 7)
    with pytest.raises(FileNotFoundError) as error:
        run_folder.resolve(place)
    assert newest in str(error.value)


def test_an_empty_place_is_refused(place: str) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        run_folder.resolve(place)


def test_what_has_no_record_is_no_checkpoint(place: str, write: Callable[..., str]) -> None:
    write(place, 1, 1)
    half = storage.join(run_folder.stage_place(place, 1), checkpoint.step_name(2))
    storage.write_bytes(storage.join(half, checkpoint.MODEL), b"half")
    assert len(run_folder.steps(run_folder.stage_place(place, 1))) == 1


def test_finishing_keeps_the_last_and_the_best(place: str, write: Callable[..., str]) -> None:
    for step, loss in ((1, 0.3), (2, 0.1), (3, 0.2), (4, 0.4)):
        write(place, 1, step, loss)
    stage = run_folder.stage_place(place, 1)
    assert best(PlaceStore(stage)) == checkpoint.step_name(2)
    finish(place, 1, best=2, final=4)
    kept = [storage.name_of(step) for step in run_folder.steps(stage)]
    assert kept == [checkpoint.step_name(2), checkpoint.step_name(4)]


def name_of(folder: Path | None) -> str:
    assert folder is not None
    return folder.name


def test_a_damaged_newest_checkpoint_is_deleted_and_may_be_rewritten(
    place: str, write: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    store = PlaceStore(run_folder.stage_place(place, 1))
    write(place, 1, 1)
    broken = write(place, 1, 2)
    storage.write_bytes(storage.join(broken, checkpoint.MODEL), b"broken")
    assert name_of(newest_whole(store)) == checkpoint.step_name(1)
    assert store.names() == [checkpoint.step_name(1)]
    assert checkpoint.MODEL in caplog.text
    write(place, 1, 2)
    assert name_of(newest_whole(store)) == checkpoint.step_name(2)


def test_a_damaged_stage_file_is_named(place: str, write: Callable[..., str]) -> None:
    write(place, 1, 1)
    file = storage.join(run_folder.stage_place(place, 1), "stage.json")
    storage.write_bytes(file, b'{"stage": 1}')
    with pytest.raises(ValueError, match=r"stage\.json.*is damaged"):
        run_folder.resolve(place)


def test_a_local_folder_and_a_place_agree_on_which_errors_may_pass(tmp_path: Path) -> None:
    names = (value for value in vars(builtins).values() if isinstance(value, type))
    kinds = {kind for kind in names if issubclass(kind, OSError)}
    folder, stage = FolderStore(tmp_path), PlaceStore(str(tmp_path))
    passing = {kind for kind in kinds if stage.may_pass(kind())}
    assert {OSError, TimeoutError} <= passing < kinds
    assert {kind for kind in kinds if folder.may_pass(kind())} == passing
