"""Clips -> shards -> manifest: the work on one shard, and the whole build in one process.

``build_shard`` turns one planned shard into two tars and a record; a cluster maps it over the plan.
A build exists once its manifest does.

    OUT/manifest.json                                        last
    OUT/index-<sha>.parquet
    OUT/shards/shard-00003-<sha>.{picture,sound}.tar         named after their content
    OUT/records/shard-00003.json                             what was built from what
"""

import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

from data_prep import storage
from data_prep.catalog import Catalog, Clip
from data_prep.media.clip import DECODING_VERSION
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
from data_prep.shards.publish import publish_manifest, read_manifest_bytes
from data_prep.shards.records import ClipRow, ShardRecord
from data_prep.shards.tar import PICTURE_SUFFIX, SOUND_SUFFIX, WrittenShard, write_shard
from data_prep.storage import scratch

SHARDS_AT_ONCE = 2
"""Shards that share a decoder: one is decoded while another is uploaded."""
_WAIT_S = 1.0
_READERS = 4
_AHEAD_CLIPS, _AHEAD_BYTES = 8, 1 << 26


def build_shard(
    planned: PlannedShard, settings: BuildSettings, out: str, decoder: Decoder
) -> ShardRecord:
    """Builds and publishes one shard and its record, in which unusable clips are rejections.

    Raises:
        OSError: storage fails.
    """
    before = records.load(planned.index, out)
    if before is not None and _only_stamps_changed(before, planned, settings, out):
        record = replace(before, stamps=records.stamps(planned))
        records.store(record, out)
        return record
    rows: dict[str, ClipRow] = {}
    with scratch.folder() as folder:
        with decoder.lock, scratch.space_in(folder):
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
        decoding=DECODING_VERSION,
    )
    records.store(record, out)
    return record


@dataclass(frozen=True, kw_only=True)
class Built:
    """A finished build."""

    manifest: Manifest
    reused_shards: int
    """Shards that already existed."""


BuildShards: TypeAlias = Callable[
    [Sequence[PlannedShard], BuildSettings, str], Iterable[ShardRecord]
]
"""(shards to build, settings, output folder) -> their records, in any order."""


def build_set(
    catalog: Catalog, settings: BuildSettings, out: str, build_missing: BuildShards
) -> Built:
    """Plans the shards, builds those that do not exist yet, and publishes the manifest.

    Raises:
        ValueError: too many clips were rejected.
        OSError: storage fails in spite of retries.
        storage.ConflictError: another build has published to ``out`` in the meantime.
    """
    expected = read_manifest_bytes(out)
    shards = plan(catalog.clips, choose_shard_count(len(catalog.clips), settings, out))
    reusable = records.find_reusable(shards, settings, out)
    missing = [planned for planned in shards if planned.index not in reusable]
    built = [*reusable.values(), *build_missing(missing, settings, out)]
    manifest = publish_manifest(catalog, built, settings, out, expected=expected)
    return Built(manifest=manifest, reused_shards=len(reusable))


def build(catalog: Catalog, settings: BuildSettings, out: str) -> Manifest:
    """The whole build in this process, except decoding, which has a separate one."""
    return build_set(catalog, settings, out, build_shards).manifest


def build_shards(
    shards: Sequence[PlannedShard], settings: BuildSettings, out: str
) -> Iterator[ShardRecord]:
    """Builds shards in this process and yields their records in the same order."""
    if not shards:
        return
    with Decoder(settings.media) as decoder, ThreadPoolExecutor(SHARDS_AT_ONCE) as builders:
        try:
            work = functools.partial(build_shard, settings=settings, out=out, decoder=decoder)
            for building in [builders.submit(work, planned) for planned in shards]:
                # In short waits: a Ctrl-C just as a wait begins may go unnoticed until it ends.
                while not wait([building], timeout=_WAIT_S).done:
                    pass
                yield building.result()
        except BaseException:
            decoder.stop()
            raise
        finally:
            builders.shutdown(wait=False, cancel_futures=True)


def _only_stamps_changed(
    before: ShardRecord, planned: PlannedShard, settings: BuildSettings, out: str
) -> bool:
    """Whether the shard exists and its clips' files have new stamps but the same content."""

    def sha256_of(clip: Clip) -> str:
        try:
            return hashlib.sha256(storage.read_bytes(clip.uri)).hexdigest()
        except FileNotFoundError:
            return ""

    def size_of(name: str) -> int | None:
        return storage.size_of(storage.join(out, SHARDS_FOLDER, name))

    return (
        records.is_valid(before, planned, settings)
        and records.tars_exist(before, size_of)
        and records.same_content(before, planned, sha256_of)
    )


def _samples(
    planned: PlannedShard, settings: BuildSettings, decoder: Decoder, rows: dict[str, ClipRow]
) -> Iterator[Sample]:
    """Decodes the clips in turn, yields the usable ones and adds the row of each to ``rows``."""
    for decoded in decoder.decode(_sources(planned.clips, settings.media)):
        row = _row(decoded, settings.filters)
        rows[row.key] = row
        if row.fate == WRITTEN:
            assert isinstance(decoded.outcome, Sample)  # nothing else is written
            yield decoded.outcome


def _sources(
    clips: Sequence[Clip], settings: MediaSettings
) -> Iterator[tuple[Clip, Source | Decoded]]:
    """Clips and their files; files in object stores are read ahead during decoding."""
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
    """Returns a function that waits for the clip's ``_source``; local files need no thread."""
    if storage.is_local(clip.uri):
        return functools.partial(_source, clip, settings)
    return readers.submit(_source, clip, settings).result


def _source(clip: Clip, settings: MediaSettings) -> Source | Decoded:
    """The clip's path, or its content if it is in a store; a rejection if it is missing."""
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
    """A clip's row, without its shard and byte ranges."""
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
    """Uploads the two tars; None if no clip was written.

    Existing tars of the same names are replaced, since they may be damaged.
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
