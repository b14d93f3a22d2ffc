"""Training in this process."""

import contextlib
from collections.abc import Callable, Iterator

import torch

from aiaic.loading.loader import Samples
from aiaic.training.context import LocalRun
from workflows.artifacts.run_folder import Finished, PlaceStore
from workflows.training import job as chain
from workflows.training.job import Job, Stage

Progress = Callable[[int, int, int, float], None]
"""Called with (stage, step, steps in all, loss)."""
Committed = Callable[[str], None]
"""Called with the place of a new checkpoint."""


def fit(
    job: Job,
    samples: Samples,
    progress: Progress,
    committed: Committed,
    stop: Callable[[], bool] = lambda: False,
) -> list[Finished]:
    """Train the stages of a job, from their newest checkpoints where there are any.

    Args:
        job: what to train.
        samples: on what.
        progress: told of each report.
        committed: told of each checkpoint, in another thread.
        stop: whether to save and leave.

    Raises: as :func:`workflows.training.job.train_stages`.
    """

    @contextlib.contextmanager
    def open_run(stage: Stage) -> Iterator[LocalRun]:
        store = PlaceStore(stage.place)

        def on_progress(step: int, metrics: dict[str, float]) -> None:
            progress(stage.number, step, stage.steps, metrics["loss"])

        yield LocalRun(
            store,
            keep=job.recipe.training.keep,
            on_progress=on_progress,
            on_commit=lambda name: committed(store.place(name)),
            stop=stop,
        )

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return chain.train_stages(job, samples, open_run, device)
