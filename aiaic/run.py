"""The port through which a training loop talks to whatever runs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from aiaic import checkpoint


@runtime_checkable
class Run(Protocol):
    """Rank and world, progress, checkpoints; Ray Train is one such run, :class:`LocalRun` another.

    The loop calls :meth:`save` on every rank at the same steps (Ray's ``report`` is a barrier) and
    never touches storage, a logger or a cluster itself.
    """

    rank: int
    world_size: int

    def progress(self, step: int, metrics: dict[str, float]) -> None:
        """Show progress; called every few steps, on every rank, and free to do nothing."""
        ...

    def save(self, step: int, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        """Commit the checkpoint of ``step``.

        ``write`` fills an empty folder and is called on rank 0 alone. ``metrics`` are plain
        floats; ``validation_loss`` decides which checkpoint is best (lower is better).
        When this returns, a restart begins at ``step``.
        """
        ...

    def restore(self) -> Path | None:
        """The newest committed checkpoint of this very run as a local folder, or None."""
        ...

    def stop_requested(self) -> bool:
        """Whether the run should save and leave at the next step (the same on every rank)."""
        ...


class LocalRun:
    """A run in this process, with its checkpoints in a local folder.

    The newest checkpoint and the best by ``validation_loss`` are kept.

    Args:
        folder: the stage's folder, ``RUN/stageN``; created if need be.
        on_progress: called with (step, metrics) at each report of progress.
        on_commit: called with the committed folder after each save.
    """

    rank = 0
    world_size = 1

    def __init__(
        self,
        folder: Path,
        on_progress: Callable[[int, dict[str, float]], None] | None = None,
        on_commit: Callable[[Path], None] | None = None,
    ) -> None:
        self.folder = folder
        self._on_progress = on_progress
        self._on_commit = on_commit

    def progress(self, step: int, metrics: dict[str, float]) -> None:
        if self._on_progress is not None:
            self._on_progress(step, metrics)

    def save(self, step: int, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        del metrics  # they stand in the checkpoint itself
        committed = checkpoint.commit(self.folder / checkpoint.step_name(step), write)
        checkpoint.prune(self.folder)
        if self._on_commit is not None:
            self._on_commit(committed)

    def restore(self) -> Path | None:
        steps = checkpoint.steps(self.folder)
        return steps[-1] if steps else None

    def stop_requested(self) -> bool:
        return False
