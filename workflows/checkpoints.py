"""Where a run's checkpoints lie: RUN/stage1/step-0000400, on a path or in an object store.

A checkpoint is there once its ``checkpoint.json`` is, which is published last. A finished stage has
``stage.json``, written last of all. The folder is the truth, whichever port wrote it.
"""

import dataclasses
import functools
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from aiaic import checkpoint, config
from data_prep import storage

STAGES = (1, 2, 3)
_FINISHED = "stage.json"
_STEP = re.compile(r"(step-\d{7,})/checkpoint\.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
    """What ``stage.json`` tells of a finished stage."""

    stage: int
    final: str
    """Folder name of the last checkpoint."""
    best: str
    """Folder name of the one with the lowest validation loss."""
    steps: int
    seconds: float
    """Time the stage took, from the start of its command; a resumed one counts from there."""
    metrics: dict[str, float]
    """Validation metrics of the best checkpoint."""
    precision: str
    samples_per_s: float
    """Training samples per second and worker."""


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
    """What the checkpoint at a place says of itself; only its record is downloaded."""
    if storage.is_local(place):
        return checkpoint.read_record(storage.local_path(place))
    with tempfile.TemporaryDirectory() as folder:
        record = storage.read_bytes(storage.join(place, checkpoint.RECORD))
        Path(folder, checkpoint.RECORD).write_bytes(record)
        return checkpoint.read_record(Path(folder))


def read_finished(stage: str) -> Finished | None:
    """``stage.json`` of a stage's folder; None where the stage is not finished.

    Raises:
        ValueError: the file is damaged.
    """
    place = storage.join(stage, _FINISHED)
    if storage.size_of(place) is None:
        return None
    try:
        values: dict[str, Any] = json.loads(storage.read_bytes(place))
        return config.from_json(Finished, values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"'{place}' is damaged: {error}") from None


def finish(stage: str, finished: Finished) -> None:
    """Write ``stage.json`` after deleting all checkpoints but the last and the best."""
    prune(stage)
    content = json.dumps(config.to_json(finished), indent=1, sort_keys=True)
    storage.write_bytes(storage.join(stage, _FINISHED), content.encode())


def best(stage: str) -> str:
    """Place of the checkpoint with the lowest ``validation_loss``, else of the newest.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    found = steps(stage)
    if not found:
        raise FileNotFoundError(f"no checkpoint in '{stage}'")
    losses = [read_record(place).metrics.get("validation_loss", float("inf")) for place in found]
    lowest = min(losses)
    return found[-1] if lowest == float("inf") else found[losses.index(lowest)]


def prune(stage: str) -> None:
    """Delete all checkpoints but the newest and the best.

    Their records go first, so that no half of a checkpoint is ever taken for one.
    """
    found = steps(stage)
    for place in sorted({*found} - {found[-1], best(stage)}) if found else ():
        storage.delete_folder(place, first=checkpoint.RECORD)


def publish(folder: Path, place: str) -> None:
    """Copy a finished local checkpoint to its place; it is there whole or not at all."""
    if storage.is_local(place):
        final = storage.local_path(place)
        checkpoint.commit(final, lambda part: _copy(folder, part))
        return
    record_last = sorted(
        folder.iterdir(), key=lambda path: (path.name == checkpoint.RECORD, path.name)
    )
    for path in record_last:
        storage.publish(path, storage.join(place, path.name))


def fetch(place: str) -> Path:
    """A checkpoint as a local folder, downloaded if need be; see :func:`resolve`."""
    return _local(resolve(place))


def fetch_stage(place: str, stage: int) -> Path:
    """The best checkpoint of another stage of the run that ``place`` belongs to.

    Raises:
        FileNotFoundError: that stage of the run is not there or not finished.
    """
    return _local(resolve_stage(place, stage))


def resolve(place: str) -> str:
    """The place of a checkpoint, given that of a checkpoint, of a finished stage, or of a run.

    A stage means its best checkpoint, and a run its last finished stage.

    Raises:
        FileNotFoundError: there is no checkpoint, or the stage is not finished.
    """
    if storage.size_of(storage.join(place, checkpoint.RECORD)) is not None:
        return place
    for folder in (place, *(stage_place(place, stage) for stage in reversed(STAGES))):
        finished = read_finished(folder)
        if finished is not None:
            return storage.join(folder, finished.best)
    folders = (place, *(stage_place(place, stage) for stage in STAGES))
    if unfinished := next((found for folder in folders if (found := steps(folder))), None):
        raise FileNotFoundError(
            f"'{place}' holds no finished stage: repeat its training command to its end, "
            f"or name one of its checkpoints, such as '{unfinished[-1]}'"
        )
    raise FileNotFoundError(f"no checkpoint at '{place}': give a run, its stage or a checkpoint")


def resolve_stage(place: str, stage: int) -> str:
    """Like :func:`resolve`, for a certain stage of the run that ``place`` belongs to."""
    for run in (place, storage_parent(place), storage_parent(storage_parent(place))):
        folder = stage_place(run, stage)
        finished = read_finished(folder)
        if finished is not None:
            return storage.join(folder, finished.best)
    raise FileNotFoundError(f"the run of '{place}' has no finished stage {stage}")


def storage_parent(place: str) -> str:
    """The folder that a place lies in."""
    head, mark, query = place.partition("?")
    before = head.rstrip("/").rpartition("/")[0] or ("." if "/" not in head else "/")
    return f"{before}{mark}{query}"


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _local(place: str) -> Path:
    return storage.local_path(place) if storage.is_local(place) else _download(place)


@functools.lru_cache(maxsize=8)
def _download(place: str) -> Path:
    folder = Path(_scratch().name) / str(len(list(Path(_scratch().name).iterdir())))
    storage.download_folder(place, folder)
    return folder


@functools.cache
def _scratch() -> "tempfile.TemporaryDirectory[str]":
    """A folder for downloads that goes with the process."""
    return tempfile.TemporaryDirectory(prefix="aiaic-", ignore_cleanup_errors=True)
