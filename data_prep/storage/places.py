"""Reads, writes and deletes files at a place, and publishes files atomically.

A place is a path, a ``file://`` or an ``s3://`` URI, see ``uri``. Libraries that write through
``filesystem`` to some servers (``rclone serve s3``) need
``AWS_REQUEST_CHECKSUM_CALCULATION=when_required``.

Files are never streamed to their final name: a file is completed on this machine, then published,
and the uploaded copy is verified. A full disk or store raises an OSError with a one-line message.
For retries and timeouts see ``s3_retry``.
"""

import contextlib
import errno
import fcntl
import functools
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Generator
from pathlib import Path

from data_prep.storage import s3
from data_prep.storage.listing import list_files
from data_prep.storage.s3 import ConflictError
from data_prep.storage.uri import is_local, join, local_path, require_s3

_PART = re.compile(r"\..+\.[0-9a-f]{12}\.part")


def exists(place: str) -> bool:
    """Whether a file or folder exists there."""
    if is_local(place):
        return local_path(place).exists()
    return size_of(place) is not None or s3.is_folder(place)


def size_of(place: str) -> int | None:
    """Size of the file in bytes; None if it does not exist."""
    if not is_local(place):
        return s3.size_of(require_s3(place))
    path = local_path(place)
    return path.stat().st_size if path.is_file() else None


def read_bytes(place: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if is_local(place):
        with _named(place):
            return local_path(place).read_bytes()
    return s3.read(require_s3(place))


def read_range(place: str, offset: int, length: int) -> bytes:
    """``length`` bytes from ``offset``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file ends before the range does, and is thus damaged.
    """
    if is_local(place):
        with _named(place), local_path(place).open("rb") as file:
            content = os.pread(file.fileno(), length, offset)
    else:
        content = s3.read(require_s3(place), offset, length)
    if len(content) != length:
        raise ValueError(
            f"{place} ends early: {len(content)} of {length} bytes at {offset}; verify the shards"
        )
    return content


def write_bytes(place: str, content: bytes) -> None:
    """Writes a file atomically: readers see either the old or the new content."""
    if is_local(place):
        _replace(local_path(place), lambda part: part.write_bytes(content))
    else:
        s3.write(require_s3(place), content)


def write_if_unchanged(place: str, content: bytes, expected: bytes | None) -> None:
    """Replaces ``expected`` (None: no file) by ``content``; does nothing if it is already there.

    Exactly one of several concurrent writers succeeds; for stores that ignore preconditions see
    ``s3.write_if_unchanged``.

    Raises:
        ConflictError: the file has some other content.
    """
    if not is_local(place):
        s3.write_if_unchanged(require_s3(place), content, expected)
        return
    final = local_path(place)
    final.parent.mkdir(parents=True, exist_ok=True)
    with _locked(final):
        current = final.read_bytes() if final.exists() else None
        if current == content:
            return
        if current != expected:
            raise ConflictError(f"another process changed {place}: rerun the command")
        _replace(final, lambda part: part.write_bytes(content))


def publish(local_file: Path, place: str) -> None:
    """Copies a finished local file to its final name atomically.

    Raises:
        OSError: the uploaded copy differs from the file, and was deleted.
    """
    if is_local(place):
        _replace(local_path(place), lambda part: shutil.copyfile(local_file, part))
    else:
        s3.publish(local_file, require_s3(place))


def delete(place: str) -> None:
    """Deletes a file if it exists."""
    if is_local(place):
        local_path(place).unlink(missing_ok=True)
    else:
        s3.delete(require_s3(place))


def sweep_parts(place: str, older_than_s: float) -> int:
    """Deletes partial files that killed processes left under a folder; returns how many.

    ``older_than_s`` must exceed the longest write: newer files may still be in progress.
    """
    if not is_local(place):
        return s3.sweep_uploads(require_s3(place), older_than_s)
    before = time.time() - older_than_s
    parts = (path for path in local_path(place).rglob(".*.part") if _PART.fullmatch(path.name))
    removed = 0
    for path in parts:
        with contextlib.suppress(FileNotFoundError):  # its writer has just renamed it
            if path.stat().st_mtime < before:
                path.unlink()
                removed += 1
    return removed


def delete_folder(place: str, first: str) -> None:
    """Deletes all files under a folder, starting with the one named ``first``."""
    for file in sorted(list_files(place), key=lambda file: file.name != first):
        delete(file.uri)
    if is_local(place):
        shutil.rmtree(local_path(place))


def upload_folder(folder: Path, place: str) -> None:
    """Publishes all files under a local folder to a place."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        publish(path, join(place, path.relative_to(folder).as_posix()))


def download_folder(place: str, folder: Path) -> None:
    """Copies all files under a place into a local folder."""
    for file in list_files(place):
        target = folder / file.name
        content = read_bytes(file.uri)
        _replace(target, functools.partial(Path.write_bytes, data=content))


@contextlib.contextmanager
def _named(place: str) -> Generator[None, None, None]:
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{place} does not exist: check the path") from None


def _replace(final: Path, write: Callable[[Path], object]) -> None:
    """Writes a temporary file in the same folder, then renames it to its final name."""
    final.parent.mkdir(parents=True, exist_ok=True)
    # Not longer than final's name, which may be as long as names can be.
    part = final.with_name(f"._.{uuid.uuid4().hex[:12]}.part")
    try:
        write(part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(final)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno, "no space left: free some, or choose another location", str(final)
        ) from None
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(final: Path) -> Generator[None, None, None]:
    """Holds an exclusive file lock, which is also released when the process dies."""
    lock = final.with_name(f".{final.name}.lock")
    while True:
        with lock.open("wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if not _is_at(held.fileno(), lock):
                continue  # the previous holder deleted the file we waited on
            try:
                yield
            finally:
                lock.unlink()
            return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
