"""Ray: shards by Ray Data, training by Ray Train, the death of a worker, bucket to bucket."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from aiaic import recipes
from aiaic.checkpointing import checkpoint
from aiaic.checkpointing.async_saver import Commit, OnCommit
from data_prep import catalog, storage
from data_prep.media.sample import MediaSettings
from data_prep.shards import build, manifest
from fault_injection.train_kills_ray import workers
from workflows import cli
from workflows.artifacts import run_folder
from workflows.artifacts.samples import open_samples
from workflows.cluster import train_driver
from workflows.cluster.worker_range import Workers
from workflows.commands import evaluate
from workflows.commands.prepare import prepare
from workflows.options import Evaluate
from workflows.training import local
from workflows.training.job import Job

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]


def ignore(*_: Any) -> None:
    """A callback for reports that a test does not need."""


def make_job(shards: str, out: str, settings: tuple[str, ...]) -> Job:
    recipe = recipes.load(settings=settings)
    return Job(stages=(1, 2, 3), recipe=recipe, shards=shards, split="train", out=out)


def train(job: Job, workers: int, on_commit: OnCommit = ignore) -> None:
    if workers == 0:
        local.fit(job, open_samples(job.shards, job.split), ignore, on_commit)
    else:
        train_driver.fit(job, Workers.exactly(workers), None, ignore, on_commit)


def final(run: str, stage: int) -> Path:
    place = run_folder.stage_place(run, stage)
    return run_folder.fetch(run_folder.steps(place)[-1])


def test_from_bucket_to_bucket_equals_from_path_to_path(
    clips: Path,
    shards: str,
    tiny: tuple[str, ...],
    rclone_s3: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """prepare, train on one worker of Ray, evaluate; the weights are those of the local port."""
    rclone_s3.use(monkeypatch)
    bucket = rclone_s3.new_place()
    storage.upload_folder(clips, storage.join(bucket, "clips"))
    storage.publish(clips.parent / "clips.csv", storage.join(bucket, "clips.csv"))
    stored = storage.join(bucket, "shards")
    found = catalog.read_vggsound(storage.join(bucket, "clips.csv"), storage.join(bucket, "clips"))
    settings = build.BuildSettings(media=MediaSettings(size_px=32), shards=4)
    first = prepare(found, settings, stored)
    assert (first.manifest.counts.written, first.reused_shards) == (36, 0)
    assert first.manifest.digest == manifest.load_manifest(shards).digest
    again = prepare(found, settings, stored)
    assert again == build.Built(manifest=first.manifest, reused_shards=len(first.manifest.shards))

    run = storage.join(bucket, "run")
    heard: list[Commit] = []
    train(make_job(stored, run, tiny), workers=1, on_commit=heard.append)
    assert heard
    assert all(commit.record.curves for commit in heard)
    train(make_job(shards, str(tmp_path / "run"), tiny), workers=0)
    for stage in (1, 2, 3):
        in_bucket, on_path = final(run, stage), final(str(tmp_path / "run"), stage)
        assert checkpoint.model_sha256(in_bucket) == checkpoint.model_sha256(on_path)

    out = storage.join(bucket, "evaluation")
    monkeypatch.chdir(tmp_path)  # MLflow's database goes where one is
    evaluate.run(Evaluate(shards=stored, checkpoint=run, out=out))
    report = json.loads(storage.read_bytes(storage.join(out, "report.json")))
    assert report["conditions"]["matched"]["n"] == 4


def test_a_killed_worker_costs_nothing(shards: str, tiny: tuple[str, ...], tmp_path: Path) -> None:
    """Two workers, of which one is killed, come to the bytes of two undisturbed ones, and to the
    losses of one process."""
    settings = (*tiny, "stage1.steps=80", "training.save_every=20")
    killed: list[int] = []
    heard: list[str] = []

    def kill(commit: Commit) -> None:
        heard.append(commit.place)
        if len(heard) == 2:
            killed.append(workers()[-1])
            os.kill(killed[0], signal.SIGKILL)

    out = str(tmp_path / "ray")
    train(make_job(shards, out, settings), workers=2, on_commit=kill)
    assert killed
    assert heard == sorted(set(heard)), "a step was trained again from the start"
    train(make_job(shards, str(tmp_path / "whole"), settings), workers=2)
    train(make_job(shards, str(tmp_path / "local"), settings), workers=0)
    for stage in (1, 2, 3):
        after, whole = final(out, stage), final(str(tmp_path / "whole"), stage)
        for name in ("model.safetensors", "training.safetensors"):
            assert (after / name).read_bytes() == (whole / name).read_bytes(), (stage, name)
        ours = checkpoint.read_record(final(out, stage)).curves
        theirs = checkpoint.read_record(final(str(tmp_path / "local"), stage)).curves
        assert [row["step"] for row in ours] == [row["step"] for row in theirs]
        # Sums over two workers round otherwise than over one, and that grows with each step.
        assert [row["loss"] for row in ours] == pytest.approx(
            [row["loss"] for row in theirs], rel=0.02
        )


def test_a_shard_that_cannot_be_stored_is_one_line(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shards").write_text("no folder")
    arguments = ["prepare", "--dataset", "folder", "--clips", str(clips), "--size-px", "32"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("aiaic: error: shard 0 could not be built")
    assert str(tmp_path) in line
    assert not (tmp_path / "manifest.json").exists()
