"""The driver of a training on Ray Train: attempts, restarts and resizes.

One attempt of Ray Train carries all stages of a job, since its start costs more than a small stage.
Ray starts workers and detects their death; it is given no checkpoints and restarts nothing.
Whatever ends an attempt (a death at its start, a lost node, a hung collective), the driver starts
the next one from the newest checkpoint in the run's folder, which is the only truth, as for a run
in one process; see :mod:`workflows.cluster.retry_policy` for when it gives up.

So a request to stop, a node that is about to be taken away, and a cluster with room for more
workers are handled alike: the workers save and stop, and no step is lost.
"""

import concurrent.futures
import contextlib
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, cast

from ray.exceptions import RayError
from ray.train import FailureConfig, LoggingConfig, RunConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from aiaic import config
from aiaic.checkpointing.async_saver import Commit, OnCommit
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.artifacts.run_folder import StageResult
from workflows.cluster import environment, ray_internals, session, train_worker
from workflows.cluster.control_channel import ControlChannel, Listener
from workflows.cluster.elastic_scaling import ElasticScaling
from workflows.cluster.retry_policy import RetryPolicy
from workflows.cluster.worker_range import Workers
from workflows.training.job import Job, OnProgress
from workflows.training.signals import StoppedError

log = logging.getLogger(__name__)

FLUSH_WITHIN_S = 1800.0
"""Rank 0 may try this long to store its last checkpoint: minutes of pauses, and six uploads."""
GROW_EVERY_S = 60.0
"""Least time between two checks for more room: a cluster whose size changes often must not keep the
workers from training."""
_POLL_EVERY_S = 0.5
_GRACE_S = 300.0
"""After a drained node's deadline, for the other workers to save."""
_JOB = "job.json"


def fit(
    job: Job,
    workers: Workers,
    gpu: bool | None,
    progress: OnProgress,
    committed: OnCommit,
    stop_requested: Callable[[], bool] = lambda: False,
) -> list[StageResult]:
    """Train the stages of a job with Ray Train, from their newest checkpoints.

    Args:
        job: what to train.
        workers: how many; a range grows and shrinks with the cluster.
        gpu: a GPU for each worker; None: if the cluster has that many now.
        progress: called in this thread.
        committed: called in another thread, see
            :class:`workflows.cluster.control_channel.Listener`.
        stop_requested: whether to save and stop; called in this thread.

    Raises:
        ValueError, OSError: raised by a worker, for a user to fix.
        StoppedError: ``stop_requested`` said so.
        ChildProcessError: the workers failed repeatedly without a new checkpoint.
    """
    driver = _Driver(job, workers, gpu, progress, committed, stop_requested)
    with contextlib.closing(driver):
        while True:
            ended = driver.attempt()
            if isinstance(ended, list):
                return ended
            if stop_requested():
                raise ended or StoppedError(*_newest(job))


class _Driver:
    """Starts attempts and watches over them; arguments as of :func:`fit`."""

    def __init__(
        self,
        job: Job,
        workers: Workers,
        gpu: bool | None,
        progress: OnProgress,
        committed: OnCommit,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._job, self._stop_requested = job, stop_requested
        self._progress, self._committed = progress, committed
        gpu = session.has_gpus_for(workers) if gpu is None else gpu
        if not gpu:
            session.warn_of_threads(workers, job.recipe.training.threads)
        self._policy = RetryPolicy(lambda: _position(job))
        self._scaling = ElasticScaling(f"aiaic-{job.out}", workers, gpu=gpu)
        _delete_rays_checkpoint_list(job.out)
        # Ray creates no folder of its own in a store where something exists already.
        content = json.dumps(config.to_json(job), indent=1, sort_keys=True)
        storage.write_bytes(storage.join(job.out, _JOB), content.encode())

    def attempt(self) -> list[StageResult] | StoppedError | None:
        """Train until the end, or until something stops it; None: try again.

        Raises: as :func:`fit`.
        """
        count = self._scaling.initial_count(self._stop_requested)
        if self._stop_requested():
            raise StoppedError(*_newest(self._job))
        log.info("Ray Train starts %d worker%s", count, "s" if count > 1 else "")
        # Ray's own collectives would wait forever; its controller inherits this variable.
        with (
            environment.overridden(ray_internals.COLLECTIVE_TIMEOUT, self._rays_timeout_s),
            contextlib.closing(ControlChannel.create()) as channel,
        ):
            trainer = self._trainer(count, channel)
            fitting = _in_thread(lambda: trainer.fit().return_value)
            self._watch(fitting, channel, count)
            return self._outcome(fitting)

    def close(self) -> None:
        """Withdraw the request for more workers."""
        self._scaling.close()

    def _watch(self, fitting: "Future[Any]", channel: ControlChannel, count: int) -> None:
        """Pass reports on, and requests to stop, until an attempt has ended.

        Raises:
            StoppedError: the request came before there were workers to save anything.
        """
        looked_at, stopping = time.monotonic(), False
        with Listener(channel, self._progress, self._on_commit) as listener:
            while not fitting.done():
                concurrent.futures.wait([fitting], _POLL_EVERY_S)
                listener.poll()
                if not listener.training:
                    looked_at = time.monotonic()  # no restart of workers that have just started
                if self._scaling.elastic and time.monotonic() - looked_at >= GROW_EVERY_S:
                    looked_at = time.monotonic()
                    stopping = stopping or self._scaling.can_grow(count)
                stopping = stopping or self._stop_requested()
                if not stopping or fitting.done():
                    continue
                if not listener.started:
                    raise StoppedError(*_newest(self._job))
                channel.request_stop()  # at each poll, since the actor may have been restarted
            listener.poll()

    def _on_commit(self, values: dict[str, Any]) -> None:
        self._committed(config.from_json(Commit, values))

    def _outcome(self, fitting: "Future[Any]") -> list[StageResult] | StoppedError | None:
        try:
            return cast(list[StageResult] | StoppedError, fitting.result())
        except (TrainingFailedError, RayError) as error:
            self._wait(self._policy.next_delay_s(error))
            return None

    def _wait(self, seconds: float) -> None:
        """Wait, unless the run is asked to stop."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stop_requested():
            time.sleep(min(_POLL_EVERY_S, max(0.0, until - time.monotonic())))

    @property
    def _timeout_s(self) -> float:
        return self._job.recipe.training.collective_timeout_s

    @property
    def _rays_timeout_s(self) -> str:
        given = os.environ.get(ray_internals.COLLECTIVE_TIMEOUT)
        return given or str(self._timeout_s + FLUSH_WITHIN_S)

    def _trainer(self, count: int, channel: ControlChannel) -> TorchTrainer:
        out = self._job.out
        system, folder = storage.filesystem(storage.parent_of(out))
        return TorchTrainer(
            train_worker.train,
            train_loop_config={"job": config.to_json(self._job), "channel": channel.name},
            scaling_config=self._scaling.config(count),
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


def _in_thread(call: Callable[[], Any]) -> "Future[Any]":
    """Call something in a thread that keeps no process alive.

    In the main thread Ray would take over Ctrl-C and leave without a checkpoint.
    """
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 (raised again by the caller)
            future.set_exception(error)

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    return future


def _position(job: Job) -> tuple[str, ...]:
    """The newest checkpoint of each stage; grows as the job makes progress."""
    stages = (run_folder.steps(run_folder.stage_place(job.out, n)) for n in job.stages)
    return tuple(storage.name_of(steps[-1]) if steps else "" for steps in stages)


def _newest(job: Job) -> tuple[int, int]:
    """Stage and step of the newest checkpoint; step 0 where there is none."""
    started = [
        (number, int(name.removeprefix("step-")))
        for number, name in zip(job.stages, _position(job), strict=True)
        if name
    ]
    return started[-1] if started else (job.stages[0], 0)


def _delete_rays_checkpoint_list(run: str) -> None:
    """Delete the list of checkpoints that earlier versions let Ray keep in a run's folder.

    Ray would refuse to start where the list names a checkpoint that was pruned since.
    """
    storage.delete(storage.join(run, ray_internals.CHECKPOINT_LIST))
