"""Training in this process; an object store gets a copy of each checkpoint."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from aiaic.loader import Samples
from aiaic.run import LocalRun
from data_prep import storage
from workflows import chain, checkpoints
from workflows.chain import Job, Stage
from workflows.checkpoints import Finished

Progress = Callable[[int, int, int, float], None]
"""Called with (stage, step, steps in all, loss)."""
Committed = Callable[[str], None]
"""Called with the place of a new checkpoint."""


def fit(job: Job, samples: Samples, progress: Progress, committed: Committed) -> list[Finished]:
    """Train the stages of a job, from their newest checkpoints where there are any.

    Raises: as :func:`aiaic.training.train`.
    """

    @contextlib.contextmanager
    def open_run(stage: Stage) -> Iterator[LocalRun]:
        def on_progress(step: int, metrics: dict[str, float]) -> None:
            progress(stage.number, step, stage.steps, metrics["loss"])

        def on_commit(folder: Path) -> None:
            committed(_mirror(folder, stage.place))

        with _working_copy(stage.place) as folder:
            yield LocalRun(folder, on_progress=on_progress, on_commit=on_commit)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return chain.train_stages(job, samples, open_run, device)


@contextlib.contextmanager
def _working_copy(place: str) -> Iterator[Path]:
    """The stage's folder itself, or a local copy of its checkpoints."""
    if storage.is_local(place):
        yield storage.local_path(place)
        return
    with tempfile.TemporaryDirectory(prefix="aiaic-") as folder:
        for committed in checkpoints.steps(place):
            storage.download_folder(committed, Path(folder, storage.name_of(committed)))
        yield Path(folder)


def _mirror(committed: Path, place: str) -> str:
    """Publish a new checkpoint, and delete those that are not kept here either; its place."""
    published = storage.join(place, committed.name)
    if not storage.is_local(place):
        checkpoints.publish(committed, published)
        checkpoints.prune(place)
    return published
