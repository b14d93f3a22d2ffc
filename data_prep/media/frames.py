"""Which frames of a video are taken, and how they become upright sRGB pictures.

A picture is the frame that is on screen at the asked time, exactly: only the packets from the key
frame before it are decoded, and of those only the ones that others refer to. Pictures keep their
aspect ratio, with the short side at ``size_px`` (a smaller source is scaled up, so that a crop of
``size_px`` always fits), rotation metadata and non-square pixels applied; of an interlaced frame
one field is taken. A file that names no colour matrix is read as BT.601, as FFmpeg does.
"""

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_prep.media.orientation import turn_of
from data_prep.media.quality import letterbox
from data_prep.media.sample import Excerpt, MediaSettings, RejectedError
from data_prep.media.sound import VIDEO_CODECS, AnyPacket

_SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.BITEXACT
)
_WIDE_TRANSFERS = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
_WIDE_MATRICES = (9, 10)  # BT.2020
_MOTION_SIZE = 64, 36
_ROOM_BYTES_PER_PIXEL = 6  # two frames and more


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of a file that makes a sample, seconds from its beginning."""

    start_s: float
    end_s: float
    sound_end_s: float
    """Infinite for a whole file, whose sound may outlast its pictures."""
    file_end_s: float
    """Where the file's last picture ends."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A frame to decode: when it is asked for, and the packets that hold it."""

    requested_s: float
    pts: int
    first: int
    """Packet, by its number in decoding order, with the key frame it depends on."""
    last: int
    """The packet that holds it."""


def video_stream(container: InputContainer, settings: MediaSettings) -> VideoStream:
    """The first stream of moving pictures, its decoder made ready."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise RejectedError("no_picture", "no video stream")
    video = streams[0]
    context: Any = video.codec_context
    if context is None or context.codec.canonical_name not in VIDEO_CODECS:
        name = "unknown" if context is None else context.codec.canonical_name
        raise RejectedError(
            "undecodable", f"video codec {name} is none of {', '.join(VIDEO_CODECS)}"
        )
    if context.width * context.height > settings.max_pixels:
        raise RejectedError("too_large", f"frames of {context.width}x{context.height} pixels")
    declared_s = (container.duration or 0) / av.time_base
    if declared_s > settings.max_s:
        raise RejectedError(
            "too_long", f"{declared_s:.1f} s; at most {settings.max_s:g} s are read"
        )
    # One thread, so that what to skip can be told from packet to packet.
    context.thread_count = 1
    context.options = {"max_pixels": str(settings.max_pixels)}
    return video


def find_window(
    frames: Sequence[AnyPacket],
    video: VideoStream,
    origin_s: float,
    clip: Excerpt,
    settings: MediaSettings,
) -> Window:
    """The clip's window, cut to what the file really holds."""
    ends = [(p.pts or 0) + (p.duration or 0) for p in frames if not p.is_discard]
    if not ends:
        raise RejectedError("no_picture", "no frames")
    end_s = seconds(max(ends), video) - origin_s
    if end_s > settings.max_s:
        raise RejectedError("too_long", f"{end_s:.1f} s; at most {settings.max_s:g} s are read")
    if video.duration is not None:
        declared_s = seconds((video.start_time or 0) + video.duration, video) - origin_s
        if any(p.is_corrupt for p in frames) or declared_s - end_s > 0.5:
            raise RejectedError("undecodable", f"cut off at {end_s:.2f} of {declared_s:.2f} s")
    window = Window(
        start_s=clip.event_start_s,
        end_s=end_s if clip.event_end_s is None else min(clip.event_end_s, end_s),
        sound_end_s=math.inf if clip.event_end_s is None else clip.event_end_s,
        file_end_s=end_s,
    )
    length_s = window.end_s - window.start_s
    if length_s < settings.min_s - 1e-3:
        raise RejectedError("too_short", f"{max(length_s, 0):.2f} s of {settings.min_s:g} s")
    return window


def find_targets(
    frames: Sequence[AnyPacket],
    video: VideoStream,
    origin_s: float,
    window: Window,
    settings: MediaSettings,
) -> list[Target]:
    """Pictures to take, at the middles of equal parts of the window, in order of time."""
    shown = sorted(
        (p.pts, number) for number, p in enumerate(frames) if p.pts is not None and not p.is_discard
    )
    keys, all_keys = _key_frames(frames), _key_frames(frames, shown=False)
    part_s = (window.end_s - window.start_s) / settings.pictures
    targets: list[Target] = []
    for position in range(settings.pictures):
        requested_s = window.start_s + (position + 0.5) * part_s
        wanted_pts = (origin_s + requested_s + 1e-6) / seconds(1, video)
        near = [n for n in keys if abs(_pts(frames, n) - wanted_pts) <= part_s / 4 / _tick(video)]
        if settings.frames == "keyframe" and near:
            nearest = min(near, key=lambda n: abs(_pts(frames, n) - wanted_pts))
            targets.append(_at_key_frame(frames, nearest, requested_s))
            continue
        shown_so_far = bisect.bisect_right(shown, (math.floor(wanted_pts), len(frames)))
        if not shown_so_far:
            raise RejectedError("no_picture", f"no frame at {requested_s:.2f} s")
        pts, last = shown[shown_so_far - 1]
        starts = [n for n in all_keys if n <= last and _pts(frames, n) <= pts]
        if not starts:
            raise RejectedError("no_picture", f"no key frame before {requested_s:.2f} s")
        targets.append(Target(requested_s=requested_s, pts=pts, first=starts[-1], last=last))
    return targets


def outer_key_frames(
    frames: Sequence[AnyPacket], video: VideoStream, origin_s: float, window: Window
) -> list[Target]:
    """The first and the last key frame of the window: what tells a still picture at least cost."""
    times_s = {n: seconds(_pts(frames, n), video) - origin_s for n in _key_frames(frames)}
    inside = [n for n, time_s in times_s.items() if window.start_s <= time_s < window.end_s]
    ends = sorted({inside[0], inside[-1]}) if inside else []
    return [_at_key_frame(frames, n, times_s[n]) for n in ends]


def decode(
    frames: Sequence[AnyPacket], video: VideoStream, targets: Iterable[Target]
) -> dict[int, VideoFrame]:
    """The targets' frames by ``pts``. One that is neither wanted nor referred to is skipped.

    A decoder patches damaged frames up with parts of others: they, and what refers to them, are not
    what was filmed.
    """
    targets = sorted(targets, key=lambda target: (target.first, target.last))
    wanted = {target.pts for target in targets}
    taken: dict[int, VideoFrame] = {}
    context: Any = video.codec_context
    for first, group in groupby(targets, key=lambda target: target.first):
        last = max(target.last for target in group)
        for packet in [*frames[first : last + 1], None]:
            needed = packet is None or packet.pts in wanted
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            for frame in _decoded(context, packet):
                if frame.is_corrupt and (frame.pts or 0) >= _pts(frames, first):
                    raise RejectedError("undecodable", "a frame is damaged")
                if frame.pts in wanted:
                    taken[frame.pts] = frame
        context.flush_buffers()
    for target in targets:
        if target.pts not in taken:
            raise RejectedError("undecodable", f"no frame comes out at {target.requested_s:.2f} s")
    return taken


def _decoded(context: Any, packet: AnyPacket | None) -> list[VideoFrame]:
    try:
        return context.decode(packet)
    except FFmpegError:
        # Some decoders call it invalid data where they get no memory; this raises MemoryError.
        np.empty(_ROOM_BYTES_PER_PIXEL * context.width * context.height, np.uint8)
        raise


def upright_images(
    frames: Sequence[VideoFrame], video: VideoStream, settings: MediaSettings
) -> tuple[list[NDArray[np.uint8]], tuple[int, ...]]:
    """Frames as sRGB pictures, uint8 [h w 3], and what was kept of them where bars were cut."""
    for frame in frames:
        refuse_wide_gamut(frame)
    if len({(frame.width, frame.height) for frame in frames}) > 1:
        raise RejectedError("undecodable", "frames of several sizes")
    crop = letterbox([full_rgb(frame) for frame in frames]) if settings.cut_letterbox else None
    scaler = VideoReformatter()  # for all of them: to set one up takes a tenth of a frame's time
    return [_upright(frame, crop, video, scaler, settings) for frame in frames], crop or ()


def refuse_wide_gamut(frame: VideoFrame) -> None:
    """Raises RejectedError for a frame that is not of BT.601 or BT.709."""
    if (
        frame.color_trc in _WIDE_TRANSFERS
        or frame.color_primaries == ColorPrimaries.BT2020
        or frame.colorspace in _WIDE_MATRICES
    ):
        raise RejectedError("wide_gamut", "HDR or BT.2020: colours would come out wrong")


def motion_thumbnail(frame: VideoFrame) -> NDArray[np.uint8]:
    """A small grey picture of a frame, uint8 [h w]."""
    return _grey(frame, *_MOTION_SIZE)


def square_thumbnail(image: NDArray[np.uint8], side: int = 32) -> NDArray[np.uint8]:
    """A small grey picture of a picture [h w 3], stretched to a square."""
    return _grey(VideoFrame.from_ndarray(image, format="rgb24"), side, side)


def seconds(ticks: int, video: VideoStream) -> float:
    """A number of the stream's clock ticks in seconds."""
    return float(ticks * (video.time_base or Fraction(1, av.time_base)))


def _upright(
    frame: VideoFrame,
    crop: tuple[int, int, int, int] | None,
    video: VideoStream,
    scaler: VideoReformatter,
    settings: MediaSettings,
) -> NDArray[np.uint8]:
    """By way of RGB, since FFmpeg loses up to two levels when it goes from one YCbCr to another."""
    left, top, pixels_wide, pixels_high = crop or (0, 0, frame.width, frame.height)
    width = pixels_wide * float(video.sample_aspect_ratio or 1)
    height = float(pixels_high)
    if max(width, height) > settings.max_aspect * min(width, height):
        raise RejectedError("no_picture", f"a picture of {width:.0f}x{height:.0f} is too oblong")
    scale = 1.0 if settings.size_px is None else settings.size_px / min(width, height)
    source = frame
    if crop or frame.interlaced_frame:
        rows = slice(top, top + pixels_high, 2 if frame.interlaced_frame else 1)
        kept = np.ascontiguousarray(full_rgb(frame)[rows, left : left + pixels_wide])
        source = VideoFrame.from_ndarray(kept, format="rgb24")
    scaled = scaler.reformat(
        source,
        width=round(width * scale),
        height=round(height * scale),
        format="rgb24",
        interpolation=_SCALING,
        threads=1,
    )
    image = np.asarray(scaled.to_ndarray(), dtype=np.uint8)
    return turn_of(frame).upright(image)


def full_rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    converted = frame.reformat(format="rgb24", interpolation=_SCALING, threads=1)
    return np.asarray(converted.to_ndarray(), dtype=np.uint8)


def _grey(frame: VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    small = frame.reformat(
        width=width,
        height=height,
        format="gray",
        interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT,
        threads=1,
    )
    return np.asarray(small.to_ndarray(), dtype=np.uint8)


def _key_frames(frames: Sequence[AnyPacket], *, shown: bool = True) -> list[int]:
    """Those that are shown, or all: what an edit list cuts off is still decoded for the rest."""
    return [
        n
        for n, p in enumerate(frames)
        if p.is_keyframe and p.pts is not None and not (shown and p.is_discard)
    ]


def _at_key_frame(frames: Sequence[AnyPacket], number: int, requested_s: float) -> Target:
    return Target(requested_s=requested_s, pts=_pts(frames, number), first=number, last=number)


def _pts(frames: Sequence[AnyPacket], number: int) -> int:
    return frames[number].pts or 0


def _tick(video: VideoStream) -> float:
    return seconds(1, video)
