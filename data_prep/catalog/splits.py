"""Splits grouped by video: validation, shards and leaks all depend on the video's id.

Everything here is a pure function of ids, so the results are the same on every machine, in any
order of rows and for any number of workers.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

SPLITS = ("train", "val", "test")
"""Valid splits, from the least to the most held out."""


class Row(Protocol):
    """The parts of a catalog row that matter for splits."""

    @property
    def youtube_id(self) -> str: ...

    @property
    def split(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A video that is in more than one split."""

    youtube_id: str
    """The video."""
    splits: tuple[str, ...]
    """Its splits, in the order of ``SPLITS``."""


def _unit_hash(salt: str, youtube_id: str) -> int:
    digest = hashlib.sha256(f"{salt}:{youtube_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def is_validation(youtube_id: str, share: float = 0.05) -> bool:
    """Whether a *training* video is held out for choosing checkpoints; true for ``share`` of ids.

    A video that is held out at one share is also held out at every larger share.
    """
    return _unit_hash("validation", youtube_id) < share * 2.0**64


def shard_of(youtube_id: str, shards: int) -> int:
    """The shard, in ``range(shards)``, of every clip of a video."""
    if shards < 1:
        raise ValueError(f"the number of shards is {shards}: give at least 1")
    return _unit_hash("shard", youtube_id) % shards


def find_leaks(rows: Iterable[Row]) -> tuple[Leak, ...]:
    """Videos that are in several splits, sorted by id."""
    first_split: dict[str, str] = {}
    splits_of: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if first_split.setdefault(row.youtube_id, row.split) != row.split:
            splits_of[row.youtube_id] |= {first_split[row.youtube_id], row.split}
    return tuple(
        Leak(youtube_id=youtube_id, splits=tuple(sorted(splits, key=SPLITS.index)))
        for youtube_id, splits in sorted(splits_of.items())
    )


def leaking_rows(rows: Iterable[Row], leaks: Iterable[Leak]) -> dict[int, str]:
    """Indices of the rows whose video a more held-out split keeps -> that split.

    Train yields to val, and val to test; without these rows no video is in two splits.
    """
    kept_split = {leak.youtube_id: leak.splits[-1] for leak in leaks}
    return {
        number: kept_split[row.youtube_id]
        for number, row in enumerate(rows)
        if kept_split.get(row.youtube_id, row.split) != row.split
    }
