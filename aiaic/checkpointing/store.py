"""Where a stage's checkpoints lie: which is best, which is whole, which may go."""

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from aiaic.checkpointing import checkpoint
from aiaic.checkpointing.checkpoint import DamagedError, Record

log = logging.getLogger(__name__)

Fill = Callable[[Path], object]
"""Writes a checkpoint's files into an empty folder."""


@runtime_checkable
class Store(Protocol):
    """The checkpoints of one stage, by name.

    Names are those of :func:`aiaic.checkpointing.checkpoint.step_name`.
    """

    def names(self) -> list[str]:
        """Committed checkpoints, oldest first."""
        ...

    def record(self, name: str) -> Record:
        """What a checkpoint says of itself."""
        ...

    def fetch(self, name: str) -> Path:
        """A checkpoint as a local folder of its name, unchecked."""
        ...

    def publish(self, name: str, fill: Fill) -> None:
        """Commit a checkpoint: it is there whole or not at all, its record last."""
        ...

    def delete(self, name: str) -> None:
        """Delete a checkpoint, its record first."""
        ...

    def sweep(self) -> None:
        """Delete what is no checkpoint and never will be: what killed processes have left."""
        ...

    def place(self, name: str) -> str:
        """Where a checkpoint lies, for people."""
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

    def sweep(self) -> None:
        checkpoint.sweep(self.folder)

    def place(self, name: str) -> str:
        return str(self.folder / name)


def best(store: Store) -> str | None:
    """The checkpoint with the lowest ``validation_loss``; the newest where none was validated.

    One whose record is damaged is passed over. None where there is no checkpoint.
    """
    return next(iter(_best_first(store)), None)


def prune(store: Store, keep: int) -> None:
    """Delete all checkpoints but the newest ``keep`` and the best."""
    found = store.names()
    for name in sorted({*found[:-keep]} - {best(store)}):
        store.delete(name)


def newest_whole(store: Store) -> Path | None:
    """The newest checkpoint whose files have their checksums; damaged ones after it are deleted.

    As a local folder of its name; None where there is no checkpoint. To be called before anything
    is written: what killed processes have left of others is deleted too.

    Raises:
        ValueError: there are checkpoints, but all are damaged.
    """
    store.sweep()
    return _whole(store, list(reversed(store.names())))


def best_whole(store: Store) -> str:
    """The best checkpoint whose files have their checksums; better ones are deleted, being damaged.

    Raises:
        ValueError: there are checkpoints, but all are damaged.
    """
    found = _whole(store, _best_first(store))
    assert found is not None  # a finished stage has checkpoints
    return found.name


def _whole(store: Store, names: Sequence[str]) -> Path | None:
    """The first of them that is whole; those before it are deleted."""
    damaged: dict[str, DamagedError] = {}
    for name in names:
        try:
            folder = _fetch_whole(store, name)
        except DamagedError as error:
            damaged[name] = error
        else:
            for broken, why in damaged.items():
                log.warning(
                    "checkpoint '%s' is deleted, and %s takes its place: %s",
                    store.place(broken), name, why,
                )  # fmt: skip
                store.delete(broken)
            return folder
    if damaged:
        first, why = next(iter(damaged.items()))
        raise ValueError(
            f"checkpoint '{store.place(first)}' is damaged ({why}), and so are all others: delete "
            "the stage's folder to begin anew"
        )
    return None


def _fetch_whole(store: Store, name: str) -> Path:
    """A checkpoint as a checked local folder; a copy that is damaged may be the network's fault."""
    try:
        folder = store.fetch(name)
        checkpoint.verify(folder)
    except DamagedError:
        folder = store.fetch(name)
        checkpoint.verify(folder)
    return folder


def _best_first(store: Store) -> list[str]:
    """By validation loss, then those that were not validated, the newest first."""
    ranks: dict[str, tuple[float, int]] = {}
    for age, name in enumerate(reversed(store.names())):
        try:
            loss = store.record(name).metrics.get("validation_loss")
        except DamagedError as error:
            log.warning("checkpoint '%s' is passed over: %s", store.place(name), error)
        else:
            ranks[name] = (math.inf, age) if loss is None else (loss, -age)
    return sorted(ranks, key=lambda name: ranks[name])
