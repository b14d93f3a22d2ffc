"""Scratch space of this process, which goes with it however it ends.

Ray ends its workers by SIGKILL, and what they have downloaded would fill a machine in time: so each
process also deletes what dead ones have left.
"""

import atexit
import contextlib
import functools
import os
import threading
from pathlib import Path

from data_prep.storage import scratch

_turn = threading.Lock()


def folder() -> Path:
    """This process's own; made when it is first asked for."""
    with _turn:  # several threads may be the first
        return _made(os.getpid())


@functools.cache
def _made(pid: int) -> Path:
    del pid  # a forked process has one of its own
    lifetime = contextlib.ExitStack()
    atexit.register(lifetime.close)
    return lifetime.enter_context(scratch.folder())
