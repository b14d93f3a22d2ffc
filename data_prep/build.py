"""Clips -> shards -> manifest: the plan, the work on one shard, and the publication.

``plan`` is a pure function. ``build_shard`` turns one planned shard into two tars and a record
beside them, and does nothing where a record of the same plan stands already; whoever has many
machines maps it over the plan. ``publish_manifest`` joins catalog and records, and is what makes a
build exist.

    OUT/manifest.json                                        last
    OUT/index-<sha>.parquet
    OUT/shards/shard-00003-<sha>.{picture,sound}.tar         named after their content
    OUT/records/shard-00003.json                             what was built, and from what
"""

import hashlib
import importlib.metadata
import json
import logging
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from data_prep import storage
from data_prep.catalog import Catalog, Clip
from data_prep.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    WRITTEN,
    Counts,
    IndexEntry,
    LeakedVideo,
    Manifest,
    RejectedClip,
    ShardEntry,
    encode_index,
    load_manifest,
    picture_place,
    sound_place,
)
from data_prep.media import MediaSettings, Rejection, Sample, read_clip
from data_prep.shard import PICTURE_SUFFIX, SOUND_SUFFIX, WrittenShard, write_shard
from data_prep.splits import shard_of

log = logging.getLogger(__name__)

_VERSIONS_OF = ("av", "numpy", "pyarrow", "simplejpeg", "soundfile")


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Configuration of a build."""

    media: MediaSettings = field(default_factory=MediaSettings)
    """What is taken from each clip."""
    shards: int | None = None
    """Number of shards; None: as the place has already, else by ``clips_per_shard``."""
    clips_per_shard: int = 128
    """Clips in a shard, about, where the number of shards is not given."""
    max_rejected_share: float = 0.2
    """A build that rejects more than this share of its clips fails."""

    def __post_init__(self) -> None:
        if self.shards is not None and self.shards < 1:
            raise ValueError(f"shards is {self.shards}: give at least 1")
        if self.clips_per_shard < 1:
            raise ValueError(f"clips_per_shard is {self.clips_per_shard}: give at least 1")
        if not 0.0 <= self.max_rejected_share <= 1.0:
            raise ValueError(f"max_rejected_share is {self.max_rejected_share}: give 0 to 1")


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """A shard to build: picklable, and all that a worker needs beside settings and place."""

    index: int
    shard_count: int
    clips: tuple[Clip, ...]
    """In the order of their keys."""


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """What became of one clip: the index's columns that do not come from the annotations."""

    key: str
    fate: str
    """``written``, or the reason for the rejection."""
    detail: str = ""
    """Of the rejection, for people."""
    shard: str = ""
    has_sound: bool = False
    sound_fate: str = ""
    sound_s: float = 0.0
    rms_dbfs: float = 0.0
    peak_dbfs: float = 0.0
    requested_s: tuple[float, ...] = ()
    actual_s: tuple[float, ...] = ()
    width: int = 0
    height: int = 0
    source_width: int = 0
    source_height: int = 0
    source_bytes: int = 0
    source_sha256: str = ""
    picture_offsets: tuple[int, ...] = ()
    picture_sizes: tuple[int, ...] = ()
    sound_offset: int = 0
    sound_size: int = 0


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One finished shard, as it lies in ``records``."""

    index: int
    shard_count: int
    fingerprint: str
    """Of all that it was built from; equal: it need not be built again."""
    entry: ShardEntry | None
    """None where every clip was rejected."""
    rows: tuple[ClipRow, ...]
    """One per planned clip, in the order of their keys."""
    reused: bool = field(default=False, compare=False)
    """Whether it stood already; not stored."""


def choose_shard_count(clips: int, settings: BuildSettings, out: str) -> int:
    """Number of shards: as set, else as the last build in ``out``, else by the number of clips.

    A recorded number is kept, so that new rows touch only their own shards.
    """
    if settings.shards is not None:
        return settings.shards
    try:
        return load_manifest(out).shard_count
    except (FileNotFoundError, ValueError):
        return max(1, round(clips / settings.clips_per_shard))


def plan(clips: Sequence[Clip], shard_count: int) -> tuple[PlannedShard, ...]:
    """Shards that hold any clip, in the order of their numbers; a video's clips share one.

    A pure function: the order of the clips does not matter. Raises ValueError for a doubled key.
    """
    twice = [key for key, n in Counter(clip.key for clip in clips).items() if n > 1]
    if twice:
        raise ValueError(f"clip {twice[0]} stands twice in the catalog: keep one")
    members: defaultdict[int, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.key):
        members[shard_of(clip.youtube_id, shard_count)].append(clip)
    return tuple(
        PlannedShard(index=index, shard_count=shard_count, clips=tuple(members[index]))
        for index in sorted(members)
    )


def build_shard(planned: PlannedShard, settings: MediaSettings, out: str) -> ShardRecord:
    """Builds and publishes one shard and its record, or returns the record that stands.

    What a clip's file does becomes a rejection in the record. Raises OSError where a store fails.
    """
    fingerprint = _fingerprint(planned, settings)
    standing = _standing_record(planned, fingerprint, out)
    if standing is not None:
        return standing
    rows: dict[str, ClipRow] = {}
    with tempfile.TemporaryDirectory(prefix="shard-") as scratch:
        folder = Path(scratch)
        written = write_shard(_samples(planned, settings, rows), folder, "shard")
        entry = _publish_tars(planned.index, written, folder, out) if written.ranges else None
    for key, ranges in written.ranges.items():
        assert entry is not None  # there are ranges
        rows[key] = replace(rows[key], shard=entry.name, **asdict(ranges))
    record = ShardRecord(
        index=planned.index,
        shard_count=planned.shard_count,
        fingerprint=fingerprint,
        entry=entry,
        rows=tuple(rows[clip.key] for clip in planned.clips),
    )
    content = asdict(record)
    del content["reused"]
    storage.write_bytes(
        _record_place(out, planned.index), json.dumps(content, sort_keys=True).encode()
    )
    return record


def publish_manifest(
    catalog: Catalog, records: Iterable[ShardRecord], settings: BuildSettings, out: str
) -> Manifest:
    """Joins catalog and records into index and manifest, the manifest last.

    Raises ValueError, and writes nothing, where too many clips were rejected or none is left.
    """
    records = sorted(records, key=lambda record: record.index)
    row_of = {row.key: row for record in records for row in record.rows}
    assert sum(len(record.rows) for record in records) == len(row_of) == len(catalog.clips)
    rows = [_index_row(clip, row_of[clip.key]) for clip in catalog.clips]
    counts = _counts(rows)
    _hold_budget(counts, settings.max_rejected_share)
    (shard_count,) = {record.shard_count for record in records}
    index = encode_index(rows)
    index_sha256 = hashlib.sha256(index).hexdigest()
    index_name = f"index-{index_sha256[:12]}.parquet"
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        settings=asdict(settings),
        shard_count=shard_count,
        shards=tuple(record.entry for record in records if record.entry is not None),
        index=IndexEntry(name=index_name, sha256=index_sha256, rows=len(rows)),
        counts=counts,
        rejections=tuple(
            RejectedClip(key=row.key, reason=row.fate, detail=row.detail)
            for row in (row_of[clip.key] for clip in catalog.clips)
            if row.fate != WRITTEN
        ),
        leaks=tuple(
            LeakedVideo(youtube_id=leak.youtube_id, splits=leak.splits) for leak in catalog.leaks
        ),
        versions={name: importlib.metadata.version(name) for name in _VERSIONS_OF},
    )
    storage.write_bytes(storage.join(out, index_name), index)
    storage.write_bytes(storage.join(out, MANIFEST_NAME), manifest.to_bytes())
    return manifest


def build(catalog: Catalog, settings: BuildSettings, out: str) -> Manifest:
    """The whole build in this process, one shard after the other."""
    shard_count = choose_shard_count(len(catalog.clips), settings, out)
    shards = plan(catalog.clips, shard_count)
    records = [build_shard(planned, settings.media, out) for planned in shards]
    return publish_manifest(catalog, records, settings, out)


def _samples(
    planned: PlannedShard, settings: MediaSettings, rows: dict[str, ClipRow]
) -> Iterator[Sample]:
    """Decodes the clips one by one, and notes in ``rows`` what became of each."""
    for clip in planned.clips:
        content = _fetch(clip, settings)
        if isinstance(content, Rejection):
            rows[clip.key] = ClipRow(key=clip.key, fate=content.reason, detail=content.detail)
            continue
        outcome = read_clip(content, clip, settings)
        rows[clip.key] = _row(outcome, content)
        if isinstance(outcome, Sample):
            yield outcome


def _row(outcome: Sample | Rejection, content: bytes) -> ClipRow:
    """All of a clip's row but where it lies in its shard."""
    sha256 = hashlib.sha256(content).hexdigest()
    if isinstance(outcome, Rejection):
        return ClipRow(
            key=outcome.key,
            fate=outcome.reason,
            detail=outcome.detail,
            source_bytes=len(content),
            source_sha256=sha256,
        )
    return ClipRow(
        key=outcome.key,
        fate=WRITTEN,
        has_sound=bool(outcome.sound),
        sound_fate=outcome.sound_fate,
        sound_s=outcome.sound_s,
        rms_dbfs=outcome.rms_dbfs,
        peak_dbfs=outcome.peak_dbfs,
        requested_s=outcome.requested_s,
        actual_s=outcome.actual_s,
        width=outcome.width,
        height=outcome.height,
        source_width=outcome.source_width,
        source_height=outcome.source_height,
        source_bytes=len(content),
        source_sha256=sha256,
    )


def _fetch(clip: Clip, settings: MediaSettings) -> bytes | Rejection:
    """The clip's file, unless it is missing or too large."""
    missing = Rejection(
        key=clip.key, reason="missing", detail=f"{storage.name_of(clip.uri)} is not there"
    )
    if not clip.stamp:
        return missing
    size = int(clip.stamp.partition(":")[0])
    if size > settings.max_bytes:
        detail = f"{size} bytes; at most {settings.max_bytes} are read"
        return Rejection(key=clip.key, reason="too_large", detail=detail)
    try:
        return storage.read_bytes(clip.uri)
    except FileNotFoundError:
        return missing


def _fingerprint(planned: PlannedShard, settings: MediaSettings) -> str:
    """Of the plan and the state of its sources; not of labels, splits and where the sources lie."""
    built_from = {
        "schema_version": SCHEMA_VERSION,
        "settings": asdict(settings),
        "shard": [planned.index, planned.shard_count],
        "clips": [[c.key, c.stamp, c.event_start_s, c.event_end_s] for c in planned.clips],
    }
    return hashlib.sha256(json.dumps(built_from, sort_keys=True).encode()).hexdigest()


def _record_place(out: str, index: int) -> str:
    return storage.join(out, "records", f"shard-{index:05d}.json")


def _standing_record(planned: PlannedShard, fingerprint: str, out: str) -> ShardRecord | None:
    """The record of the same plan, if its tars are there at their full size."""
    try:
        content = storage.read_bytes(_record_place(out, planned.index))
        record = TypeAdapter(ShardRecord).validate_json(content)
    except FileNotFoundError:
        return None
    except ValidationError:
        log.warning("record of shard %d in %s is damaged: built again", planned.index, out)
        return None
    if record.fingerprint != fingerprint:
        return None
    entry = record.entry
    stands = entry is None or (
        storage.size_of(picture_place(out, entry.name)) == entry.picture.bytes
        and storage.size_of(sound_place(out, entry.name)) == entry.sound.bytes
    )
    return replace(record, reused=True) if stands else None


def _publish_tars(index: int, written: WrittenShard, folder: Path, out: str) -> ShardEntry:
    both = written.picture.sha256 + written.sound.sha256
    name = f"shard-{index:05d}-{hashlib.sha256(both.encode()).hexdigest()[:12]}"
    storage.publish(folder / f"shard{PICTURE_SUFFIX}", picture_place(out, name))
    storage.publish(folder / f"shard{SOUND_SUFFIX}", sound_place(out, name))
    return ShardEntry(
        name=name, clips=len(written.ranges), picture=written.picture, sound=written.sound
    )


def _index_row(clip: Clip, row: ClipRow) -> dict[str, Any]:
    columns = asdict(row)
    del columns["detail"]
    return {
        **columns,
        "youtube_id": clip.youtube_id,
        "start_s": clip.start_s,
        "label": clip.label,
        "split": clip.split,
    }


def _counts(rows: Sequence[dict[str, Any]]) -> Counts:
    fates = Counter[str](row["fate"] for row in rows)
    return Counts(
        read=len(rows),
        written=fates.pop(WRITTEN, 0),
        with_sound=sum(row["has_sound"] for row in rows),
        rejected=dict(sorted(fates.items())),
    )


def _hold_budget(counts: Counts, max_rejected_share: float) -> None:
    rejected = counts.read - counts.written
    if counts.written and rejected <= max_rejected_share * counts.read:
        return
    reasons = ", ".join(f"{n} {reason}" for reason, n in counts.rejected.items())
    raise ValueError(
        f"{rejected} of {counts.read} clips were rejected ({reasons}), more than the share of "
        f"{max_rejected_share:g} that max_rejected_share allows; no manifest was written. "
        "Check the clips' place and the reasons, or raise the share"
    )
