"""Catalog and records -> index and manifest, with which a build exists."""

import hashlib
import importlib.metadata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from operator import attrgetter

from data_prep import storage
from data_prep.catalog import Catalog, Clip
from data_prep.shards import records
from data_prep.shards.manifest import (
    INDEX_COLUMNS,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    WRITTEN,
    Counts,
    IndexEntry,
    LeakedVideo,
    Manifest,
    encode_index,
)
from data_prep.shards.plan import BuildSettings
from data_prep.shards.records import ClipRow, ShardRecord


def publish_manifest(
    catalog: Catalog,
    built: Iterable[ShardRecord],
    settings: BuildSettings,
    out: str,
    *,
    expected: bytes | None,
) -> Manifest:
    """Joins catalog and records into index and manifest, and writes the manifest last.

    Args:
        catalog: the clips that were to be built.
        built: one record per planned shard, in any order.
        settings: settings of the build.
        out: folder of the shard set.
        expected: ``read_manifest_bytes`` from before the build.

    Raises:
        ValueError: too many clips were rejected, or none is left; nothing is written.
        storage.ConflictError: another build has published in the meantime; its set is kept.
    """
    built = sorted(built, key=lambda record: record.index)
    row_of = {row.key: row for record in built for row in record.rows}
    assert sum(len(record.rows) for record in built) == len(row_of) == len(catalog.clips)
    rows = [(clip, row_of[clip.key]) for clip in catalog.clips]
    left_out = [
        (left.clip, ClipRow(key=left.clip.key, fate=left.reason, detail=left.detail))
        for left in catalog.excluded
    ]
    _enforce_budget(_counts(rows), settings.max_rejected_share)
    rows = sorted(rows + left_out, key=lambda pair: pair[0].key)
    index = encode_index(_columns(rows))
    manifest = _manifest(catalog, built, settings, rows, index)
    index_place = storage.join(out, manifest.index.name)
    if manifest.to_bytes() != expected or storage.size_of(index_place) != len(index):
        storage.write_bytes(index_place, index)
        _commit(manifest, out, expected)
    return manifest


def read_manifest_bytes(out: str) -> bytes | None:
    """The current content of the manifest's file; None if there is none."""
    try:
        return storage.read_bytes(storage.join(out, MANIFEST_NAME))
    except FileNotFoundError:
        return None


def _manifest(
    catalog: Catalog,
    built: Sequence[ShardRecord],
    settings: BuildSettings,
    rows: Sequence[tuple[Clip, ClipRow]],
    index: bytes,
) -> Manifest:
    (shard_count,) = {record.shard_count for record in built}
    sha256 = hashlib.sha256(index).hexdigest()
    return Manifest(
        schema_version=SCHEMA_VERSION,
        settings={"media": asdict(settings.media), "filters": asdict(settings.filters)},
        shard_count=shard_count,
        shards=tuple(record.entry for record in built if record.entry is not None),
        index=IndexEntry(name=f"index-{sha256[:12]}.parquet", sha256=sha256, rows=len(rows)),
        counts=_counts(rows),
        leaks=tuple(
            LeakedVideo(youtube_id=leak.youtube_id, splits=leak.splits) for leak in catalog.leaks
        ),
        versions=records.versions() | {"pyarrow": importlib.metadata.version("pyarrow")},
    )


def _columns(rows: Sequence[tuple[Clip, ClipRow]]) -> dict[str, list[object]]:
    """The index's columns: those of the annotations from the clips, the others from the rows."""
    of_clip = ("youtube_id", "start_s", "label", "split")
    clips, fates = [clip for clip, _ in rows], [row for _, row in rows]
    return {
        name: list(map(attrgetter(name), clips if name in of_clip else fates))
        for name in INDEX_COLUMNS
    }


def _counts(rows: Sequence[tuple[Clip, ClipRow]]) -> Counts:
    fates = Counter(row.fate for _, row in rows)
    return Counts(
        read=len(rows),
        written=fates.pop(WRITTEN, 0),
        with_sound=sum(row.has_sound for _, row in rows),
        rejected=dict(sorted(fates.items())),
    )


def _enforce_budget(counts: Counts, max_rejected_share: float) -> None:
    rejected = counts.read - counts.written
    if counts.written and rejected <= max_rejected_share * counts.read:
        return
    reasons = ", ".join(f"{n} {reason}" for reason, n in counts.rejected.items())
    if not counts.written:
        raise ValueError(
            f"all {counts.read} clips were rejected ({reasons}); no manifest was written. "
            "Check the clips' place and the reasons"
        )
    raise ValueError(
        f"{rejected} of {counts.read} clips were rejected ({reasons}), more than the share of "
        f"{max_rejected_share:g} that max_rejected_share allows; no manifest was written. "
        "Check the clips' place and the reasons, or raise the share"
    )


def _commit(manifest: Manifest, out: str, expected: bytes | None) -> None:
    place = storage.join(out, MANIFEST_NAME)
    try:
        storage.write_if_unchanged(place, manifest.to_bytes(), expected)
    except storage.ConflictError:
        raise storage.ConflictError(
            f"another build has published {place} in the meantime, and its shard set is kept: "
            "rerun the command to build on it"
        ) from None
