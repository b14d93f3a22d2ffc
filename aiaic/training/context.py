"""What a training loop asks of its surroundings: one protocol, and its local implementation."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from aiaic.checkpointing import store
from aiaic.checkpointing.async_saver import OnCommit, Saver
from aiaic.checkpointing.checkpoint import Snapshot
from aiaic.checkpointing.store import FolderStore, Store


@runtime_checkable
class TrainContext(Protocol):
    """Rank and world size, progress, checkpoints, stop requests.

    Ray Train provides one implementation, :class:`LocalContext` is another. The loop itself never
    touches storage, a logger or a cluster.
    """

    rank: int
    world_size: int

    def report_progress(self, step: int, metrics: dict[str, float]) -> None:
        """Show progress; called every few steps, on every rank. May do nothing."""
        ...

    def save(self, snapshot: Snapshot) -> None:
        """Commit a checkpoint while training continues; called on rank 0 only."""
        ...

    def flush(self, *, retry: bool = True) -> None:
        """Wait until the last :meth:`save` is committed, so that a restart resumes from it.

        Args:
            retry: retry for some minutes where storage fails.

        Raises:
            OSError: it could not be stored.
        """
        ...

    def restore(self) -> Path | None:
        """The newest intact checkpoint of this run as a local folder, or None.

        The same one on every rank.
        """
        ...

    def stop_requested(self) -> bool:
        """Whether this worker was asked to stop; the loop stops all workers at the same step."""
        ...


class LocalContext:
    """Training in this process, without other workers.

    Args:
        store: the stage's checkpoints, or their folder, ``RUN/stageN``.
        keep: how many of the newest checkpoints to keep, beside the best by ``validation_loss``.
        on_progress: called with (step, metrics) at each progress report.
        on_commit: called with each new checkpoint, in another thread.
        stop: whether a stop was requested.
    """

    rank = 0
    world_size = 1

    def __init__(
        self,
        store: Store | Path,
        *,
        keep: int = 2,
        on_progress: Callable[[int, dict[str, float]], None] | None = None,
        on_commit: OnCommit | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.store = FolderStore(store) if isinstance(store, Path) else store
        self._saver = Saver(self.store, keep, on_commit)
        self._on_progress = on_progress
        self._stop = stop

    def report_progress(self, step: int, metrics: dict[str, float]) -> None:
        if self._on_progress is not None:
            self._on_progress(step, metrics)

    def save(self, snapshot: Snapshot) -> None:
        self._saver.save(snapshot)

    def flush(self, *, retry: bool = True) -> None:
        self._saver.flush(retry=retry)

    def restore(self) -> Path | None:
        return store.newest_whole(self.store)

    def stop_requested(self) -> bool:
        return self._stop()
