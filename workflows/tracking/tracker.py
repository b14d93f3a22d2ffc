"""Logs to MLflow: one run per stage, or per trial of a search, under one parent run.

Everything is logged by one process, after a checkpoint was committed: each checkpoint carries all
curves, so whatever a crash left out is logged at the next commit, and nothing is logged twice.
Checkpoints are logged as they are (safetensors and JSON), never as pickled models.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiaic import config
from aiaic.checkpointing import checkpoint
from aiaic.checkpointing.async_saver import Commit
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.artifacts.run_folder import StageResult
from workflows.tracking.mlflow_runs import Runs, Status, best_effort
from workflows.training.job import Job
from workflows.training.signals import StoppedError

_THROUGHPUT = "throughput"
UNTRACKED = "none"
"""The tracking URI that turns tracking off."""


class Tracker:
    """Logs the run in one folder to MLflow.

    Args:
        uri: a server or database; None: ``mlflow.db`` in the current folder.
        out: the run's folder; its MLflow runs are found again by it.

    Raises:
        ConnectionError: MLflow cannot be reached there.
    """

    def __init__(self, uri: str | None, out: str) -> None:
        self.out = out
        self._runs = Runs(uri, out)
        self._watermarks: dict[int, int] = {}

    @contextlib.contextmanager
    def log_run(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Within the context the parent run is active; its outcome becomes its status.

        Args:
            settings: parameters of the parent run.
        """
        status: Status = "FAILED"
        try:
            with best_effort():
                self._runs.log_params(self._parent, settings)
            yield
            status = "FINISHED"
        except (KeyboardInterrupt, StoppedError):
            status = "KILLED"
            raise
        finally:
            with best_effort():
                self._runs.end_all(status)

    def log_checkpoint(self, commit: Commit) -> None:
        """Log what MLflow does not have yet of a new checkpoint's curves and timings."""
        with best_effort():
            self._log_curves(commit)

    def log_results(self, results: Sequence[StageResult]) -> None:
        """Log the best checkpoint of each finished stage, unless it is logged already."""
        with best_effort():
            for result in results:
                self._log_result(result)

    def log_evaluation(self, stage: int, values: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Log the metrics and files of the evaluation of a stage."""
        with best_effort():
            run = self._stage_run(stage)
            self._runs.log_metrics(run, config.dotted_keys({"evaluation": values}), step=0)
            self._runs.log_files(run, files, "evaluation")
            self._runs.end_all("FINISHED")

    def log_trial(
        self, trial: str, settings: Mapping[str, Any], scores: Mapping[int, float]
    ) -> None:
        """Log a trial of a search: its settings, and its score at each step."""
        with best_effort():
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

    def _log_curves(self, commit: Commit) -> None:
        record, stage = commit.record, commit.record.stage
        run = self._stage_run(stage)
        if stage not in self._watermarks:
            self._watermarks[stage] = self._runs.last_step(run, "loss")
            self._runs.log_params(run, config.dotted_keys(record.recipe) | _origin(record))
        timings = {row["step"]: row for row in commit.timings.rows} if commit.timings else {}
        for row in record.curves:
            step = int(row["step"])
            if step > self._watermarks[stage]:
                throughput = config.dotted_keys({_THROUGHPUT: timings.get(row["step"], {})})
                metrics = row | {key.replace(".", "/"): v for key, v in throughput.items()}
                named = {k: v for k, v in metrics.items() if not k.endswith("step")}
                self._runs.log_metrics(run, named, step)
                self._watermarks[stage] = step

    def _log_result(self, result: StageResult) -> None:
        folder = run_folder.stage_place(self.out, result.stage)
        self._log_curves(run_folder.read_commit(storage.join(folder, result.final)))
        run = self._stage_run(result.stage)
        if self._runs.has_artifacts(run, "checkpoint"):
            return
        best = run_folder.fetch(storage.join(folder, result.best))
        self._runs.log_json(run, config.to_json(result), "stage.json")
        files = [best / checkpoint.RECORD, best / checkpoint.MODEL]
        self._runs.log_files(run, files, "checkpoint")


class NoTracker:
    """Does nothing, for users who turn tracking off."""

    @contextlib.contextmanager
    def log_run(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Do nothing."""
        yield

    def log_checkpoint(self, commit: Commit) -> None:
        """Do nothing."""

    def log_results(self, results: Sequence[StageResult]) -> None:
        """Do nothing."""

    def log_trial(
        self, trial: str, settings: Mapping[str, Any], scores: Mapping[int, float]
    ) -> None:
        """Do nothing."""


def open_tracker(uri: str | None, out: str) -> Tracker | NoTracker:
    """The tracker of a run's folder, or one that does nothing if the URI is ``none``.

    Raises: as :class:`Tracker`.
    """
    return NoTracker() if uri == UNTRACKED else Tracker(uri, out)


def run_parameters(job: Job) -> dict[str, Any]:
    """Parameters of a job's parent run."""
    return {"recipe": job.recipe.name, "shards": job.shards, "split": job.split, "out": job.out}


def _origin(record: checkpoint.Record) -> dict[str, Any]:
    """What a stage was trained on and started from, as parameters."""
    init = record.init
    return {
        "manifest_digest": record.manifest_digest,
        "split": record.split,
        "init": init.place if init else None,
        "init_sha256": init.model_sha256 if init else None,
    }
