"""Reads the sound of a video in windows, while its frames are colorized."""

import itertools
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from av.error import FFmpegError
from av.stream import Discard
from numpy.typing import NDArray

from data_prep.media.container import FILM_DEMUXERS, AnyPacket, open_media
from data_prep.media.sound import SoundDecoder, decode_track, sound_refusal

_PROBED_S = 60.0


class SoundWindows:
    """Windows of the first sound stream, at increasing times.

    It reads the file by itself, so it does not matter how sound and frames are interleaved, and
    keeps little more than one window. At its start and end, windows are shifted into the sound.
    """

    def __init__(self, file: BinaryIO, sample_rate_hz: int, window_s: float) -> None:
        """Args:
        file: the video, opened only for this reader.
        sample_rate_hz: sample rate of the windows.
        window_s: length of the windows.

        Raises:
            av.FFmpegError: the file cannot be read.
        """
        self._rate_hz = sample_rate_hz
        self._window = round(window_s * sample_rate_hz)
        self._samples = np.zeros(0, np.float32)
        self._first_kept = 0
        self._start_s: float | None = None
        self._packets_read = self._packets_damaged = 0
        self._decoder: SoundDecoder | None = None  # until the end of the sound
        channel = _audible_channel(file, sample_rate_hz)
        self._container = open_media(file, FILM_DEMUXERS)
        stream = next(iter(self._container.streams.audio), None)
        self._problem = "no sound" if stream is None else sound_refusal(stream)
        if stream is None or self._problem:
            return
        for other in self._container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        self._packets: Iterator[AnyPacket] = self._container.demux(stream)
        self._decoder = SoundDecoder(stream, sample_rate_hz, channel)

    @property
    def notes(self) -> list[str]:
        """Why there is no sound, or where it ends early, and how much of it was damaged."""
        damaged = f"{self._packets_damaged} of {self._packets_read} sound packets damaged"
        return [*filter(None, [self._problem]), *([damaged] if self._packets_damaged else [])]

    def close(self) -> None:
        """Close the container."""
        self._container.close()

    def at(self, time_s: float) -> NDArray[np.float32] | None:
        """Mono sound [t] around a time of the file's clock; None if there is no sound."""
        while self._start_s is None and self._decoder is not None:
            self._read_packet(self._decoder)
        if self._start_s is None:
            return None
        middle = round((time_s - self._start_s) * self._rate_hz)
        first = max(middle - self._window // 2, 0)
        while self._total < first + self._window and self._decoder is not None:
            self._read_packet(self._decoder)
        if not -self._window // 2 <= middle <= self._total + self._window // 2:
            return None
        first = max(min(first, self._total - self._window), self._first_kept)
        self._samples = self._samples[first - self._first_kept :]
        self._first_kept = first
        window = self._samples[: self._window]
        return np.clip(window, -1, 1) if len(window) and np.isfinite(window).all() else None

    @property
    def _total(self) -> int:
        return self._first_kept + len(self._samples)

    def _read_packet(self, decoder: SoundDecoder) -> None:
        """Decode one more packet; if that fails, the sound ends here, and the notes say why."""
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
            self._problem = f"no sound after {self._total / self._rate_hz:.1f} s: {error}"
        self._packets_damaged = decoder.damaged
        taken = decoder.take()
        self._start_s = decoder.start_s
        if len(taken):
            self._samples = np.concatenate((self._samples, taken))


def _audible_channel(file: BinaryIO, sample_rate_hz: int) -> int | None:
    """The only channel to use, if the channels cancel each other in the first minute of a video."""
    with open_media(file, FILM_DEMUXERS) as container:
        stream = next(iter(container.streams.audio), None)
        channel = None
        if stream is not None and not sound_refusal(stream):
            probed = itertools.takewhile(_is_probed, container.demux(stream))
            packets = [packet for packet in probed if packet.size]
            channel = decode_track(packets, stream, sample_rate_hz).channel
    file.seek(0)
    return channel


def _is_probed(packet: AnyPacket) -> bool:
    start = packet.stream.start_time or 0
    return packet.pts is None or float((packet.pts - start) * packet.time_base) < _PROBED_S
