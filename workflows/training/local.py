"""Training in this process."""

import contextlib
from collections.abc import Callable, Iterator

import torch

from aiaic.checkpointing.async_saver import OnCommit
from aiaic.loading.loader import Samples
from aiaic.training.context import LocalContext
from workflows.artifacts.run_folder import PlaceStore, StageResult
from workflows.training.job import Job, OnProgress, Stage, train_stages


def fit(
    job: Job,
    samples: Samples,
    on_progress: OnProgress,
    on_commit: OnCommit,
    stop: Callable[[], bool] = lambda: False,
) -> list[StageResult]:
    """Train the stages of a job, each from its newest checkpoint if it has one.

    Args:
        job: what to train.
        samples: what to train on.
        on_progress: called at each progress report.
        on_commit: called with each checkpoint, in another thread.
        stop: whether to save and stop.

    Raises: as :func:`workflows.training.job.train_stages`.
    """

    @contextlib.contextmanager
    def open_context(stage: Stage) -> Iterator[LocalContext]:
        yield LocalContext(
            PlaceStore(stage.place),
            keep=job.recipe.training.keep,
            on_progress=lambda step, metrics: on_progress(
                stage.number, step, stage.steps, metrics["loss"]
            ),
            on_commit=on_commit,
            stop=stop,
        )

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return train_stages(job, samples, open_context, device)
