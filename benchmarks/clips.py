"""Clips like those of the data sets, made on the spot: ten seconds of moving texture with sound.

Frames pan over coloured noise of all scales, so that they cost a decoder what real ones do; sound
is a chord over coloured noise in stereo. H.264 with a set distance of key frames and AAC.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

SECONDS, FPS = 10, 25
RATE_HZ = 44100


def make_clips(
    folder: Path, count: int, *, width: int = 640, height: int = 360, key_interval: int = 125
) -> list[Path]:
    """``count`` clips ``clip0000000_000000.mp4``...; those that stand already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"clip{number:07d}_000000.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            part = path.with_suffix(".part")
            _write(part, np.random.default_rng(number), width, height, key_interval)
            part.rename(path)
    return paths


def link_clips(clips: list[Path], folder: Path, count: int) -> None:
    """``count`` clips of different names, as links to ``clips`` in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"link{number:07d}_000000.mp4").hardlink_to(clips[number % len(clips)])


def _write(
    path: Path, rng: np.random.Generator, width: int, height: int, key_interval: int
) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("h264", rate=FPS, options={"preset": "veryfast", "bf": "2"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.gop_size, video.bit_rate = key_interval, 600_000
        sound = container.add_stream("aac", rate=RATE_HZ, layout="stereo")
        canvas = texture(rng, 2 * height, 2 * width)
        for number in range(SECONDS * FPS):
            left = round((1 + np.sin(number / 40)) * width / 2)
            top = round((1 + np.cos(number / 55)) * height / 2)
            view = np.ascontiguousarray(canvas[top : top + height, left : left + width])
            frame = av.VideoFrame.from_ndarray(view, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for frame in _sound(rng):
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


def texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Noise whose amplitude falls a little faster than that of photographs, 1/f^1.8, and which is
    tinted differently from place to place; a key frame of it takes 30 kB, like a real clip's."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = np.maximum(np.hypot(fy, fx), 1.0 / width) ** -1.8
    grey = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) * fall, (height, width))
    planes = []
    for _ in range(3):
        own = rng.normal(size=(height, width))
        tint = np.fft.irfft2(np.fft.rfft2(own) * fall * fall, (height, width))
        planes.append(grey / grey.std() + 0.6 * tint / tint.std())
    return np.clip(128 + 45 * np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


def _sound(rng: np.random.Generator) -> list[av.AudioFrame]:
    length = SECONDS * RATE_HZ
    times = np.arange(length) / RATE_HZ
    tones = sum(0.1 * np.sin(2 * np.pi * f * times) for f in rng.uniform(100, 4000, 3))
    noise = 0.05 * np.cumsum(rng.normal(size=(2, length)), axis=1)
    noise -= noise.mean(axis=1, keepdims=True)
    wave = tones + 0.2 * noise / np.abs(noise).max() + 0.01 * rng.normal(size=(2, length))
    frames = []
    for first in range(0, length, 1024):
        part = np.ascontiguousarray(wave[:, first : first + 1024], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE_HZ, first
        frame.time_base = Fraction(1, RATE_HZ)
        frames.append(frame)
    return frames
