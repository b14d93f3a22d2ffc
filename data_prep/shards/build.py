"""Clips -> shards -> manifest: the work on one shard, and the whole build in one process.

``build_shard`` turns one planned shard into two tars and a record beside them; whoever has many
machines maps it over the plan. The manifest makes a build exist.

    OUT/manifest.json                                        last
    OUT/index-<sha>.parquet
    OUT/shards/shard-00003-<sha>.{picture,sound}.tar         named after their content
    OUT/records/shard-00003.json                             what was built, and from what
"""

import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

from data_prep import storage
from data_prep.catalog import Catalog, Clip
from data_prep.media.isolated_decoder import Decoded, Decoder, Source
from data_prep.media.quality import Filters, judge
from data_prep.media.sample import MediaSettings, Rejection, Sample
from data_prep.shards import records
from data_prep.shards.manifest import (
    SHARDS_FOLDER,
    WRITTEN,
    Manifest,
    ShardEntry,
    picture_place,
    sound_place,
)
from data_prep.shards.plan import BuildSettings, PlannedShard, choose_shard_count, plan
from data_prep.shards.publish import publish_manifest, standing_manifest
from data_prep.shards.records import ClipRow, ShardRecord
from data_prep.shards.tar import PICTURE_SUFFIX, SOUND_SUFFIX, WrittenShard, write_shard
from data_prep.storage import scratch

SHARDS_AT_ONCE = 2
"""Shards that share a decoder: while one is uploaded, the next is decoded."""
_READERS = 4
_AHEAD_CLIPS, _AHEAD_BYTES = 8, 1 << 26


def build_shard(
    planned: PlannedShard, settings: BuildSettings, out: str, decoder: Decoder
) -> ShardRecord:
    """Builds and publishes one shard and its record.

    What a clip's file does becomes a rejection in the record. Raises OSError where a store fails.
    """
    before = records.load(planned.index, out)
    if before is not None and _needs_new_stamps_alone(before, planned, settings, out):
        record = replace(before, stamps=records.stamps(planned))
        records.store(record, out)
        return record
    rows: dict[str, ClipRow] = {}
    with scratch.folder() as folder:
        with decoder.turn, scratch.space_in(folder):
            samples = _samples(planned, settings, decoder, rows)
            written = write_shard(samples, folder, "shard")
        entry = _publish_tars(planned.index, written, folder, out)
    for key, ranges in written.ranges.items():
        assert entry is not None  # there are ranges
        rows[key] = replace(rows[key], shard=entry.name, **asdict(ranges))
    record = ShardRecord(
        index=planned.index,
        shard_count=planned.shard_count,
        fingerprint=records.fingerprint(planned, settings),
        stamps=records.stamps(planned),
        entry=entry,
        rows=tuple(rows[clip.key] for clip in planned.clips),
    )
    records.store(record, out)
    return record


@dataclass(frozen=True, kw_only=True)
class Built:
    """A finished build."""

    manifest: Manifest
    reused_shards: int
    """Shards that stood already."""


BuildShards: TypeAlias = Callable[
    [Sequence[PlannedShard], BuildSettings, str], Iterable[ShardRecord]
]
"""(shards to build, settings, place) -> their records, in any order."""


def build_set(
    catalog: Catalog, settings: BuildSettings, out: str, build_missing: BuildShards
) -> Built:
    """Plans, builds what does not stand yet, and publishes.

    Raises:
        ValueError: too many clips were rejected.
        OSError: a store fails again and again.
        storage.ConflictError: another build has published there meanwhile.
    """
    expected = standing_manifest(out)
    shards = plan(catalog.clips, choose_shard_count(len(catalog.clips), settings, out))
    standing = records.find_standing(shards, settings, out)
    missing = [planned for planned in shards if planned.index not in standing]
    built = [*standing.values(), *build_missing(missing, settings, out)]
    manifest = publish_manifest(catalog, built, settings, out, expected=expected)
    return Built(manifest=manifest, reused_shards=len(standing))


def build(catalog: Catalog, settings: BuildSettings, out: str) -> Manifest:
    """The whole build in this process, but for the decoding, which has one of its own."""
    return build_set(catalog, settings, out, build_shards).manifest


def build_shards(
    shards: Sequence[PlannedShard], settings: BuildSettings, out: str
) -> Iterator[ShardRecord]:
    """Builds shards in this process, in their order."""
    if not shards:
        return
    with Decoder(settings.media) as decoder, ThreadPoolExecutor(SHARDS_AT_ONCE) as builders:
        try:
            yield from builders.map(
                functools.partial(build_shard, settings=settings, out=out, decoder=decoder), shards
            )
        except BaseException:
            decoder.stop()
            raise
        finally:
            builders.shutdown(wait=False, cancel_futures=True)


def _needs_new_stamps_alone(
    before: ShardRecord, planned: PlannedShard, settings: BuildSettings, out: str
) -> bool:
    """Whether the shard stands, and its clips' files are other files of the same content."""

    def sha256_of(clip: Clip) -> str:
        try:
            return hashlib.sha256(storage.read_bytes(clip.uri)).hexdigest()
        except FileNotFoundError:
            return ""

    def size_of(name: str) -> int | None:
        return storage.size_of(storage.join(out, SHARDS_FOLDER, name))

    return (
        records.holds(before, planned, settings)
        and records.tars_stand(before, size_of)
        and records.same_content(before, planned, sha256_of)
    )


def _samples(
    planned: PlannedShard, settings: BuildSettings, decoder: Decoder, rows: dict[str, ClipRow]
) -> Iterator[Sample]:
    """Decodes the clips one by one, and notes in ``rows`` what became of each."""
    for decoded in decoder.decode(_sources(planned.clips, settings.media)):
        row = _row(decoded, settings.filters)
        rows[row.key] = row
        if row.fate == WRITTEN:
            assert isinstance(decoded.outcome, Sample)  # nothing else is written
            yield decoded.outcome


def _sources(
    clips: Sequence[Clip], settings: MediaSettings
) -> Iterator[tuple[Clip, Source | Decoded]]:
    """Clips and their files; those in a store are read ahead while others are decoded."""
    waiting: deque[tuple[Clip, Callable[[], Source | Decoded]]] = deque()
    ahead_bytes = 0
    with ThreadPoolExecutor(_READERS) as readers:
        try:
            for clip in clips:
                waiting.append((clip, _start_reading(clip, settings, readers)))
                ahead_bytes += clip.size
                while len(waiting) > _AHEAD_CLIPS or (
                    len(waiting) > 1 and ahead_bytes > _AHEAD_BYTES
                ):
                    first, read = waiting.popleft()
                    ahead_bytes -= first.size
                    yield first, read()
            for clip, read in waiting:
                yield clip, read()
        finally:
            readers.shutdown(wait=True, cancel_futures=True)


def _start_reading(
    clip: Clip, settings: MediaSettings, readers: ThreadPoolExecutor
) -> Callable[[], Source | Decoded]:
    """What returns ``_source`` when it is there; a local file needs no thread to wait for it."""
    if storage.is_local(clip.uri):
        return functools.partial(_source, clip, settings)
    return readers.submit(_source, clip, settings).result


def _source(clip: Clip, settings: MediaSettings) -> Source | Decoded:
    """The clip's path, or its content if it lies in a store; a rejection where there is none."""
    detail = f"{storage.name_of(clip.uri)} is not there"
    missing = Decoded(outcome=Rejection(key=clip.key, reason="missing", detail=detail))
    if not clip.stamp:
        return missing
    if storage.is_local(clip.uri):
        return storage.local_path(clip.uri)
    if clip.size > settings.max_bytes:
        detail = f"{clip.size} bytes; at most {settings.max_bytes} are read"
        return Decoded(
            outcome=Rejection(key=clip.key, reason="too_large", detail=detail),
            source_bytes=clip.size,
        )
    try:
        return storage.read_bytes(clip.uri)
    except FileNotFoundError:
        return missing


def _row(decoded: Decoded, filters: Filters) -> ClipRow:
    """All of a clip's row but where it lies in its shard."""
    outcome = decoded.outcome
    row = ClipRow(
        key=outcome.key,
        fate=WRITTEN,
        source_bytes=decoded.source_bytes,
        source_sha256=decoded.source_sha256,
    )
    if isinstance(outcome, Rejection):
        return replace(row, fate=outcome.reason, detail=outcome.detail)
    row = replace(
        row,
        has_sound=bool(outcome.sound),
        sound_fate=outcome.sound_fate,
        sound_start_s=outcome.sound_start_s,
        sound_s=outcome.sound_s,
        rms_dbfs=outcome.rms_dbfs,
        peak_dbfs=outcome.peak_dbfs,
        requested_s=outcome.requested_s,
        actual_s=outcome.actual_s,
        width=outcome.width,
        height=outcome.height,
        source_width=outcome.source_width,
        source_height=outcome.source_height,
        source_s=outcome.source_s,
        colorfulness=outcome.colorfulness,
        motion=outcome.motion,
        crop=outcome.crop,
        picture_hash=outcome.picture_hash,
    )
    verdict = judge(row, filters)
    if verdict is None:
        return row
    return replace(row, fate=verdict[0], detail=verdict[1], has_sound=False)


def _publish_tars(index: int, written: WrittenShard, folder: Path, out: str) -> ShardEntry | None:
    """Uploads the two tars; None for a shard of nothing.

    Also where tars of these names lie already: they may be what is to be repaired.
    """
    if not written.ranges:
        return None
    both = written.picture.sha256 + written.sound.sha256
    name = f"shard-{index:05d}-{hashlib.sha256(both.encode()).hexdigest()[:12]}"
    storage.publish(folder / f"shard{PICTURE_SUFFIX}", picture_place(out, name))
    storage.publish(folder / f"shard{SOUND_SUFFIX}", sound_place(out, name))
    return ShardEntry(
        name=name, clips=len(written.ranges), picture=written.picture, sound=written.sound
    )
