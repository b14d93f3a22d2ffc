"""Lists the files of a folder, on a path or in a store."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (pyarrow ships no types)

import logging
import os
from dataclasses import dataclass
from typing import Any, cast

from pyarrow import fs as arrow_fs

from data_prep.storage import s3
from data_prep.storage.uri import is_local, is_utf_8, join, local_path, printable, require_s3

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file in a listing."""

    name: str
    """Path relative to the listed place, separated by ``/``."""
    uri: str
    """Path or URI of the file itself."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last modification, in nanoseconds since 1970."""

    @property
    def stamp(self) -> str:
        """Size and modification time, to detect changes without reading the file."""
        return f"{self.size}:{self.mtime_ns}"


def filesystem(place: str) -> tuple[Any, str]:
    """``pyarrow.fs.FileSystem`` of a place, and the path on it, for libraries that need one.

    Its S3 reads do not detect truncated responses; the functions of this module do.

    Raises:
        ValueError: the scheme is unknown, or an S3 URI has no bucket, contains credentials, or has
            an unknown query key.
    """
    if is_local(place):
        return arrow_fs.LocalFileSystem(), str(local_path(place).absolute())
    return s3.filesystem(require_s3(place))


def list_files(place: str) -> list[StoredFile]:
    """All files under a folder, sorted by name; hidden files and folders are skipped.

    Local files and folders whose names are not UTF-8 are skipped with a warning.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    system, root = filesystem(place)
    if is_local(place) and not local_path(place).is_dir():
        raise FileNotFoundError(f"{place} is not a folder: check the path")
    infos = _local_infos(system, root) if is_local(place) else s3.list_infos(place)
    files: list[StoredFile] = []
    for info in infos:
        if info.type != arrow_fs.FileType.File:
            continue
        # Plain strings: path objects would take seconds for 200,000 names.
        name = cast(str, info.path).removeprefix(root).lstrip("/")
        if "/." not in f"/{name}":
            size, mtime_ns = cast(int, info.size), cast(int, info.mtime_ns)
            files.append(StoredFile(name=name, uri=join(place, name), size=size, mtime_ns=mtime_ns))
    return sorted(files, key=lambda file: file.name)


def _local_infos(system: Any, root: str) -> list[Any]:
    """Local files whose whole path is UTF-8, which is all that Arrow can name."""
    try:
        infos = system.get_file_info(arrow_fs.FileSelector(root, recursive=True))
        if all(info.path for info in infos):  # which are decoded only now
            return infos
    except UnicodeDecodeError:
        pass
    paths: list[str] = []
    bad: list[str] = []
    for folder, subfolders, names in os.walk(root):
        for name in [*subfolders, *names]:
            if not is_utf_8(name):
                bad.append(printable(os.path.join(folder, name)))  # noqa: PTH118 (one path of many)
        subfolders[:] = filter(is_utf_8, subfolders)
        paths.extend(f"{folder}/{name}" for name in filter(is_utf_8, names))
    log.warning(
        "passed over %d files or folders whose names are not UTF-8, such as '%s': rename them",
        len(bad), min(bad),
    )  # fmt: skip
    return system.get_file_info(paths)
