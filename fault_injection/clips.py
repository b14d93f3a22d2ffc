"""Synthesizes clips whose frames encode their own number."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_clip(
    path: Path,
    *,
    seconds: float = 2.0,
    width: int = 96,
    height: int = 64,
    fps: int = 10,
    key_interval: int = 12,
    color: tuple[int, int, int] | None = None,
    tone_hz: float | None = 440.0,
    loudness: float = 0.3,
    sound_s: float | None = None,
    sound_rate_hz: int = 44100,
    layout: str = "stereo",
    video: bool = True,
    codec: str = "h264",
    pixel_format: str = "yuv420p",
    video_options: dict[str, str] | None = None,
    edit: Callable[[np.ndarray, int], np.ndarray] = lambda image, number: image,
) -> Path:
    """Writes a clip whose frames encode their own number: bit k is the k-th of eight vertical bars.

    With ``color``, all frames have that RGB colour instead; ``edit`` modifies each frame.
    ``tone_hz=None``: no sound stream.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        streams = []
        if video:
            options = {"preset": "ultrafast", "bf": "2"} | (video_options or {})
            stream = container.add_stream(
                codec, rate=fps, options=options if codec == "h264" else {}
            )
            stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
            stream.gop_size = key_interval
            stream.time_base = Fraction(1, fps)
            streams.append((stream, _frames(round(seconds * fps), width, height, color, edit)))
        if tone_hz is not None:
            sound = container.add_stream("aac", rate=sound_rate_hz, layout=layout)
            length_s = seconds if sound_s is None else sound_s
            streams.append((sound, _tone(tone_hz, loudness, length_s, sound_rate_hz, layout)))
        for stream, frames in streams:
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def _frames(
    count: int,
    width: int,
    height: int,
    color: tuple[int, int, int] | None,
    edit: Callable[[np.ndarray, int], np.ndarray],
) -> Iterator[av.VideoFrame]:
    for number in range(count):
        image = np.zeros((height, width, 3), np.uint8)
        for bit in range(8):
            left, right = bit * width // 8, (bit + 1) * width // 8
            image[:, left:right] = 230 if number >> bit & 1 else 25
        if color is not None:
            image[:] = color
        frame = av.VideoFrame.from_ndarray(edit(image, number), format="rgb24")
        frame.pts = number
        yield frame


def _tone(
    tone_hz: float, loudness: float, seconds: float, rate_hz: int, layout: str
) -> Iterator[av.AudioFrame]:
    channels = av.AudioLayout(layout).nb_channels
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = (loudness * np.sin(2 * np.pi * tone_hz * times)).astype(np.float32)
    for first in range(0, len(wave), 1024):
        part = np.ascontiguousarray(np.tile(wave[None, first : first + 1024], (channels, 1)))
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, first
        frame.time_base = Fraction(1, rate_hz)
        yield frame
