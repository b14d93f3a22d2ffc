"""Verifies a shard set against its manifest, and deletes files of earlier builds.

Superseded tars and indexes are kept until they are pruned, since a training run may still read
them.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (pyarrow ships no types)

import functools
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, cast

from data_prep import storage
from data_prep.media.wav import check_wav
from data_prep.shards.manifest import (
    MANIFEST_NAME,
    SHARDS_FOLDER,
    WRITTEN,
    Manifest,
    ShardEntry,
    load_index,
    load_manifest,
    picture_place,
    sound_place,
)
from data_prep.shards.tar import (
    PICTURE_SUFFIX,
    SOUND_SUFFIX,
    Member,
    TarRecord,
    read_pictures,
    read_sounds,
)
from data_prep.storage.listing import StoredFile

_OURS = re.compile(
    r"index-[0-9a-f]{12}\.parquet"
    rf"|{SHARDS_FOLDER}/shard-\d{{5,}}-[0-9a-f]{{12}}\.(picture|sound)\.tar"
)
"""Names of a build's files; the folder may contain other shard sets and anything else."""
_READERS = 4
_SHOWN_PROBLEMS = 20
_DAY_S = 86_400.0


def verify(place: str) -> Manifest:
    """Reads a whole shard set, compares it with its manifest, and returns the manifest.

    Checks the SHA-256 of every tar and of the index, the members, their order, byte ranges and the
    format of sounds, and that each clip that was read is written or rejected.

    Raises:
        FileNotFoundError: there is no manifest.
        ValueError: the set differs from it; the message lists the problems.
    """
    manifest = load_manifest(place)
    rows = cast("list[dict[str, Any]]", load_index(place, manifest).to_pylist())
    problems = _count_problems(manifest, rows)
    sample_rate_hz = manifest.sample_rate_hz
    rows_of: dict[str, list[dict[str, Any]]] = {entry.name: [] for entry in manifest.shards}
    for row in rows:
        if row["fate"] != WRITTEN:
            continue
        if row["shard"] in rows_of:
            rows_of[row["shard"]].append(row)
        else:
            problems.append(f"{row['key']} is in shard {row['shard']!r}, which is not listed")

    def check(entry: ShardEntry) -> list[str]:
        return _shard_problems(place, entry, rows_of[entry.name], sample_rate_hz)

    with ThreadPoolExecutor(_READERS) as threads:
        for found in threads.map(check, manifest.shards):
            problems.extend(found)
    if problems:
        shown = "; ".join(problems[:_SHOWN_PROBLEMS])
        more = len(problems) - _SHOWN_PROBLEMS
        tail = f"; and {more} more" if more > 0 else ""
        raise ValueError(
            f"{place} differs from its manifest: {shown}{tail}. Delete the files named here "
            "and prepare it again"
        )
    return manifest


def superseded(place: str, manifest: Manifest) -> list[StoredFile]:
    """Tars and indexes of earlier builds: not in the manifest, and older than it.

    Newer ones may belong to a running build.
    """
    named = {manifest.index.name} | {
        f"{SHARDS_FOLDER}/{entry.name}{suffix}"
        for entry in manifest.shards
        for suffix in (PICTURE_SUFFIX, SOUND_SUFFIX)
    }
    files = storage.list_files(place)
    (published_ns,) = (file.mtime_ns for file in files if file.name == MANIFEST_NAME)
    return [
        file
        for file in files
        if _OURS.fullmatch(file.name) and file.name not in named and file.mtime_ns < published_ns
    ]


def prune(place: str, manifest: Manifest) -> list[StoredFile]:
    """Deletes superseded files, which it returns, and unfinished ones of killed builds."""
    files = superseded(place, manifest)
    for file in files:
        storage.delete(file.uri)
    storage.sweep_parts(place, _DAY_S)
    return files


def _count_problems(manifest: Manifest, rows: Sequence[dict[str, Any]]) -> list[str]:
    counts = manifest.counts
    fates = Counter(row["fate"] for row in rows)
    rejected = {reason: n for reason, n in fates.items() if reason != WRITTEN}
    keys = Counter(row["key"] for row in rows)
    rows_text = f"the index has {len(rows)} rows, {manifest.index.rows} are listed"
    written_text = f"the index has {fates[WRITTEN]} written clips"
    checks = [
        (counts.read == manifest.index.rows == len(rows), rows_text),
        (counts.written == fates[WRITTEN], written_text),
        (counts.rejected == rejected, f"the index has the rejections {rejected}"),
        (
            counts.read == counts.written + sum(counts.rejected.values()),
            "clips are unaccounted for",
        ),
        (counts.with_sound == sum(row["has_sound"] for row in rows), "sounds are miscounted"),
        (len(keys) == len(rows), f"key {keys.most_common(1)[0][0]} is in the index twice"),
    ]
    prefix = f"counts are {counts}, but "
    return [prefix + text for holds, text in checks if not holds]


def _shard_problems(
    place: str, entry: ShardEntry, rows: Sequence[dict[str, Any]], sample_rate_hz: int
) -> list[str]:
    """What is wrong with one shard; ``rows`` are its rows of the index, in any order."""
    rows = sorted(rows, key=lambda row: row["sound_offset"])
    expected_pictures = [
        (row["key"], number, offset, size)
        for row in rows
        for number, (offset, size) in enumerate(
            zip(row["picture_offsets"], row["picture_sizes"], strict=True)
        )
    ]
    expected_sounds = [(row["key"], 0, row["sound_offset"], row["sound_size"]) for row in rows]
    problems = [
        *_tar_problems(
            picture_place(place, entry.name), entry.picture, expected_pictures, read_pictures
        ),
        *_tar_problems(
            sound_place(place, entry.name),
            entry.sound,
            expected_sounds,
            functools.partial(_checked_sounds, sample_rate_hz=sample_rate_hz),
        ),
    ]
    problems += [
        f"{row['key']} has {row['sound_size']} bytes of sound in the index, and has_sound is "
        f"{row['has_sound']}"
        for row in rows
        if row["has_sound"] != (row["sound_size"] > 0)
    ]
    if len(rows) != entry.clips:
        problems.append(f"{entry.name} has {len(rows)} clips in the index, not {entry.clips}")
    return problems


def _checked_sounds(stream: IO[bytes], name: str, sample_rate_hz: int) -> Iterator[Member]:
    for member in read_sounds(stream, name):
        try:
            if member.content:  # else there is no usable sound
                check_wav(member.content, sample_rate_hz)
        except ValueError as error:
            raise ValueError(f"{name}: {member.key} is {error}") from None
        yield member


def _tar_problems(
    tar_place: str,
    record: TarRecord,
    expected: Sequence[tuple[str, int, int, int]],
    read: Callable[[IO[bytes], str], Iterable[Member]],
) -> list[str]:
    name = storage.name_of(tar_place)
    try:
        content = storage.read_bytes(tar_place)
    except FileNotFoundError:
        return [f"{name} is missing"]
    if len(content) != record.bytes:
        return [f"{name} has {len(content)} bytes, not {record.bytes}"]
    if hashlib.sha256(content).hexdigest() != record.sha256:
        return [f"{name} differs from its checksum"]
    try:
        found = [
            (m.key, m.position, m.offset, len(m.content)) for m in read(io.BytesIO(content), name)
        ]
    except ValueError as error:
        return [str(error)]
    return _first_difference(name, expected, found)


def _first_difference(
    name: str,
    expected: Iterable[tuple[str, int, int, int]],
    found: Sequence[tuple[str, int, int, int]],
) -> list[str]:
    expected = list(expected)
    for wanted, member in zip(expected, found, strict=False):
        if wanted != member:
            return [
                f"{name}: the index has (key, number, offset, bytes) {wanted}, the tar {member}"
            ]
    if len(expected) != len(found):
        return [f"{name} has {len(found)} members, the index {len(expected)}"]
    return []
