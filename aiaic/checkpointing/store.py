"""A stage's checkpoints: which is best, which are intact, which can be deleted."""

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

Losses = dict[str, float | None]
"""``validation_loss`` of checkpoints by name; None for one that was not validated."""

_PERMANENT = (
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    FileExistsError,
)
"""Failures that no retry fixes. A full disk is not among them: space may be freed.

The same kinds as ``data_prep.storage.permanent_errors.PERMANENT``, which this package must not
import; a test of ``workflows`` keeps the two equal."""


@runtime_checkable
class Store(Protocol):
    """The checkpoints of one stage, by name.

    Names are those of :func:`aiaic.checkpointing.checkpoint.step_name`.
    """

    def names(self) -> list[str]:
        """Committed checkpoints, oldest first."""
        ...

    def record(self, name: str) -> Record:
        """The record of a checkpoint."""
        ...

    def fetch(self, name: str) -> Path:
        """A checkpoint as a local folder of its name, unverified."""
        ...

    def publish(self, name: str, fill: Fill) -> None:
        """Commit a checkpoint atomically, its record last."""
        ...

    def delete(self, name: str) -> None:
        """Delete a checkpoint, its record first."""
        ...

    def sweep(self) -> None:
        """Delete incomplete checkpoints that killed processes have left."""
        ...

    def place(self, name: str) -> str:
        """The path or URI of a checkpoint."""
        ...

    def may_pass(self, error: OSError) -> bool:
        """Whether a failure to publish may pass by itself, so that a retry makes sense."""
        ...


class FolderStore:
    """Checkpoints in a local folder ``RUN/stageN``, which is created if necessary."""

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

    def may_pass(self, error: OSError) -> bool:
        return not isinstance(error, _PERMANENT)


def validation_loss(record: Record) -> float | None:
    """The loss by which checkpoints are compared; None if this one was not validated."""
    return record.metrics.get("validation_loss")


def best(store: Store) -> str | None:
    """The checkpoint with the lowest ``validation_loss``; the newest if none was validated.

    Checkpoints with a damaged record are skipped. None if there is no checkpoint.
    """
    return next(iter(_best_first(store, store.names(), {})), None)


def prune(store: Store, keep: int, losses: Losses | None = None) -> None:
    """Delete all checkpoints except the newest ``keep`` and the best.

    Args:
        store: of one stage.
        keep: at least 1.
        losses: those that are known already; the others are read, and added.
    """
    names = store.names()
    ranked = _best_first(store, names, {} if losses is None else losses)
    for name in sorted({*names[:-keep]} - {*ranked[:1]}):
        store.delete(name)


def newest_whole(store: Store) -> Path | None:
    """The newest intact checkpoint as a local folder of its name; None if there is no checkpoint.

    Damaged ones after it are deleted, and so is what killed processes have left: call this before
    anything is written.

    Raises:
        ValueError: there are checkpoints, but all are damaged.
    """
    store.sweep()
    return _whole(store, list(reversed(store.names())))


def best_whole(store: Store) -> str:
    """The best intact checkpoint; damaged ones that would be better are deleted.

    Raises:
        ValueError: there are checkpoints, but all are damaged.
    """
    found = _whole(store, _best_first(store, store.names(), {}))
    assert found is not None  # a finished stage has checkpoints
    return found.name


def _whole(store: Store, names: Sequence[str]) -> Path | None:
    """The first intact one of them; those before it are deleted."""
    damaged: dict[str, DamagedError] = {}
    for name in names:
        try:
            folder = _fetch_whole(store, name)
        except DamagedError as error:
            damaged[name] = error
        else:
            for broken, why in damaged.items():
                log.warning(
                    "deleted the damaged checkpoint '%s', using %s instead: %s",
                    store.place(broken), name, why,
                )  # fmt: skip
                store.delete(broken)
            return folder
    if damaged:
        first, why = next(iter(damaged.items()))
        raise ValueError(
            f"checkpoint '{store.place(first)}' is damaged ({why}), and so are all others: delete "
            "the stage's folder to start it over"
        )
    return None


def _fetch_whole(store: Store, name: str) -> Path:
    """A checkpoint as a verified local folder; fetched twice, as the network may damage a copy."""
    try:
        folder = store.fetch(name)
        checkpoint.verify(folder)
    except DamagedError:
        folder = store.fetch(name)
        checkpoint.verify(folder)
    return folder


def _best_first(store: Store, names: Sequence[str], losses: Losses) -> list[str]:
    """By validation loss, then those that were not validated, the newest first.

    Args:
        store: of one stage.
        names: its checkpoints, oldest first.
        losses: those that are known already; the others are read, and added.
    """
    ranks: dict[str, tuple[float, int]] = {}
    for age, name in enumerate(reversed(names)):
        if name not in losses:
            try:
                losses[name] = validation_loss(store.record(name))
            except DamagedError as error:
                log.warning("skipped checkpoint '%s': %s", store.place(name), error)
                continue
        loss = losses[name]
        ranks[name] = (math.inf, age) if loss is None else (loss, -age)
    return sorted(ranks, key=lambda name: ranks[name])
