"""Finds the processes that a test has started, and Ray nodes that can be killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DECODER = "data_prep.media.worker_main"
"""Part of the command line of a decoding process."""
TIMEOUT_S = 120.0
_STARTS = 3


def descendants(root: int) -> dict[int, str]:
    """Process id -> command line of all running descendants of a process."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                parents[int(folder.name)] = int(fields[1])
    family = {root}
    while new := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= new
    found = {}
    for pid in family - {root}:
        with suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return found


def decoders(root: int) -> list[int]:
    """Process ids of the decoding descendants of a process."""
    return sorted(pid for pid, line in descendants(root).items() if DECODER in line)


def builders(root: int) -> list[int]:
    """Process ids of the Ray workers that build shards, among the descendants of a process."""
    return sorted(pid for pid, line in descendants(root).items() if "ShardBuilder" in line)


def still_decoding(pids: Sequence[int]) -> list[int]:
    """Which of these processes are still decoding, even if they have been reparented."""
    alive = []
    for pid in pids:
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
            if DECODER.encode() in line:
                alive.append(pid)
    return alive


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Polls ``condition`` until it returns something true, and returns that."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} after {timeout_s:g} s")
        time.sleep(0.03)
    return found


@dataclass(kw_only=True)
class Nodes:
    """Two Ray nodes with one CPU each on this machine; the second can be killed."""

    cluster: Any
    second: Any = None
    killed: bool = False

    def kill(self) -> None:
        """Kills the second node abruptly: the raylet and its descendants."""
        self.killed = True
        raylet = self.second.all_processes["raylet"][0].process.pid
        for pid in (raylet, *descendants(raylet)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def restore(self) -> None:
        """Replaces the second node if it has been killed."""
        if self.second is not None:
            if not self.killed:
                return
            self.cluster.remove_node(self.second, allow_graceful=False)
            self.second = None
        self.second, self.killed = self.add(), False

    def add(self, **more: Any) -> Any:
        """Adds a node with one CPU; retries if a busy machine exceeds Ray's 30 s to start it."""
        for attempt in range(_STARTS):
            try:
                return self.cluster.add_node(num_cpus=1, object_store_memory=80 << 20, **more)
            except Exception as error:  # Ray raises no more specific exception
                if "timed out" not in str(error) or attempt == _STARTS - 1:
                    raise
        raise AssertionError


@contextmanager
def two_nodes(scratch: Path) -> Iterator[Nodes]:
    """A cluster whose processes put their temporary files in ``scratch``, a short path."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(TMPDIR=str(scratch), RAY_TMPDIR=str(scratch), RAY_USAGE_STATS_ENABLED="0")
    cluster = Cluster()
    nodes = Nodes(cluster=cluster)
    try:
        nodes.add(include_dashboard=False)
        nodes.restore()
        yield nodes
    finally:
        for node in (nodes.second, cluster.head_node):
            if node is not None:
                cluster.remove_node(node, allow_graceful=False)
        os.environ.clear()
        os.environ.update(before)
