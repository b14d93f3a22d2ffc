"""Folders for what is in the making or downloaded; those that killed processes left are removed."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

PREFIX = "aiaic-scratch-"
"""How the names of these folders begin."""
_YOUNG_S = 60.0  # a folder that has just been made may not be locked yet


class NoSpaceError(OSError):
    """The scratch disk is full."""


@contextlib.contextmanager
def folder() -> Generator[Path, None, None]:
    """A folder that goes with the context; it is locked, so that nobody takes it for a left one."""
    _sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield Path(name)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def space_in(scratch: Path, made: str = "shard") -> Generator[None, None, None]:
    """A full scratch disk as an error that names it, what is made there, and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpaceError(
            f"no space left in {scratch.parent} for the {made} in the making: free some, or set "
            "TMPDIR to a larger disk"
        ) from error


def _sweep(parent: Path) -> None:
    """Removes the folders of processes that are no more: nobody holds their lock."""
    for left in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone meanwhile
            if time.time() - left.stat().st_mtime < _YOUNG_S:
                continue
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
