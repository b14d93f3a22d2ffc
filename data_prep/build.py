"""Clips -> shards -> manifest: the work on one shard, and the whole build in one process.

``build_shard`` turns one planned shard into two tars and a record beside them; whoever has many
machines maps it over the plan. The manifest makes a build exist.

    OUT/manifest.json                                        last
    OUT/index-<sha>.parquet
    OUT/shards/shard-00003-<sha>.{picture,sound}.tar         named after their content
    OUT/records/shard-00003.json                             what was built, and from what
"""

import contextlib
import errno
import functools
import hashlib
import tempfile
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from data_prep import records, storage
from data_prep.catalog import Catalog, Clip
from data_prep.decoder import Decoded, Decoder, Source
from data_prep.manifest import WRITTEN, Manifest, ShardEntry, picture_place, sound_place
from data_prep.plan import BuildSettings, PlannedShard, choose_shard_count, plan
from data_prep.publication import publish_manifest, standing_manifest
from data_prep.quality import Filters, judge
from data_prep.records import ClipRow, ShardRecord
from data_prep.sample import MediaSettings, Rejection, Sample
from data_prep.shard import PICTURE_SUFFIX, SOUND_SUFFIX, TarRecord, WrittenShard, write_shard

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
    with tempfile.TemporaryDirectory(prefix="shard-") as scratch:
        with decoder.turn, _space_in(scratch):
            samples = _samples(planned, settings, decoder, rows)
            written = write_shard(samples, Path(scratch), "shard")
        entry = _publish_tars(planned.index, written, Path(scratch), out)
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


def build(catalog: Catalog, settings: BuildSettings, out: str) -> Manifest:
    """The whole build in this process, but for the decoding, which has one of its own."""
    expected = standing_manifest(out)
    shards = plan(catalog.clips, choose_shard_count(len(catalog.clips), settings, out))
    standing = records.find_standing(shards, settings, out)
    missing = [planned for planned in shards if planned.index not in standing]
    built = [*standing.values(), *build_shards(missing, settings, out)]
    return publish_manifest(catalog, built, settings, out, expected=expected)


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
        finally:
            builders.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _space_in(scratch: str) -> Generator[None, None, None]:
    """A full scratch disk as an error that names it and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            f"no space left in {Path(scratch).parent} for the shard in the making: free some, or "
            "set TMPDIR to a larger disk"
        ) from error


def _needs_new_stamps_alone(
    before: ShardRecord, planned: PlannedShard, settings: BuildSettings, out: str
) -> bool:
    """Whether the shard stands, and its clips' files are other files of the same content."""

    def sha256_of(clip: Clip) -> str:
        return hashlib.sha256(storage.read_bytes(clip.uri)).hexdigest()

    def size_of(name: str) -> int | None:
        return storage.size_of(storage.join(out, "shards", name))

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
) -> Iterator[tuple[Clip, Source | Rejection]]:
    """Clips and their files, read ahead while others are decoded."""
    waiting: deque[tuple[Clip, Future[Source | Rejection]]] = deque()
    ahead_bytes = 0
    with ThreadPoolExecutor(_READERS) as readers:
        try:
            for clip in clips:
                waiting.append((clip, readers.submit(_source, clip, settings)))
                ahead_bytes += _size(clip)
                while len(waiting) > _AHEAD_CLIPS or (
                    len(waiting) > 1 and ahead_bytes > _AHEAD_BYTES
                ):
                    first, read = waiting.popleft()
                    ahead_bytes -= _size(first)
                    yield first, read.result()
            for clip, read in waiting:
                yield clip, read.result()
        finally:
            readers.shutdown(wait=True, cancel_futures=True)


def _source(clip: Clip, settings: MediaSettings) -> Source | Rejection:
    """The clip's path, or its content if it lies in a store; a rejection where there is none."""
    missing = Rejection(
        key=clip.key, reason="missing", detail=f"{storage.name_of(clip.uri)} is not there"
    )
    if not clip.stamp:
        return missing
    if storage.is_local(clip.uri):
        return storage.local_path(clip.uri)
    if _size(clip) > settings.max_bytes:
        detail = f"{_size(clip)} bytes; at most {settings.max_bytes} are read"
        return Rejection(key=clip.key, reason="too_large", detail=detail)
    try:
        return storage.read_bytes(clip.uri)
    except FileNotFoundError:
        return missing


def _size(clip: Clip) -> int:
    """Bytes of a clip's file, as listed."""
    return int(clip.stamp.partition(":")[0] or 0)


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
    """Uploads the two tars, unless the very same ones lie there; None for a shard of nothing."""
    if not written.ranges:
        return None
    both = written.picture.sha256 + written.sound.sha256
    name = f"shard-{index:05d}-{hashlib.sha256(both.encode()).hexdigest()[:12]}"

    def publish(suffix: str, place: str, tar: TarRecord) -> None:
        if storage.size_of(place) != tar.bytes:
            storage.publish(folder / f"shard{suffix}", place)

    publish(PICTURE_SUFFIX, picture_place(out, name), written.picture)
    publish(SOUND_SUFFIX, sound_place(out, name), written.sound)
    return ShardEntry(
        name=name, clips=len(written.ranges), picture=written.picture, sound=written.sound
    )
