"""The manifest: a data set's one source of truth, written last.

``manifest.json`` lists every shard and the index, each with its SHA-256, and counts the clips read,
written and rejected. The index, a Parquet file beside it, has one row per catalog clip, sorted by
key: its fate, label and split, times, measures, checksums and byte ranges. Neither contains time
stamps or paths, so the same input gives the same bytes, and ``Manifest.digest`` identifies a data
set.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeStubs=false
# (pyarrow ships no types)

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from data_prep import storage
from data_prep.shards.tar import PICTURE_SUFFIX, SOUND_SUFFIX, TarRecord

SCHEMA_VERSION = 2
"""Version of manifest, index and shards together; other versions are refused and rebuilt."""
MANIFEST_NAME = "manifest.json"
SHARDS_FOLDER = "shards"
WRITTEN = "written"
"""Fate of a clip that is in a shard; a rejected one has its reason instead."""

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("youtube_id", pa.string()),
        ("start_s", pa.float64()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("fate", pa.string()),  # "written", or the reason for the rejection
        ("detail", pa.string()),  # of the rejection, in words
        ("shard", pa.string()),  # empty for a rejected clip
        ("has_sound", pa.bool_()),
        ("sound_fate", pa.string()),
        ("sound_start_s", pa.float64()),
        ("sound_s", pa.float64()),
        ("rms_dbfs", pa.float64()),
        ("peak_dbfs", pa.float64()),
        ("requested_s", pa.list_(pa.float64())),
        ("actual_s", pa.list_(pa.float64())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("source_s", pa.float64()),
        ("source_bytes", pa.int64()),
        ("source_sha256", pa.string()),
        ("colorfulness", pa.float64()),
        ("motion", pa.float64()),  # null: not measured
        ("crop", pa.list_(pa.int32())),  # left, top, width, height; empty: nothing was cut
        ("picture_hash", pa.list_(pa.string())),
        ("picture_offsets", pa.list_(pa.int64())),
        ("picture_sizes", pa.list_(pa.int64())),
        ("sound_offset", pa.int64()),
        ("sound_size", pa.int64()),
    ]
)
INDEX_COLUMNS: tuple[str, ...] = tuple(INDEX_SCHEMA.names)
"""Columns of the index; offsets and sizes are of the members' contents in the tars."""


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One shard: two tars, ``<name>.picture.tar`` and ``<name>.sound.tar``."""

    name: str
    clips: int
    """Number of samples in it."""
    picture: TarRecord
    sound: TarRecord


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """The index file."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of clips; always ``read == written + sum(rejected.values())``."""

    read: int
    written: int
    with_sound: int
    rejected: dict[str, int]
    """By reason."""


@dataclass(frozen=True, kw_only=True)
class LeakedVideo:
    """A video that is in several splits of the annotations."""

    youtube_id: str
    splits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The result of a finished build."""

    schema_version: int
    settings: dict[str, Any]
    """All settings that affect the bytes of the shards, as plain JSON: ``media``, ``filters``."""
    shard_count: int
    """Number of shards that video ids are hashed to; empty ones are not listed."""
    shards: tuple[ShardEntry, ...]
    index: IndexEntry
    counts: Counts
    leaks: tuple[LeakedVideo, ...]
    versions: dict[str, str]
    """Versions of the libraries that decode and encode."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: the content of the file."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate of the sounds.

        Raises:
            ValueError: the settings do not contain it.
        """
        try:
            return int(self.settings["media"]["sample_rate_hz"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                "the manifest has no media.sample_rate_hz: prepare the shards again"
            ) from None

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: the data set's identity."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def picture_place(place: str, shard: str) -> str:
    """The place of a shard's picture tar."""
    return storage.join(place, SHARDS_FOLDER, f"{shard}{PICTURE_SUFFIX}")


def sound_place(place: str, shard: str) -> str:
    """The place of a shard's sound tar."""
    return storage.join(place, SHARDS_FOLDER, f"{shard}{SOUND_SUFFIX}")


def load_manifest(place: str) -> Manifest:
    """Manifest of a shard set.

    Raises:
        FileNotFoundError: there is no finished build.
        ValueError: the manifest is damaged or of another schema version.
    """
    try:
        content = storage.read_bytes(storage.join(place, MANIFEST_NAME))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no {MANIFEST_NAME} in {place}: check the path, or finish the build with "
            "`aiaic prepare`"
        ) from None
    try:
        version = json.loads(content).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{place} has schema version {version}, this code {SCHEMA_VERSION}: "
                "prepare it again"
            )
        return TypeAdapter(Manifest).validate_json(content)
    except (ValidationError, json.JSONDecodeError, AttributeError, UnicodeDecodeError):
        raise ValueError(f"{place}/{MANIFEST_NAME} is damaged: prepare the shards again") from None


def load_index(place: str, manifest: Manifest) -> pa.Table:
    """The index, with ``INDEX_SCHEMA``; ValueError if it is not the one in the manifest."""
    content = storage.read_bytes(storage.join(place, manifest.index.name))
    if hashlib.sha256(content).hexdigest() != manifest.index.sha256:
        raise ValueError(f"{place}: {manifest.index.name} differs from its checksum; prepare again")
    return pq.read_table(pa.BufferReader(content), schema=INDEX_SCHEMA)


def encode_index(columns: Mapping[str, Sequence[object]]) -> bytes:
    """The columns of ``INDEX_SCHEMA`` as Parquet; the same values give the same bytes."""
    sink = io.BytesIO()
    table = pa.Table.from_pydict(dict(columns), schema=INDEX_SCHEMA)
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
