"""Processes that the tests have started: found by what they do, and nodes of Ray to kill."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DECODER = "data_prep.media.worker_main"
"""In the command line of a process that decodes."""
PATIENCE_S = 120.0
_STARTS = 3


def descendants(root: int) -> dict[int, str]:
    """Command lines of the living processes below one, by process id."""
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
    """Processes below one that decode."""
    return sorted(pid for pid, line in descendants(root).items() if DECODER in line)


def builders(root: int) -> list[int]:
    """Ray's workers below a process that build shards."""
    return sorted(pid for pid, line in descendants(root).items() if "ShardBuilder" in line)


def still_decoding(pids: Sequence[int]) -> list[int]:
    """Those processes that still decode, even if they have another parent now."""
    alive = []
    for pid in pids:
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for the dead
            if DECODER.encode() in line:
                alive.append(pid)
    return alive


def wait_for(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """What ``condition`` returns as soon as that is true."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} after {patience_s:g} s")
        time.sleep(0.03)
    return found


@dataclass(kw_only=True)
class Nodes:
    """Two nodes of Ray in this machine, of one processor each; the second can be killed."""

    cluster: Any
    second: Any = None
    killed: bool = False

    def kill(self) -> None:
        """Kills the second node at once: the raylet and all that it has started."""
        self.killed = True
        raylet = self.second.all_processes["raylet"][0].process.pid
        for pid in (raylet, *descendants(raylet)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def restore(self) -> None:
        """Another second node in place of the one that was killed, if it was."""
        if self.second is not None:
            if not self.killed:
                return
            self.cluster.remove_node(self.second, allow_graceful=False)
            self.second = None
        self.second, self.killed = self.add(), False

    def add(self, **more: Any) -> Any:
        """A node of one processor. Ray gives it 30 s to start, which a busy machine may exceed."""
        for attempt in range(_STARTS):
            try:
                return self.cluster.add_node(num_cpus=1, object_store_memory=80 << 20, **more)
            except Exception as error:  # Ray raises no more special class
                if "timed out" not in str(error) or attempt == _STARTS - 1:
                    raise
        raise AssertionError


@contextmanager
def two_nodes(scratch: Path) -> Iterator[Nodes]:
    """A cluster whose processes keep their temporary files in ``scratch``, a short path."""
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
