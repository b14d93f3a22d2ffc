"""Where a stage's checkpoints lie: which is best, which is whole, which may go."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from aiaic import checkpoint
from aiaic.checkpoint import DamagedError, Record

log = logging.getLogger(__name__)

Fill = Callable[[Path], object]
"""Writes a checkpoint's files into an empty folder."""


@runtime_checkable
class Store(Protocol):
    """The checkpoints of one stage, by their names (:func:`aiaic.checkpoint.step_name`)."""

    def names(self) -> list[str]:
        """Committed checkpoints, oldest first."""
        ...

    def record(self, name: str) -> Record:
        """What a checkpoint says of itself."""
        ...

    def fetch(self, name: str) -> Path:
        """A checkpoint as a local folder, unchecked."""
        ...

    def publish(self, name: str, fill: Fill) -> None:
        """Commit a checkpoint: it is there whole or not at all, its record last."""
        ...

    def delete(self, name: str) -> None:
        """Delete a checkpoint, its record first."""
        ...


class FolderStore:
    """Checkpoints in a local folder ``RUN/stageN``, which is created if need be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        return [path.name for path in checkpoint.steps(self.folder)]

    def record(self, name: str) -> Record:
        return checkpoint.read_record(self.folder / name)

    def fetch(self, name: str) -> Path:
        return self.folder / name

    def publish(self, name: str, fill: Fill) -> None:
        checkpoint.commit(self.folder / name, fill)

    def delete(self, name: str) -> None:
        (self.folder / name / checkpoint.RECORD).unlink(missing_ok=True)
        shutil.rmtree(self.folder / name)


def best(store: Store) -> str | None:
    """The checkpoint with the lowest ``validation_loss``; the newest where none was validated.

    None where there is no checkpoint.
    """
    found = store.names()
    losses = [store.record(name).metrics.get("validation_loss", float("inf")) for name in found]
    lowest = min(losses, default=float("inf"))
    if lowest == float("inf"):
        return found[-1] if found else None
    return found[losses.index(lowest)]


def prune(store: Store, keep: int) -> None:
    """Delete all checkpoints but the newest ``keep`` and the best."""
    found = store.names()
    for name in sorted({*found[:-keep]} - {best(store)}):
        store.delete(name)


def newest_whole(store: Store) -> str | None:
    """The newest checkpoint whose files have their checksums; damaged ones after it are deleted.

    None where there is no checkpoint.

    Raises:
        ValueError: there are checkpoints, but all are damaged.
    """
    damaged: dict[str, DamagedError] = {}
    for name in reversed(store.names()):
        try:
            checkpoint.verify(store.fetch(name))
        except DamagedError as error:
            damaged[name] = error
        else:
            for broken, why in damaged.items():
                log.warning("%s; it is deleted, and training goes on from %s", why, name)
                store.delete(broken)
            return name
    if damaged:
        newest = next(iter(damaged.values()))
        raise ValueError(
            f"{newest}; no older one is whole: delete the stage's folder to begin anew"
        )
    return None
