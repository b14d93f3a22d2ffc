"""Training in this process, by its own interface."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from aiaic import recipes
from aiaic.checkpointing import checkpoint
from aiaic.checkpointing.async_saver import Commit
from workflows.artifacts import run_folder
from workflows.artifacts.samples import open_samples
from workflows.tracking import mlflow_runs
from workflows.tracking.tracker import Tracker
from workflows.training import local
from workflows.training.job import Job


def test_a_commit_carries_its_record_so_that_none_is_read_back(
    shards: str, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither to prune older checkpoints nor to log to MLflow."""
    settings = (*tiny, "stage1.steps=8", "training.validate_every=2", "training.keep=1")
    job = Job(
        stages=(1,),
        recipe=recipes.load(settings=settings),
        shards=shards,
        split="train",
        out=str(tmp_path / "run"),
    )
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker, reads, commits = Tracker(uri, job.out), list[str](), list[tuple[str, int]]()
    for module, name in ((checkpoint, "read_record"), (run_folder, "read_timings")):
        read = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda place, read=read: reads.append(str(place)) or read(place)
        )

    def on_commit(commit: Commit) -> None:
        tracker.log_checkpoint(commit)
        commits.append((Path(commit.place).name, len(reads)))

    local.fit(job, open_samples(shards, "train"), lambda *_: None, on_commit)
    assert commits == [(checkpoint.step_name(step), 0) for step in (2, 4, 6, 8)]
    assert reads, "reads are counted: the end of a stage verifies its best checkpoint"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(mlflow_runs.EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'stage1'")
    logged = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in logged] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert run.data.metrics["throughput/samples_per_s"] > 0
