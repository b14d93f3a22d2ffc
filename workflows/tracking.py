"""What a run leaves in MLflow: one run per stage under one parent, found again by tag.

Everything is logged from one process, after a checkpoint was committed: curves travel inside the
checkpoint, so that what a crash has left out follows at the next commit, and nothing stands twice.
Checkpoints are stored as they are (safetensors and JSON), never as pickled models.
"""

import contextlib
import hashlib
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException

from aiaic import checkpoint, config
from data_prep import storage
from workflows import checkpoints
from workflows.chain import Job
from workflows.checkpoints import Finished

log = logging.getLogger(__name__)

EXPERIMENT = "aiaic"
NOWHERE = "none"
"""The tracking URI that means: do not track."""

_SQLITE = "sqlite:///"
_KEY = "aiaic.key"
_STAGE = "aiaic.stage"
_PARENT = "mlflow.parentRunId"
_NAME = "mlflow.runName"
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 900
_LONGEST_PARAM = 5000
_SECRET = re.compile(r"token|secret|password|passwd|credential|api_?key|access_?key", re.I)
_USER_IN_URI = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_IN_QUERY = re.compile(rf"([?&][^=&]*(?:{_SECRET.pattern})[^=&]*=)[^&]*", re.I)
_UNREACHABLE = (MlflowException, OSError)


class Tracker:
    """A run of ours in MLflow.

    Args:
        uri: a server or database; None: ``mlflow.db`` in this folder.
        out: the run's folder, by which it is found again.

    Raises:
        ConnectionError: MLflow cannot be reached there.
    """

    def __init__(self, uri: str | None, out: str) -> None:
        self.out = out
        self._runs: dict[int, str] = {}
        self._watermarks: dict[int, int] = {}
        _calm()
        try:
            self._client, self._experiment = _open(uri)
            self._parent = self._find("parent", storage.name_of(out), parent=None)
        except _UNREACHABLE as error:
            first = str(error).strip().partition("\n")[0]
            raise ConnectionError(
                f"no MLflow at --tracking-uri '{uri}' ({first}); 'none' turns tracking off"
            ) from error

    @contextlib.contextmanager
    def tracked(self, job: Job) -> Iterator[None]:
        """Within the context the job runs; its end or failure is told to MLflow."""
        self._log_params(
            self._parent,
            {"recipe": job.recipe.name, "shards": job.shards, "split": job.split, "out": job.out},
        )
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            with _spared():
                for run in (*self._runs.values(), self._parent):
                    self._client.set_terminated(run, status)

    def committed(self, place: str) -> None:
        """Log what the checkpoint at a place tells that is not in MLflow yet."""
        with _spared():
            self._log_record(checkpoints.read_record(place))

    def finished(self, stages: Sequence[Finished]) -> None:
        """Log the best checkpoint of each finished stage, unless it is there."""
        with _spared():
            for stage in stages:
                self._log_finished(stage)

    def evaluated(self, stage: int, values: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Log figures, and files, of the evaluation of a stage."""
        with _spared():
            run = self._stage_run(stage)
            numbers = config.dotted_keys({"evaluation": values})
            now = int(time.time() * 1000)
            self._log_metrics(run, [_metric(key, value, now, 0) for key, value in numbers.items()])
            for file in files:
                self._client.log_artifact(run, str(file), "evaluation")
            self._client.set_terminated(run, "FINISHED")

    def _log_record(self, record: checkpoint.Record) -> None:
        stage = record.stage
        run = self._stage_run(stage)
        if stage not in self._watermarks:
            history = self._client.get_metric_history(run, "loss")
            self._watermarks[stage] = max((int(metric.step) for metric in history), default=-1)
            self._log_params(run, config.dotted_keys(record.recipe) | _origin(record))
        now = int(time.time() * 1000)
        rows = [row for row in record.curves if row["step"] > self._watermarks[stage]]
        for row in rows:
            step = int(row["step"])
            values = [_metric(key, row[key], now, step) for key in sorted(row) if key != "step"]
            self._log_metrics(run, values)
            self._watermarks[stage] = step

    def _log_finished(self, stage: Finished) -> None:
        folder = checkpoints.stage_place(self.out, stage.stage)
        self._log_record(checkpoints.read_record(storage.join(folder, stage.final)))
        run = self._stage_run(stage.stage)
        if self._client.list_artifacts(run, "checkpoint"):
            return
        best = checkpoints.fetch(storage.join(folder, stage.best))
        for name in (checkpoint.RECORD, checkpoint.MODEL):
            self._client.log_artifact(run, str(best / name), "checkpoint")
        self._client.log_dict(run, config.to_json(stage), "stage.json")

    def _stage_run(self, stage: int) -> str:
        if stage not in self._runs:
            name = f"stage{stage}"
            self._runs[stage] = self._find(name, name, parent=self._parent)
        return self._runs[stage]

    def _find(self, what: str, name: str, parent: str | None) -> str:
        """The id of the run with our tag, which is created if need be, and running again."""
        key = hashlib.sha256(f"{self.out}#{what}".encode()).hexdigest()[:32]
        found: Sequence[Run] = self._client.search_runs(
            [self._experiment], filter_string=f"tags.`{_KEY}` = '{key}'", max_results=1
        )
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        tags = {_KEY: key, _STAGE: what, "aiaic.run": redacted(self.out), _NAME: name}
        if parent is not None:
            tags[_PARENT] = parent
        return self._client.create_run(self._experiment, tags=tags).info.run_id

    def _log_params(self, run: str, values: Mapping[str, Any]) -> None:
        """Log parameters that are not there yet: they cannot be changed."""
        there = self._client.get_run(run).data.params
        new = [Param(key, _text(key, value)) for key, value in values.items() if key not in there]
        for start in range(0, len(new), _PARAMS_AT_ONCE):
            self._client.log_batch(run, params=new[start : start + _PARAMS_AT_ONCE])

    def _log_metrics(self, run: str, metrics: Sequence[Metric | None]) -> None:
        known = [metric for metric in metrics if metric is not None]
        for start in range(0, len(known), _METRICS_AT_ONCE):
            self._client.log_batch(run, metrics=known[start : start + _METRICS_AT_ONCE])


class NoTracker:
    """Stands where a user wants no tracking."""

    def committed(self, place: str) -> None:
        """Nothing."""

    def finished(self, stages: Sequence[Finished]) -> None:
        """Nothing."""


def redacted(text: str) -> str:
    """A text without the credentials that a URI in it may carry."""
    return _SECRET_IN_QUERY.sub(r"\1***", _USER_IN_URI.sub("***@", text))


def _text(key: str, value: Any) -> str:
    """A parameter's value as it may be stored."""
    return "***" if _SECRET.search(key) else redacted(str(value))[:_LONGEST_PARAM]


def _metric(key: str, value: Any, now: int, step: int) -> Metric | None:
    """A number as a metric; None for what is no finite number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Metric(key, float(value), now, step) if number and math.isfinite(value) else None


def _origin(record: checkpoint.Record) -> dict[str, Any]:
    """What a stage was made from, as parameters."""
    init = record.init
    return {
        "manifest_digest": record.manifest_digest,
        "split": record.split,
        "init": init.place if init else None,
        "init_sha256": init.model_sha256 if init else None,
    }


def _open(uri: str | None) -> tuple[MlflowClient, str]:
    """A client, and the id of our experiment, whose artifacts lie beside a database file."""
    uri = uri or f"{_SQLITE}{Path.cwd() / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return client, experiment.experiment_id
    beside = None
    if uri.startswith(_SQLITE):
        database = Path(uri.removeprefix(_SQLITE)).absolute()
        beside = str(database.with_name("mlflow-artifacts"))
    return client, client.create_experiment(EXPERIMENT, artifact_location=beside)


def _calm() -> None:
    """No talk about database tables, and no minutes of retries while a server is away."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def _spared() -> Iterator[None]:
    """Training goes on while MLflow is away; the same command again logs what is missing."""
    try:
        yield
    except _UNREACHABLE as error:
        log.warning("not logged to MLflow for now: %s", str(error).strip().partition("\n")[0])
