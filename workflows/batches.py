"""The bridge from manifests and storage to :mod:`aiaic.loader`: what to read, and how."""

import collections
import os
import threading
from typing import Any, Protocol

import pyarrow.compute as pc

from aiaic.loader import Samples
from aiaic.plan import SampleRef
from data_prep import manifest, splits, storage

_OPEN_FILES = 128


def open_samples(shards: str, split: str) -> Samples:
    """The samples of a split for training.

    Of ``train``, the hashed 5 % of its videos that validate are held out; other splits are taken
    whole and validate nothing.

    Args:
        shards: place of the shards.
        split: name of a split in their index.

    Raises:
        FileNotFoundError: there are no finished shards.
        ValueError: they are damaged, or the split has no samples.
    """
    refs, digest = _references(shards, split)
    held_out = {
        ref.youtube_id for ref in refs if split == "train" and splits.is_validation(ref.youtube_id)
    }
    return Samples(
        train=tuple(ref for ref in refs if ref.youtube_id not in held_out),
        validation=tuple(ref for ref in refs if ref.youtube_id in held_out),
        read=RangeReader(shards),
        manifest_digest=digest,
        split=split,
    )


def open_evaluation(shards: str, split: str) -> Samples:
    """All samples of a split, in the order of the annotations, as ``Samples.validation``.

    Raises: as :func:`open_samples`.
    """
    refs, digest = _references(shards, split)
    return Samples(
        train=(), validation=refs, read=RangeReader(shards), manifest_digest=digest, split=split
    )


class RangeReader:
    """Reads byte ranges of shards; callable from several threads, and picklable.

    Local files are read by ``pread`` on descriptors that stay open, objects in a store by ranged
    requests.
    """

    def __init__(self, shards: str) -> None:
        self.shards = shards
        self._lock = threading.Lock()
        self._open: collections.OrderedDict[str, _Ranges] = collections.OrderedDict()

    def __call__(self, shard: str, member: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a shard's ``"picture"`` or ``"sound"`` tar.

        Raises:
            FileNotFoundError: the tar is missing.
            ValueError: it ends early.
        """
        locate = manifest.picture_place if member == "picture" else manifest.sound_place
        place = locate(self.shards, shard)
        content = self._file(place).read(offset, size)
        if len(content) != size:
            raise ValueError(
                f"'{place}' ends early: {len(content)} of {size} bytes at {offset}; "
                "see 'aiaic verify'"
            )
        return content

    def __reduce__(self) -> tuple[Any, ...]:
        return RangeReader, (self.shards,)

    def _file(self, place: str) -> "_Ranges":
        with self._lock:
            file = self._open.pop(place, None)
            if file is None:
                local = storage.is_local(place)
                file = _LocalFile(place) if local else _StoredFile(place)
            self._open[place] = file
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)  # closed once no thread reads from it
            return file


class _Ranges(Protocol):
    def read(self, offset: int, size: int) -> bytes: ...


class _LocalFile:
    def __init__(self, place: str) -> None:
        self._descriptor = os.open(storage.local_path(place), os.O_RDONLY)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class _StoredFile:
    def __init__(self, place: str) -> None:
        self._place = place

    def read(self, offset: int, size: int) -> bytes:
        return storage.read_range(self._place, offset, size)


def _references(shards: str, split: str) -> tuple[tuple[SampleRef, ...], str]:
    """The written samples of a split, and the digest of the manifest."""
    described = manifest.load_manifest(shards)
    index = manifest.load_index(shards, described)
    written = index.filter(pc.field("fate") == manifest.WRITTEN)
    chosen = written.filter(pc.field("split") == split)
    if not len(chosen):
        known = ", ".join(sorted(written["split"].unique().to_pylist()))
        raise ValueError(f"'{shards}' has no samples of split '{split}'; its splits: {known}")
    return tuple(_reference(row) for row in chosen.to_pylist()), described.digest


def _reference(row: dict[str, Any]) -> SampleRef:
    return SampleRef(
        key=row["key"],
        youtube_id=row["youtube_id"],
        label=row["label"],
        shard=row["shard"],
        pictures=tuple(zip(row["picture_offsets"], row["picture_sizes"], strict=True)),
        sound=(row["sound_offset"], row["sound_size"]) if row["has_sound"] else None,
    )
