"""The bridge from manifests and storage to :mod:`aiaic.loading.loader`: what to read, and how."""

import collections
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import pyarrow.compute as pc
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_chain,
    wait_fixed,
)

from aiaic.loading.loader import Samples
from aiaic.loading.sampler import SampleRef
from data_prep import storage
from data_prep.catalog import splits
from data_prep.media.wav import samples_within
from data_prep.shards import manifest
from data_prep.shards.manifest import Manifest
from workflows.artifacts.tar_cache import LocalTar, StoredTars

log = logging.getLogger(__name__)

_OPEN_FILES = 128
_PAUSES_S = (1.0, 5.0, 20.0, 60.0)
"""Before a store that fails is asked again, beyond the tries that each request has."""
_PATIENCE_S = 300.0
"""After so long it is not asked again."""
_ROWS = 4096
_COLUMNS = [
    "key",
    "youtube_id",
    "label",
    "shard",
    "has_sound",
    "picture_offsets",
    "picture_sizes",
    "sound_offset",
    "sound_size",
]


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
    refs, described = _references(shards, split)
    held_out = {
        ref.youtube_id for ref in refs if split == "train" and splits.is_validation(ref.youtube_id)
    }
    return Samples(
        train=tuple(ref for ref in refs if ref.youtube_id not in held_out),
        validation=tuple(ref for ref in refs if ref.youtube_id in held_out),
        read=RangeReader(shards, described),
        sample_rate_hz=described.sample_rate_hz,
        manifest_digest=described.digest,
        split=split,
    )


def open_evaluation(shards: str, split: str) -> Samples:
    """All samples of a split, in the order of the annotations, as ``Samples.validation``.

    Raises: as :func:`open_samples`.
    """
    refs, described = _references(shards, split)
    return Samples(
        train=(),
        validation=refs,
        read=RangeReader(shards, described),
        sample_rate_hz=described.sample_rate_hz,
        manifest_digest=described.digest,
        split=split,
    )


class RangeReader:
    """Reads byte ranges of shards; callable from several threads, and picklable.

    Local files are read by ``pread`` on descriptors that stay open; for those in a store see
    :mod:`workflows.artifacts.tar_cache`. A store that fails is waited for, some minutes.
    """

    def __init__(self, shards: str, described: Manifest) -> None:
        self.shards = shards
        self.described = described
        self._tars = {
            (entry.name, member): getattr(entry, member)
            for entry in described.shards
            for member in ("picture", "sound")
        }
        self._stored = None if storage.is_local(shards) else StoredTars()
        self._lock = threading.Lock()
        self._open: collections.OrderedDict[str, LocalTar] = collections.OrderedDict()

    def __call__(self, shard: str, member: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a shard's ``"picture"`` or ``"sound"`` tar.

        Raises:
            FileNotFoundError: the tar is missing.
            ValueError: it ends early, or differs from the manifest.
            OSError: the store fails for longer.
        """
        locate = manifest.picture_place if member == "picture" else manifest.sound_place
        place = locate(self.shards, shard)
        stored, tar = self._stored, self._tars[shard, member]
        if stored is None:
            content = self._file(place).read(offset, size)
        else:
            content = _patiently(lambda: stored.read(place, tar, offset, size))
        if len(content) != size:
            raise ValueError(
                f"'{place}' ends early: {len(content)} of {size} bytes at {offset}; "
                "see 'aiaic verify'"
            )
        return content

    def __reduce__(self) -> tuple[Any, ...]:
        return RangeReader, (self.shards, self.described)

    def _file(self, place: str) -> LocalTar:
        with self._lock:
            file = self._open.pop(place, None) or LocalTar(storage.local_path(place))
            self._open[place] = file
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)  # closed once no thread reads from it
            return file


def _patiently(read: Callable[[], bytes]) -> bytes:
    return Retrying(
        retry=retry_if_exception(storage.may_pass),
        wait=wait_chain(*map(wait_fixed, _PAUSES_S)),
        stop=stop_after_attempt(len(_PAUSES_S) + 1) | stop_before_delay(_PATIENCE_S),
        before_sleep=_log_retry,
        reraise=True,
    )(read)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    log.warning("a sample is read again in %g s: %s", state.upcoming_sleep, error)


def _references(shards: str, split: str) -> tuple[tuple[SampleRef, ...], Manifest]:
    """The written samples of a split, and the manifest."""
    described = manifest.load_manifest(shards)
    index = manifest.load_index(shards, described)
    written = index.select([*_COLUMNS, "fate", "split"]).filter(
        pc.field("fate") == manifest.WRITTEN
    )
    chosen = written.filter(pc.field("split") == split)
    if not len(chosen):
        known = ", ".join(sorted(written["split"].unique().to_pylist()))
        raise ValueError(f"'{shards}' has no samples of split '{split}'; its splits: {known}")
    parts = chosen.to_batches(max_chunksize=_ROWS)  # as Python objects, rows are large
    return tuple(_reference(row) for part in parts for row in part.to_pylist()), described


def _reference(row: dict[str, Any]) -> SampleRef:
    return SampleRef(
        key=row["key"],
        youtube_id=row["youtube_id"],
        label=sys.intern(row["label"]),  # a few names for many samples
        shard=sys.intern(row["shard"]),
        pictures=tuple(zip(row["picture_offsets"], row["picture_sizes"], strict=True)),
        sound=samples_within(row["sound_offset"], row["sound_size"]) if row["has_sound"] else None,
    )
