"""Samples -> one shard: two reproducible plain tars with the same keys in the same order.

``<name>.picture.tar`` contains ``<key>.0.jpg``, ``<key>.1.jpg``, ...; ``<name>.sound.tar`` contains
``<key>.wav``, with zero bytes if a sample has no usable sound. Both are in webdataset's format.
Tars are read as streams: nothing is extracted to disk, and members other than regular files of a
known kind are refused.
"""

import hashlib
import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from data_prep.media.sample import Sample

PICTURE_SUFFIX = ".picture.tar"
SOUND_SUFFIX = ".sound.tar"
MAX_MEMBER_BYTES = 1 << 28
"""Larger members are refused; the pictures and sounds of shards are far smaller."""

_PICTURE = re.compile(r"([^./]+)\.(\d+)\.jpg")
_SOUND = re.compile(r"([^./]+)\.wav")


@dataclass(frozen=True, kw_only=True)
class TarRecord:
    """A tar file as written."""

    bytes: int
    """Size of the file."""
    sha256: str
    """SHA-256 of the file."""


@dataclass(frozen=True, kw_only=True)
class MemberRanges:
    """Byte ranges of one sample's members in the tars, without their headers."""

    picture_offsets: tuple[int, ...]
    """In the picture tar, one per picture."""
    picture_sizes: tuple[int, ...]
    """In bytes, one per picture."""
    sound_offset: int
    """In the sound tar."""
    sound_size: int
    """In bytes; 0: no usable sound."""


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """Two finished tars and the byte ranges of each sample."""

    picture: TarRecord
    sound: TarRecord
    ranges: dict[str, MemberRanges]
    """By key, in the order of the tars."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member of a tar."""

    key: str
    position: int
    """Number of the picture; 0 for sound."""
    offset: int
    """Offset of the content in the tar."""
    content: bytes


def write_shard(samples: Iterable[Sample], folder: Path, name: str) -> WrittenShard:
    """Writes ``folder/name.picture.tar`` and ``folder/name.sound.tar``, one sample at a time.

    Raises:
        ValueError: two samples have the same key.
    """
    paths = [folder / f"{name}{suffix}" for suffix in (PICTURE_SUFFIX, SOUND_SUFFIX)]
    ranges: dict[str, MemberRanges] = {}
    with (
        paths[0].open("wb") as pictures,
        paths[1].open("wb") as sounds,
        _writer(pictures) as picture_tar,
        _writer(sounds) as sound_tar,
    ):
        for sample in samples:
            if sample.key in ranges:
                raise ValueError(f"sample {sample.key} is in shard {name} twice")
            ranges[sample.key] = MemberRanges(
                picture_offsets=tuple(
                    _add(picture_tar, pictures, f"{sample.key}.{position}.jpg", picture)
                    for position, picture in enumerate(sample.pictures)
                ),
                picture_sizes=tuple(len(picture) for picture in sample.pictures),
                sound_offset=_add(sound_tar, sounds, f"{sample.key}.wav", sample.sound),
                sound_size=len(sample.sound),
            )
    picture, sound = (_record(path) for path in paths)
    return WrittenShard(picture=picture, sound=sound, ranges=ranges)


def read_pictures(stream: IO[bytes], name: str) -> Iterator[Member]:
    """Pictures of a picture tar in order; ValueError names what does not belong there."""
    return _members(stream, name, _PICTURE)


def read_sounds(stream: IO[bytes], name: str) -> Iterator[Member]:
    """Sounds of a sound tar in order; ValueError names what does not belong there."""
    return _members(stream, name, _SOUND)


def _writer(stream: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT)


def _add(tar: tarfile.TarFile, stream: IO[bytes], name: str, content: bytes) -> int:
    """Adds a member with a fixed header; returns the offset of its content."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o444
    tar.addfile(info, io.BytesIO(content))
    blocks = -(-len(content) // tarfile.BLOCKSIZE)
    return stream.tell() - blocks * tarfile.BLOCKSIZE


def _record(path: Path) -> TarRecord:
    with path.open("rb") as stream:
        return TarRecord(
            bytes=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest()
        )


def _members(stream: IO[bytes], name: str, pattern: re.Pattern[str]) -> Iterator[Member]:
    seen: set[tuple[str, int]] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for info in tar:
                member = _member(tar, info, name, pattern)
                if (member.key, member.position) in seen:
                    raise _MemberError(f"{name} contains member {info.name!r} twice")
                seen.add((member.key, member.position))
                yield member
        # A tar ends with two blocks of zeros, of which one has been read.
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise _MemberError(f"{name} is not a complete tar: its end is missing")
    except _MemberError:
        raise
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError) as error:
        raise ValueError(f"{name} is not a complete tar: {error}") from None


class _MemberError(ValueError):
    """An error whose message already names the tar and its member."""


def _member(
    tar: tarfile.TarFile, info: tarfile.TarInfo, name: str, pattern: re.Pattern[str]
) -> Member:
    match = pattern.fullmatch(info.name)
    if not info.isreg() or info.issparse() or match is None:
        raise _MemberError(f"{name}: member {info.name!r} is not a picture or sound of a shard")
    if not 0 <= info.size <= MAX_MEMBER_BYTES:
        raise _MemberError(
            f"{name}: member {info.name!r} has {info.size} bytes, too many for a shard"
        )
    content = tar.extractfile(info)
    assert content is not None  # a regular file has content
    position = int(match[2]) if pattern is _PICTURE else 0
    return Member(key=match[1], position=position, offset=info.offset_data, content=content.read())
