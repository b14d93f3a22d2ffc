"""The sound of a video, window by window, read while its pictures are coloured."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from av.error import FFmpegError
from av.stream import Discard
from numpy.typing import NDArray

from data_prep.media.sound import AnyPacket, SoundDecoder, open_media, sound_refusal


class SoundWindows:
    """Windows of the first sound stream around moments that only move forward.

    It reads the file by itself, no matter how sound and pictures are interleaved, and holds little
    more than a window. At the beginning and the end of the sound, windows lie inside it.
    """

    def __init__(self, file: BinaryIO, sample_rate_hz: int, window_s: float) -> None:
        """Args:
        file: the video, opened for this alone.
        sample_rate_hz: of the windows.
        window_s: their length.

        Raises:
            av.FFmpegError: it is none that can be read.
        """
        self._rate_hz = sample_rate_hz
        self._samples = round(window_s * sample_rate_hz)
        self._heard = np.zeros(0, np.float32)
        self._heard_first = 0
        self._begins_s: float | None = None
        self._packets_read = self._packets_damaged = 0
        self._decoder: SoundDecoder | None = None  # as long as there is more to hear
        self._container = open_media(file)
        stream = next(iter(self._container.streams.audio), None)
        self._refusal = "no sound" if stream is None else sound_refusal(stream)
        if stream is None or self._refusal:
            return
        for other in self._container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        self._packets: Iterator[AnyPacket] = self._container.demux(stream)
        self._decoder = SoundDecoder(stream, sample_rate_hz)

    @property
    def notes(self) -> list[str]:
        """Why there is no sound, or none from some moment on, and what of it was damaged."""
        damaged = f"{self._packets_damaged} of {self._packets_read} sound packets damaged"
        return [*filter(None, [self._refusal]), *([damaged] if self._packets_damaged else [])]

    def close(self) -> None:
        """Leave the file."""
        self._container.close()

    def at(self, time_s: float) -> NDArray[np.float32] | None:
        """Mono sound [t] around a moment of the file's clock; None where there is none."""
        while self._begins_s is None and self._decoder is not None:
            self._hear_on(self._decoder)
        if self._begins_s is None:
            return None
        middle = round((time_s - self._begins_s) * self._rate_hz)
        first = max(middle - self._samples // 2, 0)
        while self._total < first + self._samples and self._decoder is not None:
            self._hear_on(self._decoder)
        if not -self._samples // 2 <= middle <= self._total + self._samples // 2:
            return None
        first = max(min(first, self._total - self._samples), self._heard_first)
        self._heard = self._heard[first - self._heard_first :]
        self._heard_first = first
        window = self._heard[: self._samples]
        return np.clip(window, -1, 1) if len(window) and np.isfinite(window).all() else None

    @property
    def _total(self) -> int:
        return self._heard_first + len(self._heard)

    def _hear_on(self, decoder: SoundDecoder) -> None:
        """Hear one more packet; where that fails, the sound ends, and the notes say why."""
        try:
            packet = next(self._packets, None)
            if packet is None:
                decoder.finish()
                self._decoder = None
            elif packet.size:
                self._packets_read += 1
                decoder.feed(packet)
        except (FFmpegError, ValueError, ArithmeticError) as error:
            self._decoder = None
            self._refusal = f"no sound after {self._total / self._rate_hz:.1f} s: {error}"
        self._packets_damaged = decoder.damaged
        taken = decoder.take()
        self._begins_s = decoder.begins_s
        if len(taken):
            self._heard = np.concatenate((self._heard, taken))
