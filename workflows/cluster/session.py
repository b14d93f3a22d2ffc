"""Ray's start: the cluster that RAY_ADDRESS names, or one of our own in this machine."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import ray
import ray._private.state

from workflows.cluster.workers import Workers

log = logging.getLogger(__name__)

_STARTS = 3
_OBJECT_STORE_BYTES = 512 * 2**20  # shards and weights travel through storage, not through here


@contextlib.contextmanager
def connected(cpus: int | None = None) -> Iterator[None]:
    """Within the context Ray is there; a cluster of our own goes with it.

    Args:
        cpus: processors that a cluster of our own offers at least, whatever the machine has.

    Raises:
        ConnectionError: RAY_ADDRESS names no cluster that can be reached.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _join(address)
    else:
        _start(max(cpus or 1, os.cpu_count() or 1))
    try:
        yield
    finally:
        ray.shutdown()


def gpus() -> int:
    """GPUs that the cluster has now."""
    return int(ray.cluster_resources().get("GPU", 0))


def cpus() -> int:
    """Processors that the cluster has now."""
    return int(ray.cluster_resources().get("CPU", 0))


def room(*, gpu: bool) -> int:
    """Workers of one GPU, or else of one processor, that the cluster could start now.

    Nodes that are about to leave offer nothing.
    """
    state, kind = ray._private.state.state, "GPU" if gpu else "CPU"
    free = ray._private.state.available_resources_per_node()
    leaving = state.get_draining_nodes()
    return sum(int(has.get(kind, 0)) for node, has in free.items() if node not in leaving)


def check_gpus(workers: Workers) -> None:
    """Refuse to wait for GPUs that nobody will ever add.

    Raises:
        ValueError: a cluster of our own, which is this machine, has too few.
    """
    found = gpus()
    if found >= workers.least:
        return
    if not os.environ.get("RAY_ADDRESS"):
        raise ValueError(
            f"--gpu yes: this machine has {found} GPUs that Ray knows, for {workers} workers; "
            "leave --gpu out, or name a cluster by RAY_ADDRESS"
        )
    log.warning("the cluster has %d GPUs now, for %s workers: Ray waits for more", found, workers)


def has_gpus_for(workers: Workers) -> bool:
    """Whether there is a GPU for each of the least workers; warns where there are too few."""
    found = gpus()
    if 0 < found < workers.least:
        log.warning(
            "the cluster has %d GPUs now, for %s workers: none is used (--gpu yes waits for more)",
            found,
            workers,
        )
    return found >= workers.least


def warn_of_threads(workers: Workers, threads: int) -> None:
    """Warn of more threads than processors.

    Threads that wait for each other spin: two trainings of two threads each took two to twenty
    times as long on two processors as those of one thread.
    """
    found = cpus()
    if workers.least * threads > found:
        log.warning(
            "%s workers of %d threads each on %d CPUs get in each other's way: "
            "--set training.threads=%d",
            workers,
            threads,
            found,
            max(1, found // workers.least),
        )


def _join(address: str) -> None:
    try:
        ray.init(address=address, **_logging())
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConnectionError(
            f"no Ray cluster at RAY_ADDRESS='{address}' ({first}): start one with "
            "'ray start --head', or unset RAY_ADDRESS"
        ) from error


def _start(cpus: int) -> None:
    """A cluster in this machine, without a dashboard: its Job API would be open to anyone.

    Ray gives its processes 30 s to start, which a busy machine may exceed: it is asked again.
    """
    for _ in range(_STARTS):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                **_logging(),
            )
        except Exception as error:  # Ray raises no more special class
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
        else:
            return
    raise ConnectionError(
        f"Ray did not start in {_STARTS} attempts of 30 s: the machine is too busy, try later"
    )


def _logging() -> dict[str, Any]:
    """What Ray and its workers say is shown when debugging alone; errors are raised anyhow."""
    debugging = log.isEnabledFor(logging.DEBUG)
    logging.getLogger("ray._private.authentication").setLevel(
        logging.INFO if debugging else logging.ERROR
    )
    level = logging.INFO if debugging else logging.WARNING
    return {"logging_level": level, "log_to_driver": debugging}
