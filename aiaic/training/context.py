"""The port through which a training loop talks to whatever runs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from aiaic.checkpointing import checkpoint
from aiaic.checkpointing import store as stores
from aiaic.checkpointing.async_saver import Saver
from aiaic.checkpointing.store import Fill, FolderStore, Store


@runtime_checkable
class Run(Protocol):
    """Rank and world, progress, checkpoints; Ray Train is one such run, :class:`LocalRun` another.

    The loop never touches storage, a logger or a cluster itself.
    """

    rank: int
    world_size: int

    def progress(self, step: int, metrics: dict[str, float]) -> None:
        """Show progress; called every few steps, on every rank, and free to do nothing."""
        ...

    def save(self, step: int, write: Fill) -> None:
        """Commit the checkpoint of ``step`` while training goes on; called on rank 0 alone.

        ``write`` fills an empty folder; it is called in another thread.
        """
        ...

    def settle(self, *, patient: bool = True) -> None:
        """Wait until the last :meth:`save` is committed, so that a restart begins there.

        Args:
            patient: try for some minutes where storage fails.

        Raises:
            OSError: it could not be stored.
        """
        ...

    def restore(self) -> Path | None:
        """The newest whole checkpoint of this very run as a local folder, or None.

        The same one on every rank.
        """
        ...

    def stop_requested(self) -> bool:
        """Whether this worker was told to leave; the loop lets all workers leave at one step."""
        ...


class LocalRun:
    """A run in this process.

    Args:
        store: the stage's checkpoints, or a folder of them, ``RUN/stageN``.
        keep: how many of the newest checkpoints stay, beside the best by ``validation_loss``.
        on_progress: called with (step, metrics) at each report of progress.
        on_commit: called with the name of each new checkpoint, in another thread.
        stop: whether the run was told to leave.
    """

    rank = 0
    world_size = 1

    def __init__(
        self,
        store: Store | Path,
        *,
        keep: int = 2,
        on_progress: Callable[[int, dict[str, float]], None] | None = None,
        on_commit: Callable[[str], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.store = FolderStore(store) if isinstance(store, Path) else store
        self._saver = Saver(self.store, keep, on_commit)
        self._on_progress = on_progress
        self._stop = stop

    def progress(self, step: int, metrics: dict[str, float]) -> None:
        if self._on_progress is not None:
            self._on_progress(step, metrics)

    def save(self, step: int, write: Fill) -> None:
        self._saver.save(checkpoint.step_name(step), write)

    def settle(self, *, patient: bool = True) -> None:
        self._saver.settle(patient=patient)

    def restore(self) -> Path | None:
        return stores.newest_whole(self.store)

    def stop_requested(self) -> bool:
        return self._stop()
