"""``aiaic duplicates``: lists clips of a shard set that repeat others, to be excluded."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from data_prep import storage
from data_prep.catalog import exclusions
from data_prep.duplicates import find
from data_prep.duplicates.find import Duplicate, Thumbnail
from data_prep.shards.manifest import load_index, load_manifest, picture_place
from workflows.options import Duplicates, Outcome

_READERS = 16  # picture ranges read at the same time, which hides a store's latency


def run(options: Duplicates) -> Outcome:
    """Carry out the command.

    Raises:
        ValueError: shards, list or distance are invalid.
        OSError: the shards do not exist, or the list cannot be written.
    """
    listed = exclusions.read_exclusions(options.out) if storage.exists(options.out) else {}
    index = load_index(options.shards, load_manifest(options.shards))
    clips = find.indexed_clips(index)
    pictures = _Pictures(options.shards, index)
    found = find.find_duplicates(clips, pictures.thumbnails, options.max_distance)
    fresh = {duplicate.key: duplicate.reason for duplicate in found}
    storage.write_bytes(options.out, exclusions.encode_exclusions((fresh | listed).items()))
    counts = _counts(found)
    values = {
        "shards": options.shards,
        "out": options.out,
        "clips": len(clips),
        "left_out": len(found),
        "listed_before": len(listed),
    }
    return Outcome(values=values | counts, text=_in_words(options.out, len(clips), counts, listed))


class _Pictures:
    """Reads single pictures of a shard set, by their byte ranges."""

    def __init__(self, shards: str, index: Any) -> None:
        columns = index.select(["key", "shard", "picture_offsets", "picture_sizes"]).to_pydict()
        keys, *rest = columns.values()
        self._shards = shards
        self._row_of = dict(zip(keys, zip(*rest, strict=True), strict=True))

    def thumbnails(self, names: Sequence[tuple[str, int]]) -> list[Thumbnail]:
        """Thumbnails of pictures, each named by its clip's key and its number."""
        with ThreadPoolExecutor(_READERS) as threads:
            return list(threads.map(self._thumbnail, names))

    def _thumbnail(self, name: tuple[str, int]) -> Thumbnail:
        key, number = name
        shard, offsets, sizes = self._row_of[key]
        place = picture_place(self._shards, shard)
        try:
            return find.thumbnail(storage.read_range(place, offsets[number], sizes[number]))
        except ValueError as error:
            raise ValueError(
                f"picture {number} of {key} cannot be read ({error}): run 'aiaic verify'"
            ) from None


def _counts(found: Sequence[Duplicate]) -> dict[str, dict[str, int]]:
    """Clips to exclude by kind, and by whether they repeat one of the same split."""
    kinds = Counter((duplicate.across, duplicate.kind) for duplicate in found)
    return {
        name: {kind: kinds[across, kind] for kind in ("exact", "near")}
        for name, across in (("within_splits", False), ("across_splits", True))
    }


def _in_words(
    out: str, clips: int, counts: dict[str, dict[str, int]], listed: dict[str, str]
) -> str:
    by_kind = "; ".join(
        f"{name.replace('_', ' ')} {kinds['exact']} exactly and {kinds['near']} nearly"
        for name, kinds in counts.items()
    )
    repeating = sum(n for kinds in counts.values() for n in kinds.values())
    kept = f", and the {len(listed)} names that it listed before" if listed else ""
    return (
        f"{repeating} of {clips} clips repeat another: {by_kind}\n"
        f"{out} lists them{kept}; exclude them by 'aiaic prepare --exclude {out}'"
    )
