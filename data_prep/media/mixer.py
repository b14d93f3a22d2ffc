"""Mixes the channels of sound to one."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray


class Mixer:
    """Mixes frames to mono, and measures their channels.

    Args:
        channel: the only channel to use; None mixes all.
    """

    def __init__(self, channel: int | None = None) -> None:
        self._only = channel
        self._energies = [0.0]
        self._samples = 0

    def mix(self, frame: AudioFrame) -> AudioFrame:
        """One channel, or all of them for FFmpeg to mix.

        Stereo becomes the mean of its channels here, because FFmpeg would resample both first.
        """
        count = frame.layout.nb_channels
        if count == 1:
            return frame
        channels = _channels(frame)
        self._measure(channels)
        if self._only is not None:
            return _mono(channels[min(self._only, count - 1)], frame.sample_rate)
        if (frame.format.name, frame.layout.name) != ("fltp", "stereo"):
            return frame
        mean = channels[0] + channels[1]
        mean *= np.float32(0.5)
        return _mono(mean, frame.sample_rate)

    def loudest(self) -> tuple[int, float]:
        """The loudest channel so far and its root mean square; 0 and 0 if all sound is mono."""
        energy = max(self._energies)
        return self._energies.index(energy), math.sqrt(energy / max(self._samples, 1))

    def _measure(self, channels: Sequence[NDArray[np.float32]]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            energies = [float(np.dot(channel, channel)) for channel in channels]
        if not math.isfinite(sum(energies)):
            return  # a damaged block
        self._energies += [0.0] * (len(energies) - len(self._energies))
        for number, energy in enumerate(energies):
            self._energies[number] += energy
        self._samples += len(channels[0])


def plane_of(frame: AudioFrame, number: int) -> NDArray[np.float32]:
    """A view of one plane of a frame of floats (``to_ndarray`` would copy): float32 [t]."""
    plane: Any = frame.planes[number]
    return np.frombuffer(plane, np.float32, frame.samples)


def _mono(samples: NDArray[np.float32], rate_hz: int) -> AudioFrame:
    mono = AudioFrame.from_ndarray(cast(Any, samples[None]), format="fltp", layout="mono")
    mono.sample_rate = rate_hz
    return mono


def _channels(frame: AudioFrame) -> list[NDArray[np.float32]]:
    """The channels of a frame, full scale 1: float32 [t] each."""
    count = frame.layout.nb_channels
    if frame.format.name == "fltp":
        return [plane_of(frame, number) for number in range(count)]
    values: Any = frame.to_ndarray()
    planes = values if frame.format.is_planar else values.reshape(-1, count).T
    return [_full_scale_1(plane) for plane in planes]


def _full_scale_1(plane: NDArray[Any]) -> NDArray[np.float32]:
    if plane.dtype.kind == "f":
        return plane.astype(np.float32)
    half = 1 << (8 * plane.dtype.itemsize - 1)
    offset = half if plane.dtype.kind == "u" else 0
    return ((plane.astype(np.float64) - offset) / half).astype(np.float32)
