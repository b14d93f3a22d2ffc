"""Scratch space of this process, which goes with it however it ends.

Ray ends its workers by SIGKILL, and what they have downloaded would fill a machine in time: so each
process also deletes what dead ones have left.
"""

import fcntl
import functools
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

_PREFIX = "aiaic-"
_LOCK = ".lock"
_turn = threading.Lock()
_YOUNG_S = 60.0  # its process may be about to lock it


def folder() -> Path:
    """This process's own; made when it is first asked for."""
    with _turn:  # several threads may be the first
        return Path(_made(os.getpid())[0].name)


@functools.cache
def _made(pid: int) -> "tuple[tempfile.TemporaryDirectory[str], int]":
    del pid  # a forked process has one of its own
    _delete_left()
    made = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
    lock = os.open(Path(made.name, _LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # the system lets go of it when the process dies
    return made, lock


def _delete_left() -> None:
    """Delete the folders whose lock nobody holds any more."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            if time.time() - path.stat().st_mtime < _YOUNG_S:
                continue
            lock = os.open(path, os.O_RDWR)
        except OSError:  # another user's, or just deleted
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass  # its process lives
        else:
            shutil.rmtree(path.parent, ignore_errors=True)
        finally:
            os.close(lock)
