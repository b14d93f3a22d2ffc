"""Reads single clips as for a shard."""

import io
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from data_prep.catalog import Clip
from data_prep.media.clip import read_clip
from data_prep.media.sample import MediaSettings, Rejection, Sample

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
