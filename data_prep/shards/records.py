"""One record per shard of what it was built from, so that the next build can reuse it.

A shard is reused while all that determines its bytes is the same: the content of the clips, the
settings, the library versions and the schema version. Content counts as unchanged if size and time
are; if they are not, SHA-256 decides. A copied data set is thus read again, but not rebuilt.
"""

import functools
import hashlib
import importlib.metadata
import json
import logging
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter, ValidationError

from data_prep import storage
from data_prep.catalog import Clip
from data_prep.media.quality import FILTER_REASONS, Filters, judge
from data_prep.shards.manifest import SCHEMA_VERSION, SHARDS_FOLDER, WRITTEN, ShardEntry
from data_prep.shards.plan import BuildSettings, PlannedShard
from data_prep.shards.tar import PICTURE_SUFFIX, SOUND_SUFFIX

log = logging.getLogger(__name__)

RECORDS_FOLDER = "records"
_PASSING = ("missing", "unreadable")
_READERS = 16
_VERSIONS_OF = ("av", "numpy", "simplejpeg", "soundfile")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRow:
    """The outcome for one clip: the index's columns that do not come from the annotations."""

    key: str
    fate: str
    """``written``, or the reason for the rejection."""
    detail: str = ""
    """Of the rejection, in words."""
    shard: str = ""
    has_sound: bool = False
    sound_fate: str = ""
    sound_start_s: float = 0.0
    sound_s: float = 0.0
    rms_dbfs: float = 0.0
    peak_dbfs: float = 0.0
    requested_s: tuple[float, ...] = ()
    actual_s: tuple[float, ...] = ()
    width: int = 0
    height: int = 0
    source_width: int = 0
    source_height: int = 0
    source_s: float = 0.0
    source_bytes: int = 0
    source_sha256: str = ""
    colorfulness: float = 0.0
    motion: float | None = None
    crop: tuple[int, ...] = ()
    picture_hash: tuple[str, ...] = ()
    picture_offsets: tuple[int, ...] = ()
    picture_sizes: tuple[int, ...] = ()
    sound_offset: int = 0
    sound_size: int = 0


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One finished shard, as stored in ``records``."""

    index: int
    shard_count: int
    fingerprint: str
    """Of settings, versions and planned clips; not of their content, labels, splits or paths."""
    stamps: tuple[str, ...]
    """Size and time of each clip's file when it was read."""
    entry: ShardEntry | None
    """None if every clip was rejected."""
    rows: tuple[ClipRow, ...]
    """One per planned clip, in the order of their keys."""
    decoding: int = 1
    """``data_prep.media.clip.DECODING_VERSION`` of the build."""


_ADAPTER = TypeAdapter(ShardRecord)


@functools.cache  # looking them up takes 2 ms, for each shard's fingerprint
def versions() -> dict[str, str]:
    """What else the bytes of a shard depend on, beside settings and clips."""
    libraries = {name: importlib.metadata.version(name) for name in _VERSIONS_OF}
    return libraries | {"machine": platform.machine()}


def fingerprint(planned: PlannedShard, settings: BuildSettings) -> str:
    """SHA-256 of the plan of one shard."""
    built_from = {
        "schema_version": SCHEMA_VERSION,
        "versions": versions(),
        "media": asdict(settings.media),
        "shard": [planned.index, planned.shard_count],
        "clips": [[c.key, c.event_start_s, c.event_end_s] for c in planned.clips],
    }
    return hashlib.sha256(json.dumps(built_from, sort_keys=True).encode()).hexdigest()


def encode(record: ShardRecord) -> bytes:
    """A record as JSON."""
    return json.dumps(asdict(record), sort_keys=True).encode()


def decode(content: bytes | str) -> ShardRecord:
    """The record from the JSON of ``encode``; pydantic.ValidationError for anything else."""
    return _ADAPTER.validate_json(content)


def store(record: ShardRecord, out: str) -> None:
    """Writes a record; if that fails because of another build, the other's record may stay."""
    try:
        storage.write_bytes(_place(out, record.index), encode(record))
    except OSError as error:
        if load(record.index, out) is None:
            raise
        log.warning("shard %d will be rebuilt by the next build: %s", record.index, error)


def load(index: int, out: str) -> ShardRecord | None:
    """The record of a shard, whatever it was built from; None if there is none."""
    try:
        return decode(storage.read_bytes(_place(out, index)))
    except FileNotFoundError:
        return None
    except ValidationError:
        log.warning(
            "the record of shard %d in %s is damaged or outdated: rebuilding it", index, out
        )
        return None


def find_reusable(
    shards: Sequence[PlannedShard], settings: BuildSettings, out: str
) -> dict[int, ShardRecord]:
    """Records of the shards that need no work, by the number of the shard."""
    recorded = _sizes(storage.join(out, RECORDS_FOLDER))
    tars = _sizes(storage.join(out, SHARDS_FOLDER))
    candidates = [shard for shard in shards if _file_name(shard.index) in recorded]

    def reusable(planned: PlannedShard) -> ShardRecord | None:
        record = load(planned.index, out)
        usable = (
            record is not None
            and is_valid(record, planned, settings)
            and record.stamps == stamps(planned)
            and tars_exist(record, tars.get)
        )
        return record if usable else None

    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(reusable, candidates)
        return {record.index: record for record in found if record is not None}


def is_valid(record: ShardRecord, planned: PlannedShard, settings: BuildSettings) -> bool:
    """Whether a rebuild would give the same content, provided the clips' files are the same.

    A file that was listed but could not be read may be readable again without having changed.
    """
    return record.fingerprint == fingerprint(planned, settings) and all(
        _same_fate(row, settings.filters)
        and not (row.fate in _PASSING and stamp)
        and not (record.decoding < 2 and _changed_by_decoding_2(row))
        for row, stamp in zip(record.rows, record.stamps, strict=True)
    )


def tars_exist(record: ShardRecord, size_of: Callable[[str], int | None]) -> bool:
    """Whether both tars exist with their full size; ``size_of`` takes a tar's name."""
    entry = record.entry
    return entry is None or (
        size_of(f"{entry.name}{PICTURE_SUFFIX}") == entry.picture.bytes
        and size_of(f"{entry.name}{SOUND_SUFFIX}") == entry.sound.bytes
    )


def stamps(planned: PlannedShard) -> tuple[str, ...]:
    """Size and time of the planned clips' files, as listed."""
    return tuple(clip.stamp for clip in planned.clips)


def same_content(
    record: ShardRecord, planned: PlannedShard, sha256_of: Callable[[Clip], str]
) -> bool:
    """Whether every clip whose stamp has changed has the same bytes as before."""
    changed = [
        (clip, row)
        for clip, row, before in zip(planned.clips, record.rows, record.stamps, strict=True)
        if clip.stamp != before
    ]
    return all(
        clip.size == row.source_bytes and row.source_sha256 and sha256_of(clip) == row.source_sha256
        for clip, row in changed
    )


def _same_fate(row: ClipRow, filters: Filters) -> bool:
    if row.fate == WRITTEN or row.fate in FILTER_REASONS:
        verdict = judge(row, filters)
        return (row.fate, row.detail) == (verdict or (WRITTEN, ""))
    return True


def _changed_by_decoding_2(row: ClipRow) -> bool:
    """Whether version 2 of decoding may give a clip another outcome than version 1.

    It measures motion in windows with a single key frame, reads Matroska files that start later
    than 0 and more sound codecs, and uses one channel of sound whose channels cancel each other.
    """
    return (
        row.motion == 0.0
        or row.fate == "too_long"
        or (row.fate == "undecodable" and row.detail.startswith("cut off"))
        or row.sound_fate in ("silent", "undecodable")
    )


def _sizes(folder: str) -> Mapping[str, int]:
    """Name -> size of each file in a folder; empty if there is no folder."""
    try:
        files: Iterable[storage.StoredFile] = storage.list_files(folder)
    except FileNotFoundError:
        return {}
    return {file.name: file.size for file in files}


def _file_name(index: int) -> str:
    return f"shard-{index:05d}.json"


def _place(out: str, index: int) -> str:
    return storage.join(out, RECORDS_FOLDER, _file_name(index))
