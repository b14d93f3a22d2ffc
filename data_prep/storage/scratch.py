"""Scratch folders for unfinished and downloaded files; those of killed processes are removed."""

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
"""Prefix of the folders' names."""
_YOUNG_S = 60.0  # a new folder may not be locked yet


class NoSpaceError(OSError):
    """The scratch disk is full."""


@contextlib.contextmanager
def folder() -> Generator[Path, None, None]:
    """A folder that exists within the context; its lock tells other processes that it is in use."""
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
    """Turns a full scratch disk into an error that names the disk and what to do.

    Args:
        scratch: the scratch folder.
        made: what is being written there, for the message.

    Raises:
        NoSpaceError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpaceError(
            f"no space left in {scratch.parent} for the {made} being written: free some, or set "
            "TMPDIR to a larger disk"
        ) from error


def _sweep(parent: Path) -> None:
    """Removes the folders of dead processes: those that no process has locked."""
    for left in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # owned by another user, in use, or just removed
            if time.time() - left.stat().st_mtime < _YOUNG_S:
                continue
            descriptor = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
