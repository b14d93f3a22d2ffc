"""MLflow runs that are found again by a tag, so that nothing is logged twice."""

import contextlib
import hashlib
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException

log = logging.getLogger(__name__)

EXPERIMENT = "aiaic"
Status = Literal["FINISHED", "FAILED", "KILLED"]

_SQLITE = "sqlite:///"
_KEY = "aiaic.key"
_PARENT = "mlflow.parentRunId"
_NAME = "mlflow.runName"
_PARAMS_AT_ONCE = 100
_LONGEST_PARAM = 5000
_SECRET = re.compile(r"token|secret|password|passwd|credential|api_?key|access_?key", re.I)
_USER_IN_URI = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_IN_QUERY = re.compile(rf"([?&][^=&]*(?:{_SECRET.pattern})[^=&]*=)[^&]*", re.I)
_UNREACHABLE = (MlflowException, OSError)


class Runs:
    """The MLflow runs that belong to one folder.

    Args:
        uri: a server or database; None: ``mlflow.db`` in the current folder.
        folder: place of what is tracked; its runs are found again by it.

    Raises:
        ConnectionError: MLflow cannot be reached there.
    """

    def __init__(self, uri: str | None, folder: str) -> None:
        self._folder = folder
        self._ids: dict[str, str] = {}
        quiet_logging()
        try:
            self._client, self._experiment = _open(uri)
        except _UNREACHABLE as error:
            first = str(error).strip().partition("\n")[0]
            raise ConnectionError(
                f"no MLflow at --tracking-uri '{uri}' ({first}); 'none' turns tracking off"
            ) from error

    def id_of(self, name: str, parent: str | None = None) -> str:
        """The id of the run with this name, which is created if necessary and set to running."""
        if name not in self._ids:
            self._ids[name] = self._find(name) or self._create(name, parent)
        return self._ids[name]

    def log_params(self, run: str, values: Mapping[str, Any]) -> None:
        """Log parameters that are not logged yet: MLflow does not let them be changed."""
        known = self._client.get_run(run).data.params
        new = [Param(key, _text(key, value)) for key, value in values.items() if key not in known]
        for start in range(0, len(new), _PARAMS_AT_ONCE):
            self._client.log_batch(run, params=new[start : start + _PARAMS_AT_ONCE])

    def last_step(self, run: str, metric: str) -> int:
        """The last step at which a metric was logged; -1 if it never was."""
        history = self._client.get_metric_history(run, metric)
        return max((int(point.step) for point in history), default=-1)

    def log_metrics(self, run: str, values: Mapping[str, Any], step: int) -> None:
        """Log the values that are finite numbers, in one batch."""
        now = int(time.time() * 1000)
        metrics = [
            Metric(key, float(value), now, step)
            for key, value in sorted(values.items())
            if isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
        ]
        self._client.log_batch(run, metrics=metrics)

    def has_artifacts(self, run: str, folder: str) -> bool:
        """Whether a folder of a run's artifacts contains files."""
        return bool(self._client.list_artifacts(run, folder))

    def log_files(self, run: str, files: Sequence[Path], folder: str | None = None) -> None:
        """Store files with a run."""
        for file in files:
            self._client.log_artifact(run, str(file), folder)

    def log_json(self, run: str, values: Mapping[str, Any], name: str) -> None:
        """Store values as a JSON file with a run."""
        self._client.log_dict(run, dict(values), name)

    def end(self, run: str, status: Status) -> None:
        """Set a run's final status."""
        self._client.set_terminated(run, status)

    def end_all(self, status: Status) -> None:
        """Set the final status of every run used by this object."""
        for run in self._ids.values():
            self.end(run, status)

    def _find(self, name: str) -> str | None:
        found: Sequence[Run] = self._client.search_runs(
            [self._experiment],
            filter_string=f"tags.`{_KEY}` = '{self._key(name)}'",
            max_results=1,
        )
        if not found:
            return None
        self._client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id

    def _create(self, name: str, parent: str | None) -> str:
        tags = {_KEY: self._key(name), "aiaic.run": redacted(self._folder), _NAME: name}
        if parent is not None:
            tags[_PARENT] = parent
        return self._client.create_run(self._experiment, tags=tags).info.run_id

    def _key(self, name: str) -> str:
        return hashlib.sha256(f"{self._folder}#{name}".encode()).hexdigest()[:32]


@contextlib.contextmanager
def best_effort() -> Iterator[None]:
    """Training survives an unreachable MLflow; a rerun of the command logs what is missing."""
    try:
        yield
    except _UNREACHABLE as error:
        log.warning("not logged to MLflow for now: %s", str(error).strip().partition("\n")[0])


def redacted(text: str) -> str:
    """A text without the credentials that a URI in it may contain."""
    return _SECRET_IN_QUERY.sub(r"\1***", _USER_IN_URI.sub("***@", text))


def _text(key: str, value: Any) -> str:
    """A parameter's value, safe to store."""
    return "***" if _SECRET.search(key) else redacted(str(value))[:_LONGEST_PARAM]


def _open(uri: str | None) -> tuple[MlflowClient, str]:
    """A client, and the id of our experiment; a database's artifacts are stored beside its file."""
    uri = uri or f"{_SQLITE}{Path.cwd() / 'mlflow.db'}"
    if not uri.startswith(_SQLITE):
        return _open_experiment(uri, None)
    database = Path(uri.removeprefix(_SQLITE)).absolute()
    # MLflow makes the tables of a new database without regard for other processes that do.
    with FileLock(database.with_name(f".{database.name}.lock")):
        return _open_experiment(uri, str(database.with_name("mlflow-artifacts")))


def _open_experiment(uri: str, artifacts: str | None) -> tuple[MlflowClient, str]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        try:
            return client, client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        except MlflowException:
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                raise
    return client, experiment.experiment_id


def quiet_logging() -> None:
    """Silence messages about database tables, and shorten retries while a server is down."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
