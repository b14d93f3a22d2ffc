"""Sound of a media file -> mono PCM at a set rate, its level.

Also the one place where a media file is opened: from memory, with demuxers of files only, so that a
playlist named ``.mp4`` cannot make FFmpeg fetch anything, and with the decoders that are needed, so
that no other one is started to find out what a file holds.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from numpy.typing import NDArray

if TYPE_CHECKING:
    AnyPacket: TypeAlias = Packet[Any]
else:  # the class takes no parameter at run time
    AnyPacket = Packet

VIDEO_DEMUXERS = "mov,matroska"
SOUND_DEMUXERS = VIDEO_DEMUXERS + ",wav,flac,ogg,mp3,aac,aiff"
VIDEO_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4")
"""Codecs of pictures that are decoded; another is a rejection."""
SOUND_CODECS = (
    *("aac", "mp3", "ac3", "opus", "vorbis", "flac", "alac"),
    *("pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
    *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw"),
)
"""Codecs of sound that are decoded; another counts as sound that cannot be."""
FLOOR_DBFS = -120.0
"""Levels are given no lower than this: silence has none."""

_MARGIN_S = 0.1
"""Decoded beside a window, since the first packets of a decoder are not yet right."""
_MAX_DAMAGED_SHARE = 0.1
_JOINED_SAMPLES = 1 << 17
"""Resampled at once: fewer cost more calls, more outgrow the processor's cache."""
_HOLE_S, _LONGEST_HOLE_S = 0.1, 60.0
_RATES_HZ = 1000, 768_000
_MAX_FORMS = 16
_DECODERS = ",".join((*VIDEO_CODECS, "libdav1d", *SOUND_CODECS, "mp3float"))


@dataclass(frozen=True, kw_only=True)
class Track:
    """Decoded sound."""

    waveform: NDArray[np.float32]
    """Mono, in [-1, 1], of the asked rate: float32 [t]."""
    start_s: float = 0.0
    """When it begins, on the stream's clock."""
    error: str = ""
    """What went wrong in decoding; the waveform ends there."""


def open_media(content: bytes | BinaryIO, demuxers: str = VIDEO_DEMUXERS) -> InputContainer:
    """Opens a file in memory or an open one. Raises ``av.FFmpegError`` if none of ``demuxers``."""
    return av.open(
        io.BytesIO(content) if isinstance(content, bytes) else content,
        mode="r",
        container_options={
            "format_whitelist": demuxers,
            "protocol_whitelist": "file",
            "codec_whitelist": _DECODERS,
        },
        metadata_errors="replace",
        buffer_size=1 << 17,
    )


def read_sound(
    source: bytes | Path, sample_rate_hz: int, *, max_s: float = 600.0
) -> NDArray[np.float32]:
    """The mono waveform, in [-1, 1], of a sound file or of a video's sound track: float32 [t].

    Raises FileNotFoundError, and ValueError where it holds no sound or more than ``max_s`` of it.
    """
    name = "this file" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with open_media(content, SOUND_DEMUXERS) as container:
            if not container.streams.audio:
                raise ValueError(f"{name} holds no sound")
            stream = container.streams.audio[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            track = decode_track(packets, stream, sample_rate_hz, max_s=max_s)
    except FFmpegError as error:
        raise ValueError(f"{name} is no sound file that can be read: {error.strerror}") from None
    if track.error or not len(track.waveform):
        raise ValueError(f"{name} holds no usable sound: {track.error or 'it is empty'}")
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
    """Decodes and resamples what sounds between two moments of the stream's own clock.

    Packets that cannot be decoded are passed over, as players do, up to a tenth of them. Raises
    MemoryError, and nothing else that is the stream's fault.
    """
    if refusal := sound_refusal(stream):
        return Track(waveform=np.zeros(0, np.float32), error=refusal)
    decoder = SoundDecoder(stream, sample_rate_hz)
    inside = _overlapping(packets, start_s - _MARGIN_S, end_s + _MARGIN_S)
    try:
        for packet in inside:
            decoder.feed(packet)
            if decoder.fed_s > max_s:
                raise ValueError(f"more than {max_s:g} s of sound")
        decoder.finish()
        waveform, begins_s = decoder.take(), decoder.begins_s or 0.0
    except MemoryError:
        raise
    except (FFmpegError, ValueError, ArithmeticError) as failure:
        return Track(waveform=np.zeros(0, np.float32), error=str(failure))
    if decoder.damaged > _MAX_DAMAGED_SHARE * len(inside):
        error = f"{decoder.damaged} of {len(inside)} packets are damaged"
        return Track(waveform=waveform[:0], error=error)
    first = round(max(start_s - begins_s, 0.0) * sample_rate_hz)
    last = round(max(min(end_s - begins_s, max_s), 0.0) * sample_rate_hz)
    inside_window = waveform[first:last]
    if not np.isfinite(inside_window).all():
        return Track(waveform=waveform[:0], error="samples that are no numbers")
    return Track(waveform=np.clip(inside_window, -1.0, 1.0), start_s=max(begins_s, start_s))


def level_dbfs(waveform: NDArray[np.float32]) -> float:
    """RMS level relative to full scale, dB."""
    if not len(waveform):
        return FLOOR_DBFS
    return _decibels(math.sqrt(float(np.mean(np.square(waveform, dtype=np.float64)))))


def peak_dbfs(waveform: NDArray[np.float32]) -> float:
    """Largest magnitude relative to full scale, dB."""
    return _decibels(float(np.max(np.abs(waveform), initial=0.0)))


def sound_refusal(stream: AudioStream) -> str:
    """Why a stream is not decoded at all; empty: it is."""
    context = cast(Any, stream.codec_context)
    if context is None or context.codec.canonical_name not in SOUND_CODECS:
        name = "unknown" if context is None else context.codec.canonical_name
        return f"sound codec {name} is none of {', '.join(SOUND_CODECS)}"
    rate_hz: int = context.sample_rate
    if not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
        return f"a sample rate of {rate_hz} Hz"
    return ""


class SoundDecoder:
    """Packets in, resampled mono out. Frames are joined first: each step of a resampler is dear.

    ``feed`` raises FFmpegError, ValueError or ArithmeticError where the stream cannot be read on.
    """

    def __init__(self, stream: AudioStream, sample_rate_hz: int) -> None:
        self._context: Any = stream.codec_context
        self._rate_hz = sample_rate_hz
        self._form: tuple[str, str, int] | None = None
        self._forms = 0
        self._parts: list[NDArray[np.float32]] = []
        self.begins_s: float | None = None
        self.fed_s = 0.0
        self.damaged = 0

    def feed(self, packet: AnyPacket | None) -> None:
        """Decodes a packet; None: what the decoder still holds."""
        try:
            frames = self._context.decode(packet)
        except InvalidDataError:
            self.damaged += 1
            return
        for frame in cast("list[AudioFrame]", frames):
            time_s = frame.time
            if self.begins_s is None:
                self.begins_s = float(time_s or 0.0)
            frame.pts = None
            self._take_form(frame)
            hole_s = (time_s or 0.0) - self.begins_s - self.fed_s
            if hole_s > _HOLE_S:
                self._fill(frame, hole_s)
            self.fed_s += frame.samples / frame.sample_rate
            self._decoded.write(frame)
            if self._decoded.samples >= _JOINED_SAMPLES:
                self._resample(self._decoded.read())

    def finish(self) -> None:
        """Decodes what is left; nothing may be fed thereafter."""
        self.feed(None)
        self._drain()

    def take(self) -> NDArray[np.float32]:
        """The waveform since the last call; some seconds lag behind what was fed."""
        parts, self._parts = self._parts, []
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _take_form(self, frame: AudioFrame) -> None:
        """Begins anew where channels or rate change: ``AudioFifo`` would read past the frame."""
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if form == self._form:
            return
        self._drain()
        self._form, self._forms = form, self._forms + 1
        if self._forms > _MAX_FORMS:
            raise ValueError(f"channels or rate change more than {_MAX_FORMS} times")
        self._decoded = AudioFifo()
        # Weights that sum to 1: FFmpeg's own for floats make stereo 3 dB louder, and clip.
        self._resampler = AudioResampler(
            format="flt", layout="mono", rate=self._rate_hz, options={"rematrix_maxval": "1"}
        )

    def _fill(self, frame: AudioFrame, hole_s: float) -> None:
        """Silence where packets are missing: what follows would slide forward."""
        if hole_s > _LONGEST_HOLE_S:
            raise ValueError(f"a hole of {hole_s:.1f} s")
        samples = round(hole_s * frame.sample_rate)
        like = frame.to_ndarray()
        shape = like.shape[0], like.shape[1] // frame.samples * samples
        zeros: Any = np.zeros(shape, like.dtype)
        silence = AudioFrame.from_ndarray(zeros, format=frame.format.name, layout=frame.layout.name)
        silence.sample_rate = frame.sample_rate
        self._decoded.write(silence)
        self.fed_s += samples / frame.sample_rate

    def _drain(self) -> None:
        if self._form is None:
            return
        if self._decoded.samples:
            self._resample(self._decoded.read())
        self._resample(None)

    def _resample(self, frame: AudioFrame | None) -> None:
        for resampled in self._resampler.resample(frame and _mono(frame)):
            self._parts.append(_channel(resampled, 0))


def _mono(frame: AudioFrame) -> AudioFrame:
    """Stereo as its mean, which FFmpeg would only take after resampling both channels."""
    if (frame.format.name, frame.layout.name) != ("fltp", "stereo"):
        return frame
    mean = _channel(frame, 0) + _channel(frame, 1)
    mean *= np.float32(0.5)
    mono = AudioFrame.from_ndarray(cast(Any, mean[None]), format="fltp", layout="mono")
    mono.sample_rate = frame.sample_rate
    return mono


def _channel(frame: AudioFrame, number: int) -> NDArray[np.float32]:
    """One plane of a frame of floats, not copied as ``to_ndarray`` would: float32 [t]."""
    plane: Any = frame.planes[number]
    return np.frombuffer(plane, np.float32, frame.samples)


def _overlapping(packets: Sequence[AnyPacket], start_s: float, end_s: float) -> list[AnyPacket]:
    """Packets that sound between two moments; whole numbers are compared, for there are many."""
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
