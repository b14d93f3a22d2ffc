"""Chooses the frames of a video that become pictures, and decodes them.

A picture is exactly the frame that is on screen at the requested time. Only the packets from the
key frame before it are decoded, and of those only the ones that other frames refer to.
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
from av.video.stream import VideoStream

from data_prep.media.container import VIDEO_CODECS, AnyPacket, declared_length_s
from data_prep.media.sample import Excerpt, MediaSettings, RejectedError

_PROBE_BYTES_PER_PIXEL = 6  # a little more than two frames take


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of a file that makes a sample, in seconds from the start of the file."""

    start_s: float
    end_s: float
    sound_end_s: float
    """Infinite for a whole file, whose sound may outlast its pictures."""
    file_end_s: float
    """End of the last frame of the file."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A frame to decode."""

    requested_s: float
    """The time at which it is on screen, in seconds from the start of the file."""
    pts: int
    """Its presentation timestamp."""
    first: int
    """Index, in decoding order, of the packet with the key frame that it depends on."""
    last: int
    """Index of the packet that contains it."""


def video_stream(
    container: InputContainer, settings: MediaSettings, codecs: Sequence[str] = VIDEO_CODECS
) -> VideoStream:
    """The first video stream that is not cover art, with its decoder configured.

    Raises:
        RejectedError: there is none, or it is too large, too long or of an unknown codec.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise RejectedError("no_picture", "no video stream")
    video = streams[0]
    context: Any = video.codec_context
    if context is None or context.codec.canonical_name not in codecs:
        name = "unknown" if context is None else context.codec.canonical_name
        raise RejectedError("undecodable", f"video codec {name} is none of {', '.join(codecs)}")
    if context.width * context.height > settings.max_pixels:
        raise RejectedError("too_large", f"frames of {context.width}x{context.height} pixels")
    declared_s = declared_length_s(container) or 0.0
    if declared_s > settings.max_s:
        raise RejectedError(
            "too_long", f"{declared_s:.1f} s; at most {settings.max_s:g} s are read"
        )
    # One thread, so that the frames to skip can be chosen for each packet.
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
    """The clip's window, cut to what the file really contains.

    Raises:
        RejectedError: the file is empty, too long or truncated, or the window is too short.
    """
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
    """Frames at the middles of equal parts of the window, in order of time.

    Raises:
        RejectedError: there is no frame or no key frame at or before one of these times.
    """
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
        target = _target(frames, all_keys, shown[shown_so_far - 1][1], requested_s)
        if target is None:
            raise RejectedError("no_picture", f"no key frame before {requested_s:.2f} s")
        targets.append(target)
    return targets


def outer_frames(
    frames: Sequence[AnyPacket], video: VideoStream, origin_s: float, window: Window
) -> list[Target]:
    """Two frames of the window that are far apart, to detect a still video.

    They are the first and the last key frame if there are two, because these are the cheapest to
    decode; otherwise the first and the last frame. Fewer, if the window has fewer frames.
    """
    times_s = {
        n: seconds(_pts(frames, n), video) - origin_s
        for n, packet in enumerate(frames)
        if packet.pts is not None and not packet.is_discard
    }
    inside = [n for n, time_s in times_s.items() if window.start_s <= time_s < window.end_s]
    keys = [n for n in inside if frames[n].is_keyframe]
    if len(keys) > 1:
        return [_at_key_frame(frames, n, times_s[n]) for n in (keys[0], keys[-1])]
    inside.sort(key=lambda n: times_s[n])
    all_keys = _key_frames(frames, shown=False)
    ends = sorted({*inside[:1], *inside[-1:]})
    targets = (_target(frames, all_keys, n, times_s[n]) for n in ends)
    return [target for target in targets if target is not None]


def decode(
    frames: Sequence[AnyPacket], video: VideoStream, targets: Iterable[Target]
) -> dict[int, VideoFrame]:
    """The targets' frames by ``pts``; frames that are neither wanted nor referred to are skipped.

    Raises:
        RejectedError: a frame is damaged or missing. A decoder conceals damage with parts of other
            frames, so it and the frames that refer to it do not show what was filmed.
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
        # Some decoders report a failed allocation as invalid data; this raises MemoryError then.
        np.empty(_PROBE_BYTES_PER_PIXEL * context.width * context.height, np.uint8)
        raise


def seconds(ticks: int, video: VideoStream) -> float:
    """Ticks of the stream's clock in seconds."""
    return float(ticks * (video.time_base or Fraction(1, av.time_base)))


def _key_frames(frames: Sequence[AnyPacket], *, shown: bool = True) -> list[int]:
    """Indices of the key frames that are shown, or of all.

    Frames that an edit list cuts off are not shown, but later frames may depend on them.
    """
    return [
        n
        for n, p in enumerate(frames)
        if p.is_keyframe and p.pts is not None and not (shown and p.is_discard)
    ]


def _target(
    frames: Sequence[AnyPacket], keys: Sequence[int], number: int, requested_s: float
) -> Target | None:
    """The frame in a packet; None if there is no key frame that it can depend on."""
    pts = _pts(frames, number)
    starts = [n for n in keys if n <= number and _pts(frames, n) <= pts]
    if not starts:
        return None
    return Target(requested_s=requested_s, pts=pts, first=starts[-1], last=number)


def _at_key_frame(frames: Sequence[AnyPacket], number: int, requested_s: float) -> Target:
    return Target(requested_s=requested_s, pts=_pts(frames, number), first=number, last=number)


def _pts(frames: Sequence[AnyPacket], number: int) -> int:
    return frames[number].pts or 0


def _tick(video: VideoStream) -> float:
    return seconds(1, video)
