"""``aiaic train`` in this process: the chain, its continuation and its refusals."""

import gzip
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aiaic.checkpointing import checkpoint
from aiaic.training import loop
from data_prep import storage
from workflows import cli
from workflows.artifacts import run_folder

Train = Callable[..., Any]


class KilledError(Exception):
    """Simulates a crash."""


@pytest.fixture
def train(shards: str, tiny: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> Train:
    """Runs the command; gives its JSON, or its error line."""

    def run(
        out: str,
        *more: str,
        stage: str = "all",
        settings: tuple[str, ...] = (),
        code: int | None = None,
    ) -> Any:
        arguments = ["train", "--stage", stage, "--shards", shards, "--out", out, *more]
        arguments += ["--set", *tiny, *settings, "--tracking-uri", "none", "--json"]
        ended = cli.main(arguments)
        captured = capsys.readouterr()
        assert code is None or ended == code
        return json.loads(captured.out) if ended == 0 else captured.err.splitlines()[-1]

    return run


@pytest.fixture(scope="module")
def finished_run(
    shards: str, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A run with all three stages."""
    out = str(tmp_path_factory.mktemp("finished") / "run")
    arguments = ["train", "--stage", "all", "--shards", shards, "--out", out, "--set", *tiny]
    assert cli.main([*arguments, "--tracking-uri", "none"]) == 0
    return out


def weights(run: str, stage: int, step: int = 4) -> str:
    folder = Path(run_folder.stage_place(run, stage), checkpoint.step_name(step))
    return checkpoint.model_sha256(folder)


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The run dies before the checkpoint of a step is committed."""
    write = checkpoint.write

    def dying(folder: Path, record: checkpoint.Record, *rest: Any) -> None:
        if record.step == step:
            raise KilledError
        write(folder, record, *rest)

    monkeypatch.setattr(checkpoint, "write", dying)


def test_each_stage_starts_from_the_best_of_the_last(finished_run: str) -> None:
    for stage in (2, 3):
        before = run_folder.resolve(run_folder.stage_place(finished_run, stage - 1))
        record = run_folder.read_record(
            run_folder.resolve(run_folder.stage_place(finished_run, stage))
        )
        assert record.init is not None
        assert record.init.place == before
        assert record.init.model_sha256 == checkpoint.model_sha256(Path(before))


def test_a_finished_run_is_left_unchanged_and_reported_as_finished(
    finished_run: str, train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever would run it, which is not started."""
    before = {path: path.stat().st_mtime_ns for path in Path(finished_run).rglob("*")}
    values = train(finished_run, "--workers", "2")
    assert set(values["stages"]) == {"1", "2", "3"}
    assert [f"stage {stage} is already finished" for stage in (1, 2, 3)] == caplog.messages
    assert before == {path: path.stat().st_mtime_ns for path in Path(finished_run).rglob("*")}


def test_a_killed_run_resumes_to_the_same_weights(
    finished_run: str,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = str(tmp_path / "run")
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(KilledError):
            train(out)
    assert len(run_folder.steps(run_folder.stage_place(out, 1))) == 1
    train(out)
    assert "stage 1 resumes at step 2" in caplog.messages
    for stage in (1, 2, 3):
        assert weights(out, stage) == weights(finished_run, stage)


def test_a_run_in_a_bucket_equals_one_on_a_path(
    finished_run: str,
    train: Train,
    rclone_s3: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    rclone_s3.use(monkeypatch)
    out = storage.join(rclone_s3.new_place(), "run")
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(KilledError):
            train(out, stage="1")
    train(out, stage="1")
    storage.download_folder(out, tmp_path)
    assert weights(str(tmp_path), 1) == weights(finished_run, 1)
    assert len(run_folder.steps(run_folder.stage_place(out, 1))) <= 2
    assert "is finished" not in train(out, stage="2", settings=("stage2.steps=2",))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("model.guidance.tau=0.5",), "model.guidance.tau"),
        (("sampling.seed=1",), "sampling.seed"),
        (("stage1.steps=8",), "stage1.steps"),
    ],
)
def test_other_settings_are_refused_by_name(
    finished_run: str, train: Train, settings: tuple[str, ...], named: str
) -> None:
    assert named in train(finished_run, settings=settings)


def test_other_shards_are_refused(
    finished_run: str, train: Train, shards: str, tmp_path: Path
) -> None:
    storage.download_folder(shards, tmp_path / "shards")
    manifest = tmp_path / "shards" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"av": "', '"av": "0.'))
    assert "the shards' manifest" in train(finished_run, "--shards", str(tmp_path / "shards"))


def test_a_checkpoint_of_another_stage_is_refused(
    finished_run: str, train: Train, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    assert "stage 1 starts from scratch" in train(out, "--init", finished_run, stage="1")
    error = train(out, "--init", run_folder.stage_place(finished_run, 1), stage="3")
    assert "checkpoint of stage 1" in error
    assert "one of stage 2" in error
    assert not Path(out).exists()


def test_a_checkpoint_of_another_architecture_is_refused_by_name(
    finished_run: str, train: Train, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    error = train(out, "--init", finished_run, stage="2", settings=("model.backbone.width=16",))
    assert "model.backbone.width is 8 there and 16" in error
    assert not Path(out).exists()


def test_another_initial_checkpoint_is_refused(
    finished_run: str, train: Train, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    train(out, "--init", finished_run, stage="2")
    other = str(tmp_path / "other")
    train(other, stage="1", settings=("sampling.seed=3",))
    Path(out, "stage2", "stage.json").unlink()
    error = train(out, "--init", other, stage="2")
    assert "was started from another checkpoint" in error


def test_a_later_stage_that_was_started_from_another_checkpoint_is_refused(
    finished_run: str, train: Train, tmp_path: Path
) -> None:
    """As if stage 1 had been retrained beneath it: its recorded origin would be wrong."""
    out = tmp_path / "run"
    shutil.copytree(finished_run, out)
    best = run_folder.fetch(run_folder.stage_place(str(out), 1))
    model, rest = checkpoint.read_model(best), checkpoint.read_training(best)
    next(tensor for tensor in model.values() if tensor.is_floating_point()).add_(1)
    checkpoint.write(best, checkpoint.read_record(best), model, rest)
    Path(out, "stage2", "stage.json").unlink()
    error = train(str(out), code=1)
    assert "stage 2 was started from another checkpoint" in error
    assert "delete the stage's folder to train it again" in error
    shutil.rmtree(out / "stage2")
    shutil.rmtree(out / "stage3")
    train(str(out), code=0)


def test_a_damaged_newest_checkpoint_costs_no_run(
    finished_run: str,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Training resumes from the one before it, to the same weights."""
    out = tmp_path / "run"
    shutil.copytree(finished_run, out)
    shutil.rmtree(Path(out, "stage2"))
    with monkeypatch.context() as patch:
        patch.delattr(run_folder, "finish")
        with pytest.raises(AttributeError, match="finish"):
            train(str(out), stage="2")
    broken = Path(out, "stage2", checkpoint.step_name(4))
    (broken / "training.safetensors").write_bytes(b"")
    assert "stages" in train(str(out), stage="2")
    warning = f"deleted the damaged checkpoint '{broken}', using step-0000002 instead"
    assert warning in caplog.text
    assert "stage 2 resumes at step 2" in caplog.messages
    assert weights(str(out), 2) == weights(finished_run, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_a_rerun_resumes(
    finished_run: str,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    """At a step that would have no checkpoint otherwise."""
    out = str(tmp_path / "run")
    step = loop.train_step
    before = signal.getsignal(number)

    def signalled(trainer: Any, *rest: Any) -> None:
        step(trainer, *rest)
        if trainer.step == 2:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", signalled)
        line = train(out, code=128 + number)
    assert "stopped in stage 1 with a checkpoint of step 3; rerun the command to resume" in line
    assert signal.getsignal(number) is before
    assert checkpoint.step_name(3) in run_folder.steps(run_folder.stage_place(out, 1))[-1]
    train(out)
    for stage in (1, 2, 3):
        assert weights(out, stage) == weights(finished_run, stage)
        ours, theirs = (
            checkpoint.read_record(Path(run, f"stage{stage}", checkpoint.step_name(4)))
            for run in (out, finished_run)
        )
        assert (ours.curves, ours.ledger) == (theirs.curves, theirs.ledger)


def test_a_profile_is_a_trace_of_each_stage(train: Train, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    train(out, "--profile", stage="1", settings=("stage1.steps=10",))
    (trace,) = Path(out, "stage1", "profile").iterdir()
    assert trace.name == "profile-rank0.json.gz"
    names = {
        event.get("name")
        for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    }
    assert "aten::convolution" in names


def test_the_first_error_is_reported_even_if_no_trace_can_be_stored(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("the storage is away")

    monkeypatch.setattr(storage, "upload_folder", fail)
    out = str(tmp_path / "run")
    error = train(out, "--profile", stage="1", settings=("stage1.learning_rate=1e30",), code=1)
    assert "Lower the stage's learning_rate" in error
    assert "the storage is away" in train(str(tmp_path / "other"), "--profile", stage="1", code=1)


def test_more_workers_than_streams_are_refused_before_ray_starts(
    train: Train, tmp_path: Path
) -> None:
    error = train(str(tmp_path / "run"), "--workers", "5")
    assert "5 workers" in error
    assert "sampling.streams = 4" in error
    assert "5 workers" in train(str(tmp_path / "run"), "--workers", "2:5")
    assert "--workers is '-1'" in train(str(tmp_path / "run"), "--workers", "-1")


def test_a_full_gpu_is_one_line_with_the_way_out(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(loop, "train_step", fail)
    error = train(str(tmp_path / "run"), stage="1", code=1)
    assert "a training step does not fit the GPU's memory: raise training.accumulate" in error


def test_a_second_training_into_a_folder_is_refused(train: Train, tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    with run_folder.exclusive_lock(out):
        error = train(out, stage="1", code=1)
    assert f"another training is writing into '{out}'" in error
    assert not (Path(out) / "stage1").exists()
    train(out, stage="1", code=0)


@pytest.mark.parametrize("place", ["s3://bucket", "s3://bucket/", "s3://bucket?scheme=http"])
def test_a_whole_bucket_is_no_folder_of_a_run(train: Train, place: str) -> None:
    error = train(place, stage="1", code=1)
    assert f"'{place}' is a whole bucket: name a folder in it" in error
    run_folder.check_place("s3://bucket/run")
