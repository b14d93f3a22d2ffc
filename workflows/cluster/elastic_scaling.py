"""How many workers an attempt starts with, and when more of them are worth a restart."""

import logging
import time
from collections.abc import Callable

from ray.train import ScalingConfig

from workflows.cluster import ray_internals, session
from workflows.cluster.worker_range import Workers

log = logging.getLogger(__name__)

_FREED_WITHIN_S = 5.0
"""How long the processors of workers that have just ended may take to be free again."""
_POLL_EVERY_S = 0.5


class ElasticScaling:
    """Fits a range of workers to what the cluster has now; requests the rest from an autoscaler.

    Args:
        name: under which the autoscaler is asked.
        workers: how many; a single number is started whatever the cluster has now.
        gpu: whether each takes a GPU.
    """

    def __init__(self, name: str, workers: Workers, *, gpu: bool) -> None:
        self._workers, self._gpu = workers, gpu
        self._demand = ray_internals.worker_demand(name)
        self.elastic = workers.least < workers.most
        """Whether the number may change."""

    def initial_count(self, stop_requested: Callable[[], bool]) -> int:
        """How many workers to start; waits a little for the room of those that have just ended."""
        if session.cpus() < self._workers.least:
            log.warning("the cluster has %d CPUs now: Ray waits until it has more", session.cpus())
        if not self.elastic:
            return self._workers.least
        self._ask_for(self._workers.most)
        until = time.monotonic() + _FREED_WITHIN_S
        while time.monotonic() < until and not stop_requested():
            if session.room(gpu=self._gpu) >= self._workers.most:
                break
            time.sleep(_POLL_EVERY_S)
        count = self._workers.within(session.room(gpu=self._gpu))
        self._ask_for(self._workers.most - count)
        return count

    def can_grow(self, count: int) -> bool:
        """Whether the cluster has room for more workers than ``count`` now."""
        self._ask_for(self._workers.most - count)
        larger = self._workers.within(count + session.room(gpu=self._gpu))
        if larger > count:
            log.info("the cluster has room for %d workers: saving, then restarting", larger)
        return larger > count

    def config(self, count: int) -> ScalingConfig:
        """Ray Train's configuration for so many workers."""
        return ScalingConfig(num_workers=count, use_gpu=self._gpu)

    def close(self) -> None:
        """Tell the autoscaler that no more workers are wanted."""
        if self.elastic:
            self._demand.cancel_resource_request()

    def _ask_for(self, more: int) -> None:
        """Tell the autoscaler how many more workers are wanted.

        It adds up all requests, and Ray itself asks for the workers that run.
        """
        if more:
            self._demand.send_resource_request(self.config(more), more)
        else:
            self._demand.cancel_resource_request()
