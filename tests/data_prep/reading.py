"""Reads clips as a build does, and shards on disk."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from data_prep.catalog import Clip
from data_prep.media.clip import read_clip
from data_prep.media.sample import MediaSettings, Rejection, Sample
from data_prep.shards.tar import PICTURE_SUFFIX, SOUND_SUFFIX, read_pictures, read_sounds

SETTINGS = MediaSettings(size_px=None)


def clip_of(path: Path, start_s: float = 0.0, end_s: float | None = None) -> Clip:
    return Clip(
        key=path.stem,
        youtube_id=path.stem,
        start_s=0.0,
        label="",
        split="train",
        uri=str(path),
        event_start_s=start_s,
        event_end_s=end_s,
    )


def read(path: Path, settings: MediaSettings = SETTINGS, **window) -> Sample:
    sample = read_clip(path, clip_of(path, **window), settings)
    assert isinstance(sample, Sample), sample
    return sample


def rejection(path: Path, settings: MediaSettings = SETTINGS, **window) -> Rejection:
    rejected = read_clip(path, clip_of(path, **window), settings)
    assert isinstance(rejected, Rejection), rejected
    return rejected


def picture(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def sound_of(sample: Sample) -> np.ndarray:
    waveform, rate = soundfile.read(io.BytesIO(sample.sound), dtype="float32")
    assert rate == 16000
    return waveform


def read_shard(folder: Path, name: str) -> Iterator[tuple[str, list[bytes], bytes]]:
    """Key, pictures and sound (empty: none usable) of each sample of a shard on disk.

    Raises:
        ValueError: the two tars do not have the same keys in the same order.
    """
    with (folder / f"{name}{PICTURE_SUFFIX}").open("rb") as stream:
        pictures: dict[str, list[bytes]] = {}
        for member in read_pictures(stream, f"{name}{PICTURE_SUFFIX}"):
            pictures.setdefault(member.key, []).append(member.content)
    with (folder / f"{name}{SOUND_SUFFIX}").open("rb") as stream:
        keys = iter(pictures)
        for member in read_sounds(stream, f"{name}{SOUND_SUFFIX}"):
            if next(keys, None) != member.key:
                raise ValueError(f"shard {name}: sound {member.key} has no picture in its place")
            yield member.key, pictures[member.key], member.content
        if (left := next(keys, None)) is not None:
            raise ValueError(f"shard {name}: picture {left} has no sound member")
