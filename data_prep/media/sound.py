"""Decodes the sound of a media file to mono PCM at a given sample rate, and measures its level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.error import FFmpegError, InvalidDataError
from numpy.typing import NDArray

from data_prep.media.container import SOUND_CODECS, SOUND_DEMUXERS, AnyPacket, open_media
from data_prep.media.mixer import Mixer, plane_of

FLOOR_DBFS = -120.0
"""The lowest level reported; silence has no level in dB."""

_MARGIN_S = 0.1
"""Decoded around a window, because a decoder's first packets come out wrong."""
_MAX_DAMAGED_SHARE = 0.1
_BLOCK_SAMPLES = 1 << 17
"""Resampled at a time: smaller blocks take more calls, larger ones outgrow the CPU's cache."""
_MIN_GAP_S, _MAX_GAP_S = 0.1, 60.0
_CANCELLED = 0.1
"""A mix with less than this share of its loudest channel's amplitude is replaced by that channel:
its channels cancel each other, or FFmpeg leaves it out (LFE). One of six channels by itself keeps a
fifth in the mix."""
_RATES_HZ = 1000, 768_000
_MAX_FORMATS = 16


@dataclass(frozen=True, kw_only=True)
class Track:
    """Decoded sound."""

    waveform: NDArray[np.float32]
    """Mono samples in [-1, 1] at the requested rate: float32 [t]."""
    start_s: float = 0.0
    """When the waveform starts, on the stream's clock."""
    channel: int | None = None
    """The only channel that was used; None if all were mixed."""
    error: str = ""
    """Why the sound could not be decoded; empty if it could. The waveform is empty otherwise."""


def read_sound(
    source: bytes | Path, sample_rate_hz: int, *, max_s: float = 600.0
) -> NDArray[np.float32]:
    """The mono waveform, in [-1, 1], of a sound file or of a video's soundtrack: float32 [t].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it contains no usable sound, or more than ``max_s`` seconds of it.
    """
    name = "this file" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with open_media(content, SOUND_DEMUXERS) as container:
            if not container.streams.audio:
                raise ValueError(f"{name} contains no sound")
            stream = container.streams.audio[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            track = decode_track(packets, stream, sample_rate_hz, max_s=max_s)
    except FFmpegError as error:
        raise ValueError(f"{name} is not a readable sound file: {error.strerror}") from None
    if track.error or not len(track.waveform):
        raise ValueError(f"{name} contains no usable sound: {track.error or 'it is empty'}")
    return track.waveform


def decode_track(
    packets: Sequence[AnyPacket],
    stream: AudioStream,
    sample_rate_hz: int,
    *,
    start_s: float = -math.inf,
    end_s: float = math.inf,
    max_s: float = 600.0,
) -> Track:
    """Decodes and resamples the sound between two times on the stream's clock.

    Undecodable packets are skipped, as players do, up to a tenth of them. What is wrong with the
    stream is returned in ``Track.error``.

    Raises:
        MemoryError: decoding needs too much memory.
    """
    if refusal := sound_refusal(stream):
        return Track(waveform=np.zeros(0, np.float32), error=refusal)
    inside = _overlapping(packets, start_s - _MARGIN_S, end_s + _MARGIN_S)
    decoder = SoundDecoder(stream, sample_rate_hz)
    track = _decode(decoder, inside, start_s, end_s, max_s)
    loudest, rms = decoder.mixer.loudest()
    if track.error or _rms(track.waveform) >= rms * _CANCELLED:
        return track
    stream.codec_context.flush_buffers()
    track = _decode(SoundDecoder(stream, sample_rate_hz, loudest), inside, start_s, end_s, max_s)
    return replace(track, channel=loudest)


def _decode(
    decoder: "SoundDecoder",
    inside: Sequence[AnyPacket],
    start_s: float,
    end_s: float,
    max_s: float,
) -> Track:
    sample_rate_hz = decoder.sample_rate_hz
    try:
        for packet in inside:
            decoder.feed(packet)
            if decoder.fed_s > max_s:
                raise ValueError(f"more than {max_s:g} s of sound")
        decoder.finish()
        waveform, decoded_from_s = decoder.take(), decoder.start_s or 0.0
    except MemoryError:
        raise
    except (FFmpegError, ValueError, ArithmeticError) as failure:
        return Track(waveform=np.zeros(0, np.float32), error=str(failure))
    if decoder.damaged > _MAX_DAMAGED_SHARE * len(inside):
        error = f"{decoder.damaged} of {len(inside)} packets are damaged"
        return Track(waveform=waveform[:0], error=error)
    first = round(max(start_s - decoded_from_s, 0.0) * sample_rate_hz)
    last = round(max(min(end_s - decoded_from_s, max_s), 0.0) * sample_rate_hz)
    inside_window = waveform[first:last]
    if not np.isfinite(inside_window).all():
        return Track(waveform=waveform[:0], error="samples that are not numbers")
    return Track(waveform=np.clip(inside_window, -1.0, 1.0), start_s=max(decoded_from_s, start_s))


def level_dbfs(waveform: NDArray[np.float32]) -> float:
    """RMS level relative to full scale, in dB."""
    if not len(waveform):
        return FLOOR_DBFS
    return _decibels(math.sqrt(float(np.mean(np.square(waveform, dtype=np.float64)))))


def _rms(waveform: NDArray[np.float32]) -> float:
    return math.sqrt(float(np.dot(waveform, waveform)) / max(len(waveform), 1))


def peak_dbfs(waveform: NDArray[np.float32]) -> float:
    """Largest magnitude relative to full scale, in dB."""
    return _decibels(float(np.max(np.abs(waveform), initial=0.0)))


def sound_refusal(stream: AudioStream) -> str:
    """Why a stream is not decoded at all; empty if it is."""
    context = cast(Any, stream.codec_context)
    if context is None or context.codec.canonical_name not in SOUND_CODECS:
        name = "unknown" if context is None else context.codec.canonical_name
        return f"sound codec {name} is none of {', '.join(SOUND_CODECS)}"
    rate_hz: int = context.sample_rate
    if not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
        return f"a sample rate of {rate_hz} Hz"
    return ""


class SoundDecoder:
    """Takes packets and returns resampled mono.

    Frames are collected and resampled in blocks, because every call of the resampler is expensive.
    """

    def __init__(
        self, stream: AudioStream, sample_rate_hz: int, channel: int | None = None
    ) -> None:
        """Args:
        stream: the packets' stream.
        sample_rate_hz: sample rate of the result.
        channel: the only channel to use; None mixes all.
        """
        self._context: Any = stream.codec_context
        self.sample_rate_hz = sample_rate_hz
        self.mixer = Mixer(channel)
        self._format: tuple[str, str, int] | None = None
        self._formats = 0
        self._parts: list[NDArray[np.float32]] = []
        self.start_s: float | None = None
        """Time of the first sample on the stream's clock; None before the first frame."""
        self.fed_s = 0.0
        """Seconds of sound decoded so far."""
        self.damaged = 0
        """Packets skipped because they could not be decoded."""

    def feed(self, packet: AnyPacket | None) -> None:
        """Decodes a packet; None flushes the decoder.

        Raises:
            FFmpegError, ValueError, ArithmeticError: the rest of the stream cannot be decoded.
        """
        try:
            frames = self._context.decode(packet)
        except InvalidDataError:
            self.damaged += 1
            return
        for frame in cast("list[AudioFrame]", frames):
            time_s = frame.time
            if self.start_s is None:
                self.start_s = float(time_s or 0.0)
            frame.pts = None
            self._set_format(frame)
            gap_s = (time_s or 0.0) - self.start_s - self.fed_s
            if gap_s > _MIN_GAP_S:
                self._fill_gap(frame, gap_s)
            self.fed_s += frame.samples / frame.sample_rate
            self._decoded.write(frame)
            if self._decoded.samples >= _BLOCK_SAMPLES:
                self._resample(self._decoded.read())

    def finish(self) -> None:
        """Decodes and resamples what is left; nothing may be fed afterwards."""
        self.feed(None)
        self._drain()

    def take(self) -> NDArray[np.float32]:
        """The waveform since the last call; it lags some seconds behind what was fed."""
        parts, self._parts = self._parts, []
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _set_format(self, frame: AudioFrame) -> None:
        """Starts a new FIFO and resampler if channels or rate change.

        ``AudioFifo`` would read past the end of such a frame.
        """
        new_format = frame.format.name, frame.layout.name, frame.sample_rate
        if new_format == self._format:
            return
        self._drain()
        self._format, self._formats = new_format, self._formats + 1
        if self._formats > _MAX_FORMATS:
            raise ValueError(f"channels or rate change more than {_MAX_FORMATS} times")
        self._decoded = AudioFifo()
        # Weights that sum to 1: FFmpeg's default for floats makes stereo 3 dB louder and clips.
        self._resampler = AudioResampler(
            format="flt", layout="mono", rate=self.sample_rate_hz, options={"rematrix_maxval": "1"}
        )

    def _fill_gap(self, frame: AudioFrame, gap_s: float) -> None:
        """Inserts silence for missing packets; without it, later sound would move forward."""
        if gap_s > _MAX_GAP_S:
            raise ValueError(f"a gap of {gap_s:.1f} s")
        samples = round(gap_s * frame.sample_rate)
        like = frame.to_ndarray()
        shape = like.shape[0], like.shape[1] // frame.samples * samples
        zeros: Any = np.zeros(shape, like.dtype)
        silence = AudioFrame.from_ndarray(zeros, format=frame.format.name, layout=frame.layout.name)
        silence.sample_rate = frame.sample_rate
        self._decoded.write(silence)
        self.fed_s += samples / frame.sample_rate

    def _drain(self) -> None:
        if self._format is None:
            return
        if self._decoded.samples:
            self._resample(self._decoded.read())
        self._resample(None)

    def _resample(self, frame: AudioFrame | None) -> None:
        for resampled in self._resampler.resample(frame and self.mixer.mix(frame)):
            self._parts.append(plane_of(resampled, 0))


def _overlapping(packets: Sequence[AnyPacket], start_s: float, end_s: float) -> list[AnyPacket]:
    """Packets that sound between two times. Times are compared in ticks, which is faster."""
    if not packets or (math.isinf(start_s) and math.isinf(end_s)):
        return list(packets)
    tick_s = float(packets[0].time_base)
    first, last = start_s / tick_s, end_s / tick_s
    return [
        packet
        for packet in packets
        if (pts := packet.pts) is None or (pts <= last and pts + (packet.duration or 0) >= first)
    ]


def _decibels(magnitude: float) -> float:
    return max(20.0 * math.log10(magnitude), FLOOR_DBFS) if magnitude > 0.0 else FLOOR_DBFS
