"""Reads, lists, writes and deletes what is at a place, and publishes files atomically.

A place is a path, a ``file://`` or an ``s3://`` URI, see ``addresses``. Libraries that write
through ``filesystem`` to some servers (``rclone serve s3``) need
``AWS_REQUEST_CHECKSUM_CALCULATION=when_required``.

Nothing is streamed to its final name while it is being made: what is published first exists
complete on this machine, and what arrived at a store is compared with it. A full disk or store
raises an OSError of one line. For retries and time limits see ``s3_retry``.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (pyarrow ships no types)

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pyarrow import fs as arrow_fs

from data_prep.storage import s3
from data_prep.storage.s3 import ConflictError
from data_prep.storage.uri import is_local, join, local_path, require_s3

_PART = re.compile(r"\..+\.[0-9a-f]{12}\.part")


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file as listed."""

    name: str
    """Path relative to the place that was listed, with ``/``."""
    uri: str
    """Path or URI of the file itself."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change, nanoseconds since 1970."""

    @property
    def stamp(self) -> str:
        """Size and time, which show without reading whether the file has changed."""
        return f"{self.size}:{self.mtime_ns}"


def filesystem(place: str) -> tuple[Any, str]:
    """``pyarrow.fs.FileSystem`` of a place, and the path on it, for libraries that need one.

    Its reads from S3 do not notice an answer that is shorter than the object; those below do.

    Raises:
        ValueError: an unknown scheme, or an S3 URI without a bucket, with credentials or with an
            unknown query key.
    """
    if is_local(place):
        return arrow_fs.LocalFileSystem(), str(local_path(place).absolute())
    return s3.filesystem(require_s3(place))


def exists(place: str) -> bool:
    """Whether there is a file or a folder."""
    if is_local(place):
        return local_path(place).exists()
    return size_of(place) is not None or s3.is_folder(place)


def size_of(place: str) -> int | None:
    """Size of the file in bytes; None if there is no file."""
    if not is_local(place):
        return s3.size_of(require_s3(place))
    path = local_path(place)
    return path.stat().st_size if path.is_file() else None


def list_files(place: str) -> list[StoredFile]:
    """Every file below a folder, sorted by name; hidden files and folders are skipped.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    system, root = filesystem(place)
    if is_local(place) and not local_path(place).is_dir():
        raise FileNotFoundError(f"{place} is no folder that can be listed: check the path")
    if is_local(place):
        infos = system.get_file_info(arrow_fs.FileSelector(root, recursive=True))
    else:
        infos = s3.list_infos(place)
    files: list[StoredFile] = []
    for info in cast("list[Any]", infos):
        if info.type != arrow_fs.FileType.File:
            continue
        # Plain text: path objects would cost seconds for 200,000 names.
        name = cast(str, info.path).removeprefix(root).lstrip("/")
        if "/." not in f"/{name}":
            size, mtime_ns = cast(int, info.size), cast(int, info.mtime_ns)
            files.append(StoredFile(name=name, uri=join(place, name), size=size, mtime_ns=mtime_ns))
    return sorted(files, key=lambda file: file.name)


def read_bytes(place: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is no file.
    """
    if is_local(place):
        with _named(place):
            return local_path(place).read_bytes()
    return s3.read(require_s3(place))


def read_range(place: str, offset: int, length: int) -> bytes:
    """``length`` bytes from ``offset``.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file is too short, and thus damaged.
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
    """Writes a file atomically: readers see the old or the new content."""
    if is_local(place):
        _replace(local_path(place), lambda part: part.write_bytes(content))
    else:
        s3.write(require_s3(place), content)


def write_if_unchanged(place: str, content: bytes, expected: bytes | None) -> None:
    """Replaces ``expected`` (None: no file) by ``content``; does nothing if that is there already.

    Of several simultaneous writers exactly one succeeds; for stores that ignore conditions see
    ``s3.write_if_unchanged``.

    Raises:
        ConflictError: the file has any other content.
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
            raise ConflictError(f"{place} was changed by somebody else meanwhile; run again")
        _replace(final, lambda part: part.write_bytes(content))


def publish(local_file: Path, place: str) -> None:
    """Copies a finished local file to its final name atomically.

    Raises:
        OSError: what arrived differs from what was sent, and was removed.
    """
    if is_local(place):
        _replace(local_path(place), lambda part: shutil.copyfile(local_file, part))
    else:
        s3.publish(local_file, require_s3(place))


def delete(place: str) -> None:
    """Deletes a file, if there is one."""
    if is_local(place):
        local_path(place).unlink(missing_ok=True)
    else:
        s3.delete(require_s3(place))


def sweep_parts(place: str, older_than_s: float) -> int:
    """Removes unfinished files of killed processes below a folder and returns their number.

    ``older_than_s`` must exceed the time of the longest write: newer parts may still be written.
    """
    if not is_local(place):
        return s3.sweep_uploads(require_s3(place), older_than_s)
    before = time.time() - older_than_s
    parts = (path for path in local_path(place).rglob(".*.part") if _PART.fullmatch(path.name))
    removed = 0
    for path in parts:
        with contextlib.suppress(FileNotFoundError):  # finished in the meantime
            if path.stat().st_mtime < before:
                path.unlink()
                removed += 1
    return removed


def delete_folder(place: str, first: str) -> None:
    """Deletes every file below a folder, starting with the one named ``first``."""
    for file in sorted(list_files(place), key=lambda file: file.name != first):
        delete(file.uri)
    if is_local(place):
        shutil.rmtree(local_path(place))


def upload_folder(folder: Path, place: str) -> None:
    """Publishes every file below a local folder under a place."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        publish(path, join(place, path.relative_to(folder).as_posix()))


def download_folder(place: str, folder: Path) -> None:
    """Copies every file below a place into a local folder."""
    for file in list_files(place):
        target = folder / file.name
        content = read_bytes(file.uri)
        _replace(target, functools.partial(Path.write_bytes, data=content))


@contextlib.contextmanager
def _named(place: str) -> Generator[None, None, None]:
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{place} is not there: check the path") from None


def _replace(final: Path, write: Callable[[Path], object]) -> None:
    """Writes a temporary file in the same folder and renames it."""
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        write(part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(final)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno, "no space left: free some, or choose another place", str(final)
        ) from None
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(final: Path) -> Generator[None, None, None]:
    """Holds an exclusive lock on this file system, which also ends with the process."""
    lock = final.with_name(f".{final.name}.lock")
    while True:
        with lock.open("wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if not _is_at(held.fileno(), lock):
                continue  # the previous holder removed the file that we waited for
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
