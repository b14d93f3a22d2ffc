"""The training loop's port to Ray Train, and the driver that keeps it going on any cluster.

One attempt of Ray Train carries all stages of a job, since its start costs more than a small stage.
Ray starts workers and sees them die; it is given no checkpoints and starts nothing anew by itself.
That is the driver's: whatever ends an attempt, a death at its start, a node's, a hung collective,
the next one begins from the newest checkpoint of the run's folder, which is the only truth, as for
a run in one process; see :mod:`workflows.cluster.retry_policy` for when it gives up.

So a run that is told to leave, a node that is about to be taken away, and a cluster that has room
for more workers are one thing: the workers save and leave, and no step is lost.
"""

import concurrent.futures
import contextlib
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import ray.train.collective
import ray.train.torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
    TrainAutoscalingCoordinatorClient,
)
from ray.train.v2.api.config import LoggingConfig

from aiaic import config
from aiaic.checkpointing import checkpoint, store
from aiaic.checkpointing.async_saver import Saver
from aiaic.checkpointing.checkpoint import DamagedError
from aiaic.checkpointing.store import Fill
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.artifacts import samples as batches
from workflows.artifacts.run_folder import Finished, PlaceStore
from workflows.cluster import control_channel as news
from workflows.cluster import environment, session
from workflows.cluster.control_channel import News
from workflows.cluster.retry_policy import Patience
from workflows.cluster.workers import Workers
from workflows.training import job as chain
from workflows.training.job import Job, Stage
from workflows.training.local import Committed, Progress
from workflows.training.signals import StoppedError

log = logging.getLogger(__name__)

_RAYS_OWN_RECORD = "checkpoint_manager_snapshot.json"
_JOB = "job.json"
_LOOK_EVERY_S = 0.5
_ASK_EVERY_S = 1.0
_GROW_EVERY_S = 60.0
"""A cluster that comes and goes shall not keep the workers from working."""
_GRACE_S = 300.0
"""After a drained node's deadline, for the others to save what they have."""
_RAYS_TIMEOUT = "RAY_TRAIN_COLLECTIVE_TIMEOUT_S"
_SETTLES_WITHIN_S = 1800.0
"""Rank 0 may try to store its last checkpoint for so long: minutes of pauses, and six uploads."""
_ROOM_WITHIN_S = 5.0
"""How long the processors of workers that have just ended may take to be free again."""


class RayRun:
    """The run of one worker of Ray Train."""

    def __init__(self, stage: Stage, news: News, keep: int) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self._stage = stage
        self._news = news
        self._store = PlaceStore(stage.place)
        self._saver = Saver(self._store, keep, self._committed)
        self._asked_at = time.monotonic()
        self._sent_away = False

    def progress(self, step: int, metrics: dict[str, float]) -> None:
        if self.rank == 0:
            stage = self._stage
            self._news.progress(stage.number, step, stage.steps, metrics["loss"])

    def save(self, step: int, write: Fill) -> None:
        self._saver.save(checkpoint.step_name(step), write)

    def settle(self, *, patient: bool = True) -> None:
        self._saver.settle(patient=patient)

    def restore(self) -> Path | None:
        found = store.newest_whole(self._store) if self.rank == 0 else None
        name = ray.train.collective.broadcast_from_rank_zero(found and found.name)
        if name is None or found is not None:
            return found
        folder = self._store.fetch(name)
        _check_arrived(folder)
        return folder

    def stop_requested(self) -> bool:
        """Whether the driver says so, or a node that workers run on is about to be taken away.

        Ray marks the workers of such a group. Its ``get_preemption_info`` would let all of them
        wait for each other at each step, which is the loop's own business.
        """
        if get_train_context().preemption_context.preemption_info is not None:
            return True
        if self.rank == 0 and time.monotonic() - self._asked_at >= _ASK_EVERY_S:
            self._asked_at = time.monotonic()
            self._sent_away = self._sent_away or self._news.sent_away()
        return self._sent_away

    def _committed(self, name: str) -> None:
        self._news.committed(self._store.place(name))


def fit(
    job: Job,
    workers: Workers,
    gpu: bool | None,
    progress: Progress,
    committed: Committed,
    leave: Callable[[], bool] = lambda: False,
) -> list[Finished]:
    """Train the stages of a job with Ray Train, from their newest checkpoints.

    Args:
        job: what to train.
        workers: how many; a range grows and shrinks with the cluster.
        gpu: a GPU for each worker; None: if the cluster has that many now.
        progress: called in this thread.
        committed: called in another thread, see :class:`workflows.cluster.control_channel.Reader`.
        leave: whether to save and leave; called in this thread.

    Raises:
        ValueError, OSError: what the workers have raised, for a user to mend.
        StoppedError: ``leave`` said so.
        ChildProcessError: the workers failed again and again without a new checkpoint.
    """
    driver = _Driver(job, workers, gpu, progress, committed, leave)
    with contextlib.closing(driver):
        while True:
            ended = driver.attempt()
            if isinstance(ended, list):
                return ended
            if leave():
                raise ended or StoppedError(*_newest(job))


class _Driver:
    """Starts the workers, and looks after them."""

    def __init__(
        self,
        job: Job,
        workers: Workers,
        gpu: bool | None,
        progress: Progress,
        committed: Committed,
        leave: Callable[[], bool],
    ) -> None:
        self._job, self._workers, self._leave = job, workers, leave
        self._progress, self._committed = progress, committed
        self._gpu = session.has_gpus_for(workers) if gpu is None else gpu
        if not self._gpu:
            session.warn_of_threads(workers, job.recipe.training.threads)
        self._patience = Patience(lambda: _position(job))
        self._demand = TrainAutoscalingCoordinatorClient(f"aiaic-{job.out}")
        _forget_rays_record(job.out)
        # Ray makes no folder of its own in a store where something lies already.
        content = json.dumps(config.to_json(job), indent=1, sort_keys=True)
        storage.write_bytes(storage.join(job.out, _JOB), content.encode())

    def attempt(self) -> list[Finished] | StoppedError | None:
        """Train until the end, or until something stops it; None: try again.

        Raises: as :func:`fit`.
        """
        count = self._count()
        if self._leave():
            raise StoppedError(*_newest(self._job))
        log.info("Ray Train starts %d worker%s", count, "s" if count > 1 else "")
        told = News(news.new_key(self._job.out))
        # Ray's own collectives would wait for ever; its controller takes this with it.
        with environment.holding(_RAYS_TIMEOUT, self._rays_timeout_s):
            fitting = _in_thread(lambda: self._trainer(count, told).fit().return_value)
            try:
                self._look_after(fitting, told, count)
                return self._outcome(fitting)
            finally:
                told.delete()

    def _outcome(self, fitting: "Future[Any]") -> list[Finished] | StoppedError | None:
        try:
            return cast(list[Finished] | StoppedError, fitting.result())
        except (TrainingFailedError, RayError) as error:
            self._wait(self._patience.after(error))
            return None

    def _look_after(self, fitting: "Future[Any]", told: News, count: int) -> None:
        """Pass news on until an attempt has ended.

        Raises:
            StoppedError: the run is told to leave before there are workers to save anything.
        """
        looked_at, sent_away = time.monotonic(), False
        with news.Reader(told, self._progress, self._committed) as reader:
            while not fitting.done():
                concurrent.futures.wait([fitting], _LOOK_EVERY_S)
                reader.look()
                if sent_away or fitting.done():
                    continue
                if not reader.trains:
                    looked_at = time.monotonic()  # the start of one attempt is no time for another
                grown = False
                if self._elastic and time.monotonic() - looked_at >= _GROW_EVERY_S:
                    looked_at, grown = time.monotonic(), self._may_grow(count)
                if self._leave() and not reader.begun:
                    raise StoppedError(*_newest(self._job))
                if grown or self._leave():
                    sent_away = told.send_away()
            reader.look()

    @property
    def _timeout_s(self) -> float:
        return self._job.recipe.training.collective_timeout_s

    @property
    def _rays_timeout_s(self) -> str:
        return os.environ.get(_RAYS_TIMEOUT) or str(self._timeout_s + _SETTLES_WITHIN_S)

    @property
    def _elastic(self) -> bool:
        return self._workers.least < self._workers.most

    def _may_grow(self, count: int) -> bool:
        """Whether the cluster has room for more workers now."""
        self._ask_for(self._workers.most - count)
        grown = self._workers.within(count + session.room(gpu=self._gpu))
        if grown > count:
            log.info("the cluster has room for %d workers: they save and start anew", grown)
        return grown > count

    def close(self) -> None:
        """Tell the cluster that no more workers are wanted."""
        if self._elastic:
            self._demand.cancel_resource_request()

    def _ask_for(self, more: int) -> None:
        """Tell a cluster that starts machines on demand how many more workers are wanted.

        It adds up what it is asked for, and Ray itself asks for those that train.
        """
        if more:
            self._demand.send_resource_request(self._scaling(more), more)
        else:
            self._demand.cancel_resource_request()

    def _count(self) -> int:
        """How many workers to start."""
        if session.cpus() < self._workers.least:
            log.warning("the cluster has %d CPUs now: Ray waits until it has more", session.cpus())
        if self._elastic:
            self._ask_for(self._workers.most)
        until = time.monotonic() + _ROOM_WITHIN_S
        while self._elastic and time.monotonic() < until and not self._leave():
            if session.room(gpu=self._gpu) >= self._workers.most:
                break
            self._wait(_LOOK_EVERY_S)
        count = self._workers.within(session.room(gpu=self._gpu))
        if self._elastic:
            self._ask_for(self._workers.most - count)
        return count

    def _wait(self, seconds: float) -> None:
        """Wait, but not on a run that is told to leave."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._leave():
            time.sleep(min(_LOOK_EVERY_S, max(0.0, until - time.monotonic())))

    def _trainer(self, count: int, told: News) -> ray.train.torch.TorchTrainer:
        out = self._job.out
        system, folder = storage.filesystem(run_folder.storage_parent(out))
        return ray.train.torch.TorchTrainer(
            _work,
            train_loop_config={"job": config.to_json(self._job), "news": told.key},
            scaling_config=self._scaling(count),
            torch_config=TorchConfig(timeout_s=math.ceil(self._timeout_s)),
            run_config=RunConfig(
                name=storage.name_of(out),
                storage_path=folder,
                storage_filesystem=system,
                failure_config=FailureConfig(
                    max_failures=0,
                    controller_failure_limit=0,
                    max_preemption_failures=0,
                    preemption_grace_s=_GRACE_S,
                ),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        )

    def _scaling(self, count: int) -> ScalingConfig:
        return ScalingConfig(num_workers=count, use_gpu=self._gpu)


def _work(values: dict[str, Any]) -> list[Finished] | StoppedError:
    """What each worker does; rank 0's result is what Ray hands back."""
    job, told = config.from_json(Job, values["job"]), News(values["news"])

    @contextlib.contextmanager
    def open_run(stage: Stage) -> Iterator[RayRun]:
        yield RayRun(stage, told, job.recipe.training.keep)
        # Rank 0 may try to store its last checkpoint for minutes: see _SETTLES_WITHIN_S.
        ray.train.collective.barrier()

    if ray.train.get_context().get_world_rank() == 0:
        _report_warnings(told)
        told.begin()
    samples = batches.open_samples(job.shards, job.split)
    try:
        return chain.train_stages(job, samples, open_run, ray.train.torch.get_device())
    except StoppedError as stopped:
        return stopped


def _report_warnings(told: News) -> None:
    handler = news.Warnings(told)
    for package in ("aiaic", "data_prep", "workflows"):
        logging.getLogger(package).addHandler(handler)


def _check_arrived(folder: Path) -> None:
    """Refuse a copy that is damaged where rank 0's is whole: another attempt may have better luck.

    Raises:
        ConnectionError: a file is missing or damaged.
    """
    try:
        checkpoint.verify(folder)
    except DamagedError as error:
        raise ConnectionError(f"not all of it reached this machine: {error}") from None


def _in_thread(call: Callable[[], Any]) -> "Future[Any]":
    """Do something in a thread that keeps no process alive.

    In the main thread Ray would take over Ctrl-C and leave without a checkpoint.
    """
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is the caller's)
            future.set_exception(error)

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    return future


def _position(job: Job) -> tuple[str, ...]:
    """The newest checkpoint of each stage; grows as the job makes progress."""
    stages = (run_folder.steps(run_folder.stage_place(job.out, n)) for n in job.stages)
    return tuple(storage.name_of(steps[-1]) if steps else "" for steps in stages)


def _newest(job: Job) -> tuple[int, int]:
    """Stage and step of the newest checkpoint; step 0 where there is none."""
    begun = [
        (number, int(name.removeprefix("step-")))
        for number, name in zip(job.stages, _position(job), strict=True)
        if name
    ]
    return begun[-1] if begun else (job.stages[0], 0)


def _forget_rays_record(run: str) -> None:
    """Delete the list of checkpoints that Ray has kept in runs of former versions.

    It names some that were pruned since, which Ray would refuse to start with.
    """
    storage.delete(storage.join(run, _RAYS_OWN_RECORD))
