"""What runs in each worker of Ray Train: the training loop, and its context.

Rank 0 writes the checkpoints and reports to the driver; see
:mod:`workflows.cluster.control_channel`.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
import ray.train.torch

from aiaic import config
from aiaic.checkpointing import checkpoint, store
from aiaic.checkpointing.async_saver import Commit, Saver
from aiaic.checkpointing.checkpoint import DamagedError, Snapshot
from workflows.artifacts.run_folder import PlaceStore, StageResult
from workflows.artifacts.samples import open_samples
from workflows.cluster import ray_internals
from workflows.cluster.control_channel import ControlChannel, WarningForwarder
from workflows.training.job import Job, Stage, train_stages
from workflows.training.signals import StoppedError


class RayContext:
    """The training context of one worker; see :class:`aiaic.training.context.TrainContext`."""

    def __init__(self, stage: Stage, channel: ControlChannel, keep: int) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self._stage = stage
        self._channel = channel
        self._store = PlaceStore(stage.place)
        self._saver = Saver(self._store, keep, self._committed)

    def report_progress(self, step: int, metrics: dict[str, float]) -> None:
        if self.rank == 0:
            stage = self._stage
            self._channel.progress(stage.number, step, stage.steps, metrics["loss"])

    def save(self, snapshot: Snapshot) -> None:
        self._saver.save(snapshot)

    def flush(self, *, retry: bool = True) -> None:
        self._saver.flush(retry=retry)

    def restore(self) -> Path | None:
        found = store.newest_whole(self._store) if self.rank == 0 else None
        name = ray.train.collective.broadcast_from_rank_zero(found and found.name)
        if name is None or found is not None:
            return found
        folder = self._store.fetch(name)
        _check_arrived(folder)
        return folder

    def stop_requested(self) -> bool:
        """Whether the driver asks for it, or a node of the workers is about to be taken away."""
        if ray_internals.preemption_announced():
            return True
        return self.rank == 0 and self._channel.stop_requested()

    def _committed(self, commit: Commit) -> None:
        """Report a checkpoint with its record: some 100 kB beside an upload of many megabytes.

        As plain values, so that the actor in between need not import PyTorch.
        """
        self._channel.committed(config.to_json(commit))


def train(values: dict[str, Any]) -> list[StageResult] | StoppedError:
    """Train the stages of a job in this worker; the driver gets rank 0's result.

    Args:
        values: the job as JSON values, and the name of the control channel.
    """
    job = config.from_json(Job, values["job"])
    channel = ControlChannel.connect(values["channel"])

    @contextlib.contextmanager
    def open_context(stage: Stage) -> Iterator[RayContext]:
        yield RayContext(stage, channel, job.recipe.training.keep)
        # Rank 0 may retry its last upload for minutes: see train_driver.FLUSH_WITHIN_S.
        ray.train.collective.barrier()

    with _reporting(channel):
        samples = open_samples(job.shards, job.split)
        device = ray.train.torch.get_device()
        try:
            return train_stages(job, samples, open_context, device)
        except StoppedError as stopped:
            return stopped


@contextlib.contextmanager
def _reporting(channel: ControlChannel) -> Iterator[None]:
    """Within the context rank 0's warnings go to the driver; its last report arrives there."""
    if ray.train.get_context().get_world_rank() != 0:
        yield
        return
    forwarder = WarningForwarder(channel)
    for package in ("aiaic", "data_prep", "workflows"):
        logging.getLogger(package).addHandler(forwarder)
    channel.started()
    try:
        yield
    finally:
        channel.flush()


def _check_arrived(folder: Path) -> None:
    """Refuse a damaged copy of what is whole in the store: another attempt may fetch it whole.

    Raises:
        ConnectionError: a file is missing or damaged.
    """
    try:
        checkpoint.verify(folder)
    except DamagedError as error:
        raise ConnectionError(f"the download is incomplete: {error}") from None
