"""Index -> clips that repeat others, and which of each group to keep.

Exact duplicates have the same file. Near duplicates show the same picture: perceptual hashes that
differ in few bits suggest candidates, and small thumbnails of the pictures decide, because pictures
without texture have similar hashes by chance. The clip of the most held-out split is kept: train
yields to val, and val to test.

Clips of one video in one split are not duplicates of each other unless file and times are the same.
"""

# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportUnknownParameterType=false
# (pyarrow ships no types)

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from data_prep.catalog.splits import SPLITS
from data_prep.duplicates.hamming import near_pairs
from data_prep.shards.manifest import WRITTEN

MAX_DISTANCE = 8
"""Bits of 64 by which hashes of one picture differ after scaling and compression. Cropping 2 % at
each side changes 8 bits; different pictures differ by at least about 18."""
THUMBNAIL_PX = 16
_SAME_LEVELS = 12.0
"""Mean difference between two thumbnails of one picture, out of 255. Compression causes 3, a tenth
more brightness 13; different pictures differ by at least about 34."""
_TEXTURE_LEVELS = 8.0
"""Thumbnails with a lower standard deviation are not compared: black, a fade, a plain wall."""
_MIN_HASH_BITS = 4

Thumbnail = NDArray[np.uint8]
"""sRGB [16 16 3], 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class IndexedClip:
    """The part of a written clip's index row that matters here."""

    key: str
    youtube_id: str
    split: str
    source_sha256: str
    window: tuple[float, ...]
    """Times of pictures and sound in the file: clips of one file may be different excerpts."""
    picture_hash: tuple[int, ...]
    """One per picture."""


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """A clip to leave out."""

    key: str
    split: str
    kept: str
    """Key of the clip that is kept instead."""
    kept_split: str
    kind: Literal["exact", "near"]

    @property
    def across(self) -> bool:
        """Whether it is in another split than the clip that it repeats: a leak."""
        return self.split != self.kept_split

    @property
    def reason(self) -> str:
        """The reason in words, as in an exclusion list."""
        said = "the same file as" if self.kind == "exact" else "looks like"
        return f"duplicate: {said} {self.kept} ({self.kept_split})"


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A picture and the indices of the clips that show it."""

    thumbnail: Thumbnail
    clips: list[int]


def indexed_clips(index: pa.Table) -> list[IndexedClip]:
    """Written clips of an index, in the order of their keys."""
    columns = ["key", "youtube_id", "split", "source_sha256", "picture_hash", "fate"]
    times = ["requested_s", "sound_start_s", "sound_s"]
    rows = cast("list[dict[str, Any]]", index.select([*columns, *times]).to_pylist())
    return [
        IndexedClip(
            key=row["key"],
            youtube_id=row["youtube_id"],
            split=row["split"],
            source_sha256=row["source_sha256"],
            window=(*row["requested_s"], row["sound_start_s"], row["sound_s"]),
            picture_hash=tuple(int(text, 16) for text in row["picture_hash"]),
        )
        for row in sorted(rows, key=lambda row: row["key"])
        if row["fate"] == WRITTEN
    ]


def find_duplicates(
    clips: Sequence[IndexedClip],
    thumbnails: Callable[[Sequence[tuple[str, int]]], Sequence[Thumbnail]],
    max_distance: int = MAX_DISTANCE,
) -> tuple[Duplicate, ...]:
    """Clips to leave out, in the order of their keys.

    Args:
        clips: of one shard set, in any order.
        thumbnails: (key, number) of pictures -> their thumbnails; called once, with the pictures
            whose hashes are near another's.
        max_distance: number of bits by which two hashes of one picture may differ.

    Raises:
        ValueError: ``max_distance`` is not 0 to 16.
    """
    clips = sorted(clips, key=lambda clip: clip.key)
    groups = cast(Any, DisjointSet(range(len(clips))))  # scipy has no types
    for same in (*_same_files(clips), *_same_looks(clips, thumbnails, max_distance)):
        for member in same[1:]:
            groups.merge(same[0], member)
    found = [
        duplicate for group in groups.subsets() for duplicate in _left_out(clips, sorted(group))
    ]
    return tuple(sorted(found, key=lambda duplicate: duplicate.key))


def thumbnail(jpeg: bytes) -> Thumbnail:
    """A picture averaged over a grid.

    Raises:
        ValueError: it is not a JPEG.
    """
    picture = simplejpeg.decode_jpeg(
        jpeg, "RGB", min_height=4 * THUMBNAIL_PX, min_width=4 * THUMBNAIL_PX, min_factor=1
    )
    for axis in (0, 1):
        length = picture.shape[axis]
        edges = np.arange(THUMBNAIL_PX) * length // THUMBNAIL_PX
        sums = np.add.reduceat(picture.astype(np.float32), edges, axis=axis)
        counts = np.maximum(np.diff(np.append(edges, length)), 1)
        picture = sums / np.expand_dims(counts, tuple({0, 1, 2} - {axis}))
    return np.rint(picture).astype(np.uint8)


def _same_files(clips: Sequence[IndexedClip]) -> Iterator[list[int]]:
    """Groups of indices: one file in several splits, or one window of it several times."""
    of_file: defaultdict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        of_file[clip.source_sha256].append(index)
    for indices in of_file.values():
        if len({clips[index].split for index in indices}) > 1:
            yield indices
            continue
        of_window: defaultdict[tuple[float, ...], list[int]] = defaultdict(list)
        for index in indices:
            of_window[clips[index].window].append(index)
        yield from (same for same in of_window.values() if len(same) > 1)


def _same_looks(
    clips: Sequence[IndexedClip],
    thumbnails: Callable[[Sequence[tuple[str, int]]], Sequence[Thumbnail]],
    max_distance: int,
) -> Iterator[list[int]]:
    """Groups of indices of clips of several owners that have a picture in common."""
    candidates, near = _candidates(clips, max_distance)
    pictures = [picture for alike in candidates for picture in alike]
    found = thumbnails([(clips[index].key, number) for index, number in pictures])
    seen = dict(zip(pictures, found, strict=True))
    looks: list[_Look] = []
    of_hash: list[range] = []
    for alike in candidates:
        first = len(looks)
        looks.extend(_looks(alike, seen))
        of_hash.append(range(first, len(looks)))
    same = cast(Any, DisjointSet(range(len(looks))))
    for one, other in near:
        for first, second in itertools.product(of_hash[one], of_hash[other]):
            if _alike(looks[first].thumbnail, looks[second].thumbnail):
                same.merge(first, second)
    for group in cast("list[set[int]]", same.subsets()):
        indices = sorted({index for look in group for index in looks[look].clips})
        if len({_owner(clips[index]) for index in indices}) > 1:
            yield indices


def _candidates(
    clips: Sequence[IndexedClip], max_distance: int
) -> tuple[list[list[tuple[int, int]]], list[tuple[int, int]]]:
    """Pictures (clip, number) of each hash that several owners are near, and pairs of near hashes.

    The pairs are indices into the former.
    """
    of_hash: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for index, clip in enumerate(clips):
        for number, value in enumerate(clip.picture_hash):
            # A picture of a single tone has hardly any bits set.
            if value.bit_count() >= _MIN_HASH_BITS:
                of_hash[value].append((index, number))
    pictures = list(of_hash.values())
    owners = [{_owner(clips[index]) for index, _ in alike} for alike in pictures]
    pairs = near_pairs(np.array(list(of_hash), np.uint64), max_distance)
    near = [
        (one, other)
        for one, other in cast("list[tuple[int, int]]", pairs.tolist())
        if len(owners[one] | owners[other]) > 1
    ]
    several = {index for index, of_one in enumerate(owners) if len(of_one) > 1}
    kept = sorted(several.union(*near))
    renumbered = {index: number for number, index in enumerate(kept)}
    return (
        [pictures[index] for index in kept],
        [(renumbered[one], renumbered[other]) for one, other in near],
    )


def _looks(
    alike: Iterable[tuple[int, int]], seen: Mapping[tuple[int, int], Thumbnail]
) -> list[_Look]:
    """The distinct looks among pictures of one hash; those without texture are ignored.

    Each picture is compared with one of each look, not with all: thousands may show the same title.
    """
    looks: list[_Look] = []
    for picture in alike:
        mine = seen[picture]
        if float(mine.mean(axis=2).std()) < _TEXTURE_LEVELS:
            continue
        look = next((look for look in looks if _alike(look.thumbnail, mine)), None)
        if look is None:
            looks.append(_Look(thumbnail=mine, clips=[picture[0]]))
        else:
            look.clips.append(picture[0])
    return looks


def _owner(clip: IndexedClip) -> tuple[str, str]:
    """Clips of one owner (a video in one split) may look alike."""
    return clip.youtube_id, clip.split


def _alike(one: Thumbnail, other: Thumbnail) -> bool:
    return float(np.abs(one.astype(np.int16) - other).mean()) <= _SAME_LEVELS


def _left_out(clips: Sequence[IndexedClip], group: Sequence[int]) -> Iterator[Duplicate]:
    """All of a group but one; other excerpts of its video in its split are kept too."""
    members = sorted(
        (clips[index] for index in group), key=lambda c: (-SPLITS.index(c.split), c.key)
    )
    kept = members[0]
    kept_contents = {(kept.source_sha256, kept.window): kept}
    for clip in members[1:]:
        content = (clip.source_sha256, clip.window)
        one_video = clip.youtube_id == kept.youtube_id or clip.source_sha256 == kept.source_sha256
        if one_video and clip.split == kept.split and content not in kept_contents:
            kept_contents[content] = clip
            continue
        same = next(
            (c for c in kept_contents.values() if c.source_sha256 == clip.source_sha256), None
        )
        instead = kept_contents.get(content, same) or kept
        yield Duplicate(
            key=clip.key,
            split=clip.split,
            kept=instead.key,
            kept_split=instead.split,
            kind="near" if same is None else "exact",
        )
