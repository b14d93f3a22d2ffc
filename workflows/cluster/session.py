"""Connects to Ray: the cluster at RAY_ADDRESS, or a private one on this machine."""

import contextlib
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import ray

from workflows.cluster import environment, ray_internals
from workflows.cluster.worker_range import Workers

log = logging.getLogger(__name__)

_STARTS = 3
_OBJECT_STORE_BYTES = 512 * 2**20  # shards and weights travel through storage, not through here
_SHORT_TEMP = "/tmp"  # noqa: S108 (Ray's own default)
_LONGEST_TEMP = 37
"""Bytes of a folder for temporary files that leave room for the rest of a Unix socket's path, of
107 at most: ``/ray/session_2026-01-31_00-00-00_000000_4194304/sockets/plasma_store`` and a suffix.
"""


@contextlib.contextmanager
def connected(cpus: int | None = None) -> Iterator[None]:
    """Within the context Ray is connected; a private cluster ends with it.

    Args:
        cpus: processors that a private cluster offers at least, whatever the machine has.

    Raises:
        ConnectionError: no cluster can be reached at RAY_ADDRESS.
        ValueError: RAY_TMPDIR is too long a path for a private cluster's sockets.
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


def cpus_of_largest_node() -> int:
    """The most processors that one machine of the cluster has now."""
    alive = (node for node in ray.nodes() if node["Alive"])
    return max((int(node["Resources"].get("CPU", 0)) for node in alive), default=0)


def room(*, gpu: bool) -> int:
    """Workers of one GPU, or else of one processor, that the cluster could start now.

    Nodes that are about to leave do not count.
    """
    kind = "GPU" if gpu else "CPU"
    return sum(int(free.get(kind, 0)) for free in ray_internals.free_resources())


def check_gpus(workers: Workers) -> None:
    """Refuse to wait for GPUs that will never be added.

    Raises:
        ValueError: a private cluster, which is this machine, has too few.
    """
    found = gpus()
    if found >= workers.least:
        return
    if not os.environ.get("RAY_ADDRESS"):
        raise ValueError(
            f"--gpu yes: Ray finds {found} GPUs on this machine, for {workers} workers; "
            "leave --gpu out, or set RAY_ADDRESS to a cluster that has them"
        )
    log.warning("the cluster has %d GPUs now, for %s workers: Ray waits for more", found, workers)


def has_gpus_for(workers: Workers) -> bool:
    """Whether there is a GPU for each of the fewest workers; warns where there are too few."""
    found = gpus()
    if 0 < found < workers.least:
        log.warning(
            "the cluster has %d GPUs now, for %s workers: using none (--gpu yes waits for more)",
            found,
            workers,
        )
    return found >= workers.least


def warn_of_threads(workers: Workers, threads: int) -> None:
    """Warn of more threads than processors.

    Waiting threads spin: on two processors, two trainings of two threads each took two to twenty
    times as long as with one thread each.
    """
    found = cpus()
    if workers.least * threads > found:
        log.warning(
            "%s workers of %d threads each compete for %d CPUs: --set training.threads=%d",
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
    """Start a cluster on this machine, without a dashboard: its Job API would be open to anyone.

    Ray allows its processes 30 s to start, which a busy machine may exceed: tried several times.
    """
    temp = temp_folder()
    for _ in range(_STARTS):
        try:
            with environment.overridden("RAY_TMPDIR", temp):
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    runtime_env=interpreter(sys.executable),
                    **_logging(),
                )
        except Exception as error:  # Ray raises nothing more specific
            if ray_internals.STARTUP_TIMEOUT_TEXT not in str(error):
                raise
            ray.shutdown()
        else:
            return
    raise ConnectionError(
        f"Ray did not start in {_STARTS} attempts of 30 s: this machine is too busy, try later"
    )


def temp_folder() -> str:
    """The folder below which a private cluster keeps its sockets and logs.

    As Ray would choose, RAY_TMPDIR or the machine's folder for temporary files; ``/tmp`` instead of
    one whose path is too long for a socket.

    Raises:
        ValueError: RAY_TMPDIR is.
    """
    given = os.environ.get("RAY_TMPDIR")
    folder = given or tempfile.gettempdir()
    if len(os.fsencode(folder)) <= _LONGEST_TEMP:
        return folder
    if given:
        raise ValueError(
            f"RAY_TMPDIR='{given}' is too long for the paths of Ray's sockets: choose a folder of "
            f"at most {_LONGEST_TEMP} bytes"
        )
    log.info("TMPDIR is too long for the paths of Ray's sockets, which go to %s", _SHORT_TEMP)
    return _SHORT_TEMP


def interpreter(path: str) -> dict[str, str]:
    """A runtime environment whose workers start from a path that a shell would take apart.

    Where workers have environment variables of their own, as Ray Train's have, Ray 2.60 starts them
    by ``bash -c "exec PATH ..."``, without quotes around the interpreter's path.
    """
    quoted = shlex.quote(path)
    return {} if quoted == path else {"py_executable": quoted}


def _logging() -> dict[str, Any]:
    """Show the log of Ray and its workers only when debugging; errors are raised in any case."""
    debugging = log.isEnabledFor(logging.DEBUG)
    ray_internals.quiet_token_log(debug=debugging)
    level = logging.INFO if debugging else logging.WARNING
    return {"logging_level": level, "log_to_driver": debugging}
