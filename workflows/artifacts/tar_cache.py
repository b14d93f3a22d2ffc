"""Byte ranges of tars in an object store: by requests, or from a whole copy once that is cheaper.

One request for each picture is too slow and too dear where thousands are needed in a second; a
whole tar is too much for a worker that needs little of it. The rule is that of renting and buying:
every request counts as its bytes and ``GET_BYTES``, and a tar whose requests come to its own size
is fetched whole. So no worker pays more than about twice what it would with perfect foresight.
"""

import collections
import errno
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import weakref
from pathlib import Path

from data_prep import storage
from data_prep.shards.tar import TarRecord
from workflows.artifacts import scratch

log = logging.getLogger(__name__)

GET_BYTES = 1 << 20
"""A request takes about as long as so many bytes of a long transfer."""
SCRATCH_BYTES = 16 << 30
"""The most that is kept in the scratch folder at a time."""
_MOST_TARS = 256  # each keeps a descriptor open
_PART_BYTES = 16 << 20


class LocalTar:
    """Ranges of a file on this machine; its descriptor stays open while anybody holds it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, or as many of them as there are."""
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class StoredTars:
    """Ranges of tars in a store; callable from several threads.

    Copies are kept in a temporary folder that is deleted with the process. When it is full, the
    least recently read copy is deleted; a thread that still reads it is not disturbed.
    """

    def __init__(self, scratch_bytes: int = SCRATCH_BYTES) -> None:
        self._bound = scratch_bytes
        self._lock = threading.Lock()
        self._spent: collections.Counter[str] = collections.Counter()
        self._turns: collections.defaultdict[str, threading.Lock] = collections.defaultdict(
            threading.Lock
        )
        self._held: collections.OrderedDict[str, tuple[LocalTar, Path, int]] = (
            collections.OrderedDict()
        )
        self._taken = 0  # bytes of the copies, those under way included
        self._fetched = 0
        self._folder: Path | None = None

    def read(self, place: str, tar: TarRecord, offset: int, size: int) -> bytes:
        """``size`` bytes of the tar at ``place``.

        Raises:
            FileNotFoundError: it is missing.
            ValueError: it ends early, or is not the one that the manifest has.
        """
        copy = self._copy(place, tar, GET_BYTES + size)
        return storage.read_range(place, offset, size) if copy is None else copy.read(offset, size)

    def _copy(self, place: str, tar: TarRecord, cost: int) -> LocalTar | None:
        """The whole tar where it is here, or is to be fetched now; else None."""
        with self._lock:
            if (copy := self._used(place)) is not None:
                return copy
            self._spent[place] += cost
            if self._spent[place] < tar.bytes:
                return None
            turn = self._turns[place]
        with turn:  # of several threads one fetches, the others wait for it
            with self._lock:
                if (copy := self._used(place)) is not None:
                    return copy
                if not self._make_room(tar.bytes):
                    return None
                self._fetched += 1
                path = self._scratch() / f"{self._fetched}.tar"
            return self._fetch(place, tar, path)

    def _used(self, place: str) -> LocalTar | None:
        if place not in self._held:
            return None
        self._held.move_to_end(place)
        return self._held[place][0]

    def _make_room(self, size: int) -> bool:
        """Take room for a tar; whether there is any."""
        while self._held and (self._taken + size > self._bound or len(self._held) >= _MOST_TARS):
            _, (_, path, bytes_) = self._held.popitem(last=False)
            path.unlink()
            self._taken -= bytes_
        if self._taken + size > self._bound:
            return False
        self._taken += size
        return True

    def _scratch(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="tars-", dir=scratch.folder()))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    def _fetch(self, place: str, tar: TarRecord, path: Path) -> LocalTar | None:
        part = path.with_suffix(".part")
        try:
            _download(place, tar, part)
            part.replace(path)
            copy = LocalTar(path)
        except BaseException as error:
            part.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            with self._lock:
                self._taken -= tar.bytes
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    log.warning("no space left in %s: single requests instead", path.parent)
                    self._bound = self._taken
                    return None
            raise
        with self._lock:
            self._held[place] = (copy, path, tar.bytes)
            del self._spent[place]
        return copy


def _download(place: str, tar: TarRecord, path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for offset in range(0, tar.bytes, _PART_BYTES):
            content = storage.read_range(place, offset, min(_PART_BYTES, tar.bytes - offset))
            digest.update(content)
            file.write(content)
    if digest.hexdigest() != tar.sha256:
        raise ValueError(
            f"'{place}' differs from its checksum in the manifest: see 'aiaic verify', or prepare "
            "the shards again"
        )
