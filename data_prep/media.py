"""One clip -> pictures and mono sound, or the reason why not. The file is opened once.

A picture is the frame that is on screen at the asked time, exactly: only the packets from the key
frame before it are decoded, and of those only the ones that others refer to. Pictures keep their
aspect ratio, with the short side at ``size_px`` (a smaller source is scaled up, so that a crop of
``size_px`` always fits), rotation metadata and non-square pixels applied. They are JPEG without
chroma subsampling, since chroma is what is learned. A file that names no colour matrix is read as
BT.601, as FFmpeg does. Sound is 16-bit mono FLAC.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import av
import numpy as np
import simplejpeg  # pyright: ignore[reportMissingTypeStubs]
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_prep.catalog import Clip
from data_prep.sound import (
    FLOOR_DBFS,
    AnyPacket,
    Track,
    decode_track,
    encode_flac,
    level_dbfs,
    open_media,
    peak_dbfs,
    read_sound,
)

__all__ = [
    "MediaSettings",
    "Reason",
    "Rejection",
    "Sample",
    "SoundFate",
    "read_clip",
    "read_sound",
]

VIDEO_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4")
"""Codecs that are decoded; another is a rejection."""
_SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.BITEXACT
)

Reason: TypeAlias = Literal[
    "missing", "undecodable", "too_large", "too_long", "too_short", "no_picture", "no_sound"
]
"""Why a clip gives no sample."""
SoundFate: TypeAlias = Literal["kept", "absent", "silent", "too_short", "undecodable"]
"""What became of a clip's sound; only ``kept`` is in the shard."""


@dataclass(frozen=True, kw_only=True)
class MediaSettings:
    """What is taken from a clip, and the caps that keep a hostile file in bounds."""

    size_px: int | None = 96
    """Short side of the pictures; None: as in the source."""
    pictures: int = 1
    """Pictures per clip, at the middles of as many equal parts of the window: 1 is its middle."""
    jpeg_quality: int = 95
    """Quality of the JPEG pictures, 1 to 100."""
    sample_rate_hz: int = 16000
    """Sample rate of the sound."""
    require_sound: bool = False
    """Refuse a clip without usable sound, instead of writing it as such."""
    silence_dbfs: float = -60.0
    """Sound under this RMS level counts as none."""
    min_s: float = 1.0
    """Shortest video or event."""
    min_sound_s: float = 0.5
    """Shorter sound counts as none."""
    max_s: float = 600.0
    """Longest file."""
    max_pixels: int = 4096 * 2304
    """Largest frame."""
    max_aspect: float = 8.0
    """Largest ratio of a picture's sides."""
    max_bytes: int = 1 << 27
    """Largest file."""

    def __post_init__(self) -> None:
        if self.size_px is not None and not 16 <= self.size_px <= 4096:
            raise ValueError(f"size_px is {self.size_px}: give 16 to 4096")
        if not 1 <= self.pictures <= 100:
            raise ValueError(f"pictures is {self.pictures}: give 1 to 100")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality is {self.jpeg_quality}: give 1 to 100")
        if not 4000 <= self.sample_rate_hz <= 192000:
            raise ValueError(f"sample_rate_hz is {self.sample_rate_hz}: give 4000 to 192000")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One clip as a shard holds it."""

    key: str
    pictures: tuple[bytes, ...]
    """JPEG, 4:4:4."""
    requested_s: tuple[float, ...]
    """Times asked for, in the file, one per picture."""
    actual_s: tuple[float, ...]
    """Times of the frames that were on screen then."""
    width: int
    """Of the pictures."""
    height: int
    """Of the pictures."""
    source_width: int
    """Of the frames in the file, before rotation."""
    source_height: int
    """Of the frames in the file, before rotation."""
    sound: bytes
    """FLAC, 16 bit, mono; empty: no usable sound."""
    sound_fate: SoundFate
    sound_s: float
    """Length of the sound that is kept; 0 where none is."""
    rms_dbfs: float
    """Level of the sound in the window, kept or not; -120 at the least."""
    peak_dbfs: float
    """Its largest magnitude; -120 at the least."""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A clip that gives no sample."""

    key: str
    reason: Reason
    detail: str
    """What was found, for people."""


class _RejectedError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: Reason = reason
        self.detail = detail


def read_clip(source: bytes | Path, clip: Clip, settings: MediaSettings) -> Sample | Rejection:
    """Decodes one clip from its content or its path. What a file does never raises."""
    try:
        return _read(_content(source, settings.max_bytes), clip, settings)
    except _RejectedError as rejected:
        return Rejection(key=clip.key, reason=rejected.reason, detail=rejected.detail)
    except (FFmpegError, ValueError, ArithmeticError, MemoryError) as error:
        detail = f"{type(error).__name__}: {error}"[:200]
        return Rejection(key=clip.key, reason="undecodable", detail=detail)


@dataclass(frozen=True, kw_only=True)
class _Window:
    """The part of a file that makes a sample, seconds from its beginning."""

    start_s: float
    end_s: float
    sound_end_s: float
    """Infinite for a whole file, whose sound may outlast its pictures."""


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A picture to take: when it is asked for, and the packets that hold it."""

    requested_s: float
    pts: int
    first: int
    """Packet, by its number in decoding order, with the key frame it depends on."""
    last: int
    """The packet that holds it."""


def _read(content: bytes, clip: Clip, settings: MediaSettings) -> Sample:
    # Streams must not be asked for anything after their container is closed.
    with open_media(content) as container:
        video = _video_stream(container, settings)
        audio = next(iter(container.streams.audio), None)
        origin_s = (container.start_time or 0) / av.time_base
        packets = [p for p in container.demux(*filter(None, (video, audio))) if p.size]
        frames = [p for p in packets if p.stream_index == video.index]
        window = _window(frames, video, origin_s, clip, settings)
        targets = _targets(frames, video, origin_s, window, settings)
        pictures = [_upright_image(f, video, settings) for f in _decode(frames, video, targets)]
        actual_s = [_seconds(target.pts, video) - origin_s for target in targets]
        source_size = video.codec_context.width, video.codec_context.height
        track = None
        if audio is not None:
            track = decode_track(
                [p for p in packets if p.stream_index == audio.index],
                audio,
                settings.sample_rate_hz,
                start_s=origin_s + window.start_s,
                end_s=origin_s + window.sound_end_s,
                max_s=settings.max_s,
            )
    sound, fate = _usable_sound(track, settings)
    if settings.require_sound and fate != "kept":
        raise _RejectedError("no_sound", fate)
    return Sample(
        key=clip.key,
        pictures=tuple(_jpeg(image, settings) for image in pictures),
        requested_s=tuple(round(target.requested_s, 6) for target in targets),
        actual_s=tuple(round(time_s, 6) for time_s in actual_s),
        width=pictures[0].shape[1],
        height=pictures[0].shape[0],
        source_width=source_size[0],
        source_height=source_size[1],
        sound=sound,
        sound_fate=fate,
        sound_s=len(track.waveform) / settings.sample_rate_hz if track and sound else 0.0,
        rms_dbfs=round(level_dbfs(track.waveform), 3) if track else FLOOR_DBFS,
        peak_dbfs=round(peak_dbfs(track.waveform), 3) if track else FLOOR_DBFS,
    )


def _content(source: bytes | Path, max_bytes: int) -> bytes:
    if isinstance(source, bytes):
        size = len(source)
    elif source.is_file():
        size = source.stat().st_size
    else:
        raise _RejectedError("missing", f"{source} is not there")
    if size > max_bytes:
        raise _RejectedError("too_large", f"{size} bytes; at most {max_bytes} are read")
    return source if isinstance(source, bytes) else source.read_bytes()


def _video_stream(container: InputContainer, settings: MediaSettings) -> VideoStream:
    """The first stream of moving pictures, its decoder made ready."""
    streams = [s for s in container.streams.video if "attached_pic" not in str(s.disposition)]
    if not streams:
        raise _RejectedError("no_picture", "no video stream")
    video = streams[0]
    context: Any = video.codec_context
    if context is None or context.codec.canonical_name not in VIDEO_CODECS:
        name = "unknown" if context is None else context.codec.canonical_name
        raise _RejectedError(
            "undecodable", f"video codec {name} is none of {', '.join(VIDEO_CODECS)}"
        )
    if context.width * context.height > settings.max_pixels:
        raise _RejectedError("too_large", f"frames of {context.width}x{context.height} pixels")
    declared_s = (container.duration or 0) / av.time_base
    if declared_s > settings.max_s:
        raise _RejectedError(
            "too_long", f"{declared_s:.1f} s; at most {settings.max_s:g} s are read"
        )
    # One thread, so that what to skip can be told from packet to packet.
    context.thread_count = 1
    context.options = {"max_pixels": str(settings.max_pixels)}
    return video


def _window(
    frames: Sequence[AnyPacket],
    video: VideoStream,
    origin_s: float,
    clip: Clip,
    settings: MediaSettings,
) -> _Window:
    """The clip's window, cut to what the file really holds."""
    ends = [(p.pts or 0) + (p.duration or 0) for p in frames]
    if not ends:
        raise _RejectedError("no_picture", "no frames")
    end_s = _seconds(max(ends), video) - origin_s
    if end_s > settings.max_s:
        raise _RejectedError("too_long", f"{end_s:.1f} s; at most {settings.max_s:g} s are read")
    if video.duration is not None:
        declared_s = _seconds((video.start_time or 0) + video.duration, video) - origin_s
        if any(p.is_corrupt for p in frames) or declared_s - end_s > 0.5:
            raise _RejectedError("undecodable", f"cut off at {end_s:.2f} of {declared_s:.2f} s")
    window = _Window(
        start_s=clip.event_start_s,
        end_s=end_s if clip.event_end_s is None else min(clip.event_end_s, end_s),
        sound_end_s=math.inf if clip.event_end_s is None else clip.event_end_s,
    )
    length_s = window.end_s - window.start_s
    if length_s < settings.min_s - 1e-3:
        raise _RejectedError("too_short", f"{max(length_s, 0):.2f} s of {settings.min_s:g} s")
    return window


def _targets(
    frames: Sequence[AnyPacket],
    video: VideoStream,
    origin_s: float,
    window: _Window,
    settings: MediaSettings,
) -> list[_Target]:
    """Pictures to take, at the middles of equal parts of the window, in order of time."""
    shown = sorted(
        (p.pts, number) for number, p in enumerate(frames) if p.pts is not None and not p.is_discard
    )
    keys = [n for n, p in enumerate(frames) if p.is_keyframe and p.pts is not None]
    targets: list[_Target] = []
    for position in range(settings.pictures):
        share = (position + 0.5) / settings.pictures
        requested_s = window.start_s + share * (window.end_s - window.start_s)
        latest_pts = math.floor((origin_s + requested_s + 1e-6) / _seconds(1, video))
        shown_so_far = bisect.bisect_right(shown, (latest_pts, len(frames)))
        if not shown_so_far:
            raise _RejectedError("no_picture", f"no frame at {requested_s:.2f} s")
        pts, last = shown[shown_so_far - 1]
        starts = [n for n in keys if n <= last and (frames[n].pts or 0) <= pts]
        if not starts:
            raise _RejectedError("no_picture", f"no key frame before {requested_s:.2f} s")
        targets.append(_Target(requested_s=requested_s, pts=pts, first=starts[-1], last=last))
    return targets


def _decode(
    frames: Sequence[AnyPacket], video: VideoStream, targets: Sequence[_Target]
) -> list[VideoFrame]:
    """The targets' frames. A frame that is neither wanted nor referred to is skipped."""
    wanted = {target.pts for target in targets}
    taken: dict[int, VideoFrame] = {}
    context: Any = video.codec_context
    for first, group in groupby(targets, key=lambda target: target.first):
        last = max(target.last for target in group)
        for packet in [*frames[first : last + 1], None]:
            needed = packet is None or packet.pts in wanted
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            for frame in cast("list[VideoFrame]", context.decode(packet)):
                if frame.pts in wanted:
                    taken[frame.pts] = frame
        context.flush_buffers()
    for target in targets:
        if target.pts not in taken:
            raise _RejectedError("undecodable", f"no frame comes out at {target.requested_s:.2f} s")
    return [taken[target.pts] for target in targets]


def _usable_sound(track: Track | None, settings: MediaSettings) -> tuple[bytes, SoundFate]:
    if track is None:
        return b"", "absent"
    if track.error:
        return b"", "undecodable"
    if len(track.waveform) < settings.min_sound_s * settings.sample_rate_hz:
        return b"", "too_short" if len(track.waveform) else "absent"
    if level_dbfs(track.waveform) < settings.silence_dbfs:
        return b"", "silent"
    return encode_flac(track.waveform, settings.sample_rate_hz), "kept"


def _upright_image(
    frame: VideoFrame, video: VideoStream, settings: MediaSettings
) -> NDArray[np.uint8]:
    """A frame as sRGB, scaled and upright: uint8 [h w 3].

    By way of RGB, since FFmpeg loses up to two levels when it goes from one YCbCr to another.
    """
    aspect = float(video.sample_aspect_ratio or 1)
    width, height = frame.width * aspect, float(frame.height)
    if max(width, height) > settings.max_aspect * min(width, height):
        raise _RejectedError("no_picture", f"a picture of {width:.0f}x{height:.0f} is too oblong")
    scale = 1.0 if settings.size_px is None else settings.size_px / min(width, height)
    scaled = frame.reformat(
        width=round(width * scale),
        height=round(height * scale),
        format="rgb24",
        interpolation=_SCALING,
        threads=1,
    )
    image = np.asarray(scaled.to_ndarray(), dtype=np.uint8)
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))


def _jpeg(image: NDArray[np.uint8], settings: MediaSettings) -> bytes:
    encode: Any = simplejpeg.encode_jpeg
    return bytes(encode(image, quality=settings.jpeg_quality, colorsubsampling="444"))


def _seconds(ticks: int, video: VideoStream) -> float:
    return float(ticks * (video.time_base or Fraction(1, av.time_base)))
