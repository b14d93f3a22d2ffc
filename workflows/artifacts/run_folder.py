"""The folder of a run: RUN/stage1/step-0000400, on a path or in an object store.

A checkpoint exists once its ``checkpoint.json`` does, which is published last. A finished stage has
``stage.json``, written last of all. The folder is the only source of truth, however the run was
trained.
"""

import contextlib
import dataclasses
import fcntl
import functools
import json
import re
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from aiaic import config
from aiaic.checkpointing import checkpoint, store
from aiaic.checkpointing.async_saver import Commit
from aiaic.checkpointing.store import Fill
from aiaic.checkpointing.timings import TIMINGS, Timings, parse_timings
from data_prep import storage
from workflows.artifacts import scratch

STAGES = (1, 2, 3)
_FINISHED = "stage.json"
_STARTED = "begun.json"
_LOCK = ".training.lock"
_STEP_NAME = re.compile(r"step-\d{7,}")
_STEP = re.compile(r"(step-\d{7,})/checkpoint\.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageResult:
    """A finished stage, as ``stage.json`` describes it."""

    stage: int
    final: str
    """Folder name of the last checkpoint."""
    best: str
    """Folder name of the checkpoint with the lowest validation loss."""
    steps: int
    seconds: float
    """Time since the stage was first started, interruptions included."""
    metrics: dict[str, float]
    """Validation metrics of the best checkpoint."""
    precision: str
    samples_per_s: float
    """Training samples of all workers per second of the steps that were not lost."""
    goodput: float = 1.0
    """Share of the stage's time that went into the steps that were not lost."""


@contextlib.contextmanager
def exclusive_lock(run: str) -> Generator[None, None, None]:
    """Within the context, no other training can write into a run's folder.

    Object stores have no locks that end with their holder, and neither do all file systems: there a
    second training is not detected.

    Raises:
        ValueError: another training holds the lock.
    """
    if not storage.is_local(run):
        yield
        return
    folder = storage.local_path(run)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("wb") as file:  # never deleted: another training may hold it by then
        with contextlib.suppress(OSError):
            _lock(file.fileno(), run)
        yield


def check_place(run: str) -> None:
    """Refuse a place that cannot be a run's folder.

    Raises:
        ValueError: it is a whole bucket.
    """
    if storage.is_bucket(run):
        raise ValueError(f"'{run}' is a whole bucket: name a folder in it")


def stage_place(run: str, stage: int) -> str:
    """The folder of one stage of a run."""
    return storage.join(run, f"stage{stage}")


def steps(stage: str) -> list[str]:
    """Places of the committed checkpoints of a stage's folder, oldest first."""
    if not storage.exists(stage):
        return []
    matches = (_STEP.fullmatch(file.name) for file in storage.list_files(stage))
    return [storage.join(stage, name) for name in sorted(m[1] for m in matches if m)]


def read_record(place: str) -> checkpoint.Record:
    """The record of the checkpoint at a place; nothing else is downloaded."""
    if storage.is_local(place):
        return checkpoint.read_record(storage.local_path(place))
    content = storage.read_bytes(storage.join(place, checkpoint.RECORD))
    return checkpoint.parse_record(content, place)


def read_timings(place: str) -> Timings | None:
    """The timings of the checkpoint at a place; None if unknown."""
    path = storage.join(place, TIMINGS)
    if storage.size_of(path) is None:
        return None
    return parse_timings(storage.read_bytes(path))


def read_commit(place: str) -> Commit:
    """The checkpoint at a place as the saver that committed it reported it."""
    return Commit(place=place, record=read_record(place), timings=read_timings(place))


def read_result(stage: str) -> StageResult | None:
    """``stage.json`` of a stage's folder; None if the stage is not finished.

    Raises:
        ValueError: the file is damaged.
    """
    place = storage.join(stage, _FINISHED)
    if storage.size_of(place) is None:
        return None
    try:
        values: dict[str, Any] = json.loads(storage.read_bytes(place))
        return config.from_json(StageResult, values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"'{place}' is damaged: {error}") from None


def started_unix_s(stage: str) -> float:
    """When a stage was first started; if it never was, the current time is noted in its folder."""
    place, now = storage.join(stage, _STARTED), time.time()
    if storage.size_of(place) is None:
        storage.write_bytes(place, json.dumps({"begun_unix_s": now}).encode())
        return now
    try:
        return float(json.loads(storage.read_bytes(place))["begun_unix_s"])
    except (ValueError, KeyError, TypeError):  # damaged; only shown to people
        return now


def finish(stage: str, result: StageResult) -> None:
    """Write ``stage.json`` after deleting all checkpoints but the last and the best."""
    store.prune(PlaceStore(stage), keep=1)
    content = json.dumps(config.to_json(result), indent=1, sort_keys=True)
    storage.write_bytes(storage.join(stage, _FINISHED), content.encode())


class PlaceStore:
    """A stage's checkpoints at a place: a path, or an object store.

    See :class:`aiaic.checkpointing.store.Store`.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def names(self) -> list[str]:
        return [storage.name_of(place) for place in steps(self.stage)]

    def record(self, name: str) -> checkpoint.Record:
        return read_record(self.place(name))

    def fetch(self, name: str) -> Path:
        place = self.place(name)
        # Not a cached download: a damaged checkpoint may have been rewritten since.
        return storage.local_path(place) if storage.is_local(place) else _download_all(place)

    def publish(self, name: str, fill: Fill) -> None:
        publish(fill, self.place(name))

    def delete(self, name: str) -> None:
        storage.delete_folder(self.place(name), first=checkpoint.RECORD)

    def sweep(self) -> None:
        if storage.is_local(self.stage):
            checkpoint.sweep(storage.local_path(self.stage))
            return
        if not storage.exists(self.stage):
            return
        started = {file.name.partition("/")[0] for file in storage.list_files(self.stage)}
        for name in sorted(started - set(self.names())):
            if _STEP_NAME.fullmatch(name):
                self.delete(name)

    def place(self, name: str) -> str:
        return storage.join(self.stage, name)

    def may_pass(self, error: OSError) -> bool:
        return storage.may_pass(error)


def publish(fill: Fill, place: str) -> None:
    """Write a checkpoint to its place, atomically: its record comes last."""
    if storage.is_local(place):
        checkpoint.commit(storage.local_path(place), fill)
        return
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as folder:
        fill(Path(folder))
        storage.delete(storage.join(place, checkpoint.RECORD))  # it describes the previous files
        for path in sorted(Path(folder).iterdir(), key=_record_last):
            storage.publish(path, storage.join(place, path.name))


def fetch(place: str) -> Path:
    """A checkpoint as a local folder, see :func:`resolve`; only model and record are downloaded."""
    return _local(resolve(place))


def fetch_stage(place: str, stage: int) -> Path:
    """The best checkpoint of another stage of the run that ``place`` belongs to.

    Raises:
        FileNotFoundError: that stage of the run does not exist or is not finished.
    """
    return _local(resolve_stage(place, stage))


def resolve(place: str) -> str:
    """The place of a checkpoint, given the place of a checkpoint, a finished stage, or a run.

    A stage means its best checkpoint, and a run its last finished stage.

    Raises:
        FileNotFoundError: there is no checkpoint, or the stage is not finished.
    """
    if storage.size_of(storage.join(place, checkpoint.RECORD)) is not None:
        return place
    for folder in (place, *(stage_place(place, stage) for stage in reversed(STAGES))):
        result = read_result(folder)
        if result is not None:
            return storage.join(folder, result.best)
    folders = (place, *(stage_place(place, stage) for stage in STAGES))
    if unfinished := next((found for folder in folders if (found := steps(folder))), None):
        raise FileNotFoundError(
            f"'{place}' has no finished stage: rerun its training command until it ends, "
            f"or pass one of its checkpoints, such as '{unfinished[-1]}'"
        )
    raise FileNotFoundError(f"no checkpoint at '{place}': pass a run, a stage or a checkpoint")


def resolve_stage(place: str, stage: int) -> str:
    """Like :func:`resolve`, for a given stage of the run that ``place`` belongs to."""
    parent = storage.parent_of(place)
    for run in (place, parent, storage.parent_of(parent)):
        folder = stage_place(run, stage)
        result = read_result(folder)
        if result is not None:
            return storage.join(folder, result.best)
    raise FileNotFoundError(f"the run of '{place}' has no finished stage {stage}")


def _lock(descriptor: int, run: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another training is writing into '{run}': wait until it ends") from None


def _record_last(path: Path) -> tuple[bool, str]:
    return path.name == checkpoint.RECORD, path.name


def _local(place: str) -> Path:
    return storage.local_path(place) if storage.is_local(place) else _download(place)


@functools.lru_cache(maxsize=8)
def _download(place: str) -> Path:
    folder = _fresh_folder(place)
    folder.mkdir()
    for name in (checkpoint.RECORD, checkpoint.MODEL):
        (folder / name).write_bytes(storage.read_bytes(storage.join(place, name)))
    return folder


def _download_all(place: str) -> Path:
    folder = _fresh_folder(place)
    storage.download_folder(place, folder)
    return folder


def _fresh_folder(place: str) -> Path:
    return Path(tempfile.mkdtemp(dir=scratch.folder()), storage.name_of(place))
