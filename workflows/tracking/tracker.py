"""What a run leaves in MLflow: one run per stage, or per trial of a search, under one parent.

Everything is logged from one process, after a checkpoint was committed: curves travel inside the
checkpoint, so that what a crash has left out follows at the next commit, and nothing stands twice.
Checkpoints are stored as they are (safetensors and JSON), never as pickled models.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiaic import config
from aiaic.checkpointing import checkpoint
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.artifacts.run_folder import Finished
from workflows.tracking.mlflow_runs import Runs, Status, spared
from workflows.training.job import Job
from workflows.training.signals import StoppedError

_THROUGHPUT = "throughput"
NOWHERE = "none"
"""The tracking URI that means: do not track."""


class Tracker:
    """A run of ours in MLflow.

    Args:
        uri: a server or database; None: ``mlflow.db`` in the current folder.
        out: the run's folder, by which it is found again.

    Raises:
        ConnectionError: MLflow cannot be reached there.
    """

    def __init__(self, uri: str | None, out: str) -> None:
        self.out = out
        self._runs = Runs(uri, out)
        self._watermarks: dict[int, int] = {}

    @contextlib.contextmanager
    def tracked(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Within the context the run goes on; its end or failure is told to MLflow.

        Args:
            settings: parameters of the parent run.
        """
        status: Status = "FAILED"
        try:
            with spared():
                self._runs.log_params(self._parent, settings)
            yield
            status = "FINISHED"
        except (KeyboardInterrupt, StoppedError):
            status = "KILLED"
            raise
        finally:
            with spared():
                self._runs.end_all(status)

    def committed(self, place: str) -> None:
        """Log what the checkpoint at a place tells that is not in MLflow yet."""
        with spared():
            self._log_record(place)

    def finished(self, stages: Sequence[Finished]) -> None:
        """Log the best checkpoint of each finished stage, unless it is there."""
        with spared():
            for stage in stages:
                self._log_finished(stage)

    def evaluated(self, stage: int, values: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Log figures, and files, of the evaluation of a stage."""
        with spared():
            run = self._stage_run(stage)
            self._runs.log_metrics(run, config.dotted_keys({"evaluation": values}), step=0)
            self._runs.log_files(run, files, "evaluation")
            self._runs.end_all("FINISHED")

    def tried(self, trial: str, settings: Mapping[str, Any], scores: Mapping[int, float]) -> None:
        """Log a trial of a search: its settings, and its score at each step."""
        with spared():
            run = self._runs.id_of(f"trial {trial}", self._parent)
            self._runs.log_params(run, settings)
            last = self._runs.last_step(run, "score")
            for step, score in sorted(scores.items()):
                if step > last:
                    self._runs.log_metrics(run, {"score": score}, step)
            self._runs.end(run, "FINISHED")

    @property
    def _parent(self) -> str:
        return self._runs.id_of(storage.name_of(self.out))

    def _stage_run(self, stage: int) -> str:
        return self._runs.id_of(f"stage{stage}", self._parent)

    def _log_record(self, place: str) -> None:
        record = run_folder.read_record(place)
        stage = record.stage
        run = self._stage_run(stage)
        if stage not in self._watermarks:
            self._watermarks[stage] = self._runs.last_step(run, "loss")
            self._runs.log_params(run, config.dotted_keys(record.recipe) | _origin(record))
        timings = {row["step"]: row for row in run_folder.read_timings(place)}
        for row in record.curves:
            step = int(row["step"])
            if step > self._watermarks[stage]:
                throughput = config.dotted_keys({_THROUGHPUT: timings.get(row["step"], {})})
                metrics = row | {key.replace(".", "/"): v for key, v in throughput.items()}
                named = {k: v for k, v in metrics.items() if not k.endswith("step")}
                self._runs.log_metrics(run, named, step)
                self._watermarks[stage] = step

    def _log_finished(self, stage: Finished) -> None:
        folder = run_folder.stage_place(self.out, stage.stage)
        self._log_record(storage.join(folder, stage.final))
        run = self._stage_run(stage.stage)
        if self._runs.has_artifacts(run, "checkpoint"):
            return
        best = run_folder.fetch(storage.join(folder, stage.best))
        self._runs.log_json(run, config.to_json(stage), "stage.json")
        files = [best / checkpoint.RECORD, best / checkpoint.MODEL]
        self._runs.log_files(run, files, "checkpoint")


class NoTracker:
    """Stands where a user wants no tracking."""

    @contextlib.contextmanager
    def tracked(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Nothing."""
        yield

    def committed(self, place: str) -> None:
        """Nothing."""

    def finished(self, stages: Sequence[Finished]) -> None:
        """Nothing."""

    def tried(self, trial: str, settings: Mapping[str, Any], scores: Mapping[int, float]) -> None:
        """Nothing."""


def open_tracker(uri: str | None, out: str) -> Tracker | NoTracker:
    """The tracker of a run's folder, or one that does nothing where the URI says so.

    Raises: as :class:`Tracker`.
    """
    return NoTracker() if uri == NOWHERE else Tracker(uri, out)


def describe(job: Job) -> dict[str, Any]:
    """What the parent run of a job tells."""
    return {"recipe": job.recipe.name, "shards": job.shards, "split": job.split, "out": job.out}


def _origin(record: checkpoint.Record) -> dict[str, Any]:
    """What a stage was made from, as parameters."""
    init = record.init
    return {
        "manifest_digest": record.manifest_digest,
        "split": record.split,
        "init": init.place if init else None,
        "init_sha256": init.model_sha256 if init else None,
    }
