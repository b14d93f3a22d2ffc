"""One clip -> pictures and mono sound, or the reason for its rejection. The file is opened once.

Pictures are JPEG without chroma subsampling, since chroma is what the networks learn. Sound is
16-bit mono WAV: it decodes twenty times faster than FLAC at one and a half times the size. Both
were chosen by measurement, see ``benchmarks/shard_format.py``.
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg  # pyright: ignore[reportMissingTypeStubs]
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_prep.media import frames, pictures, quality
from data_prep.media.container import (
    FILM_CODECS,
    FILM_DEMUXERS,
    MATROSKA,
    VIDEO_CODECS,
    VIDEO_DEMUXERS,
    AnyPacket,
    declared_length_s,
    open_media,
    read_file,
)
from data_prep.media.frames import Window
from data_prep.media.sample import (
    Excerpt,
    MediaSettings,
    RejectedError,
    Rejection,
    Sample,
    SoundFate,
)
from data_prep.media.sound import FLOOR_DBFS, Track, decode_track, level_dbfs, peak_dbfs
from data_prep.media.wav import encode_wav

DECODING_VERSION = 2
"""Version of what files are decoded to; see ``data_prep.shards.records`` for what 2 changed."""

_MISSING_S = 0.5  # allowed at the end of a file: rounding, and packets without a duration


def read_clip(
    source: bytes | Path, clip: Excerpt, settings: MediaSettings, *, film: bool = False
) -> Sample | Rejection:
    """Decodes one clip from its content or its path; nothing in the file makes this raise.

    Args:
        source: the file's content or path.
        clip: which part of it to read.
        settings: how to read it.
        film: whether formats of films are read, too, such as AVI.
    """
    try:
        return read_clip_in_memory(source, clip, settings, film=film)
    except MemoryError:
        return out_of_memory(clip, settings)


def out_of_memory(clip: Excerpt, settings: MediaSettings) -> Rejection:
    """The rejection of a clip whose decoding needs too much memory."""
    detail = f"needs more than {settings.max_memory_bytes >> 20} MiB of memory"
    return Rejection(key=clip.key, reason="too_large", detail=detail)


def read_clip_in_memory(
    source: bytes | Path, clip: Excerpt, settings: MediaSettings, *, film: bool = False
) -> Sample | Rejection:
    """Like ``read_clip``, but raises MemoryError, since a fresh process may have enough."""
    try:
        return _read(_content(source, settings.max_bytes), clip, settings, film=film)
    except RejectedError as rejected:
        return Rejection(key=clip.key, reason=rejected.reason, detail=rejected.detail)
    except MemoryError:
        raise
    except (FFmpegError, ValueError, ArithmeticError) as error:
        detail = f"{type(error).__name__}: {error}"[:200]
        return Rejection(key=clip.key, reason="undecodable", detail=detail)


@dataclass(frozen=True, kw_only=True)
class _Pictures:
    images: list[NDArray[np.uint8]]
    requested_s: list[float]
    actual_s: list[float]
    source_size: tuple[int, int]
    crop: tuple[int, ...]
    motion: float | None


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """What is taken from a file while it is open; times in seconds from its start."""

    window: Window
    pictures: _Pictures
    track: Track | None
    track_start_s: float


def _read(content: bytes, clip: Excerpt, settings: MediaSettings, *, film: bool) -> Sample:
    # Streams must not be used after their container is closed.
    with open_media(content, FILM_DEMUXERS if film else VIDEO_DEMUXERS) as container:
        video = frames.video_stream(container, settings, FILM_CODECS if film else VIDEO_CODECS)
        decoded = _decode(container, video, clip, settings)
    taken, track = decoded.pictures, decoded.track
    level = level_dbfs(track.waveform) if track else FLOOR_DBFS
    sound, fate = _usable_sound(track, level, settings)
    return Sample(
        key=clip.key,
        pictures=tuple(_jpeg(image, settings) for image in taken.images),
        requested_s=tuple(round(time_s, 6) for time_s in taken.requested_s),
        actual_s=tuple(round(time_s, 6) for time_s in taken.actual_s),
        width=taken.images[0].shape[1],
        height=taken.images[0].shape[0],
        source_width=taken.source_size[0],
        source_height=taken.source_size[1],
        source_s=round(decoded.window.file_end_s, 6),
        crop=taken.crop,
        colorfulness=round(max(map(quality.colorfulness, taken.images)), 2),
        motion=taken.motion,
        picture_hash=tuple(
            quality.perceptual_hash(pictures.square_thumbnail(image)) for image in taken.images
        ),
        sound=sound,
        sound_fate=fate,
        sound_start_s=round(decoded.track_start_s, 6) if sound else 0.0,
        sound_s=len(track.waveform) / settings.sample_rate_hz if track and sound else 0.0,
        rms_dbfs=round(level, 3),
        peak_dbfs=round(peak_dbfs(track.waveform), 3) if track else FLOOR_DBFS,
    )


def _decode(
    container: InputContainer, video: VideoStream, clip: Excerpt, settings: MediaSettings
) -> _Decoded:
    if len(container.streams) > settings.max_streams:
        raise RejectedError("too_large", f"{len(container.streams)} streams")
    audio = next(iter(container.streams.audio), None)
    origin_s = (container.start_time or 0) / av.time_base
    packets = _demux(container, [video.index, *([audio.index] if audio else [])], settings)
    _reject_truncated(container, packets, origin_s)
    window = frames.find_window(packets[video.index], video, origin_s, clip, settings)
    taken = _pictures(packets[video.index], video, origin_s, window, settings)
    sound_s = _sound_window(window, settings)
    track = None
    if audio is not None:
        track = _track(packets[audio.index], audio, origin_s, sound_s, settings)
    return _Decoded(
        window=window,
        pictures=taken,
        track=track,
        track_start_s=max(track.start_s - origin_s, sound_s[0]) if track else 0.0,
    )


def _content(source: bytes | Path, max_bytes: int) -> bytes:
    if isinstance(source, Path):
        return read_file(source, max_bytes)
    if len(source) > max_bytes:
        raise RejectedError("too_large", f"{len(source)} bytes; at most {max_bytes} are read")
    return source


def _demux(
    container: InputContainer, streams: list[int], settings: MediaSettings
) -> dict[int, list[AnyPacket]]:
    """Packets by stream, in decoding order."""
    packets: dict[int, list[AnyPacket]] = {index: [] for index in streams}
    left = settings.max_packets
    for packet in container.demux(*(container.streams[index] for index in streams)):
        if packet.size:
            packets[packet.stream_index].append(packet)
            left -= 1
            if left < 0:
                raise RejectedError("too_large", f"more than {settings.max_packets} packets")
    return packets


def _reject_truncated(
    container: InputContainer, packets: dict[int, list[AnyPacket]], origin_s: float
) -> None:
    """Rejects a truncated Matroska file: unlike MP4, its streams do not declare their length."""
    declared_s = declared_length_s(container)
    if container.format.name != MATROSKA or declared_s is None:
        return
    if len(packets) < len(container.streams) or not all(packets.values()):
        return  # a stream that is not read may be the longest
    end_s = max(
        float(((p.pts or 0) + (p.duration or 0)) * (p.time_base or 0)) - origin_s
        for p in chain.from_iterable(packets.values())
    )
    if declared_s - end_s > _MISSING_S:
        raise RejectedError("undecodable", f"cut off at {end_s:.2f} of {declared_s:.2f} s")


def _pictures(
    packets: list[AnyPacket],
    video: Any,
    origin_s: float,
    window: Window,
    settings: MediaSettings,
) -> _Pictures:
    targets = frames.find_targets(packets, video, origin_s, window, settings)
    outer = frames.outer_frames(packets, video, origin_s, window) if settings.measure_motion else []
    decoded = frames.decode(packets, video, [*targets, *outer])
    images, crop = pictures.upright_images([decoded[t.pts] for t in targets], video, settings)
    motion = None
    if settings.measure_motion:
        thumbnails = [pictures.motion_thumbnail(frame) for frame in decoded.values()]
        motion = quality.motion(thumbnails)
    return _Pictures(
        images=images,
        requested_s=[target.requested_s for target in targets],
        actual_s=[frames.seconds(target.pts, video) - origin_s for target in targets],
        source_size=(decoded[targets[0].pts].width, decoded[targets[0].pts].height),
        crop=crop,
        motion=motion,
    )


def _sound_window(window: Window, settings: MediaSettings) -> tuple[float, float]:
    """Start and end of the sound to keep, in seconds from the start of the file."""
    if settings.sound_s is None:
        return window.start_s, window.sound_end_s
    middle_s = (window.start_s + window.end_s) / 2
    start_s = max(window.start_s, middle_s - settings.sound_s / 2)
    return start_s, min(start_s + settings.sound_s, window.sound_end_s)


def _track(
    packets: list[AnyPacket],
    audio: AudioStream,
    origin_s: float,
    sound_s: tuple[float, float],
    settings: MediaSettings,
) -> Track:
    return decode_track(
        packets,
        audio,
        settings.sample_rate_hz,
        start_s=origin_s + sound_s[0],
        end_s=origin_s + sound_s[1],
        max_s=settings.max_s,
    )


def _usable_sound(
    track: Track | None, level: float, settings: MediaSettings
) -> tuple[bytes, SoundFate]:
    if track is None:
        return b"", "absent"
    if track.error:
        return b"", "undecodable"
    if len(track.waveform) < max(settings.min_sound_s * settings.sample_rate_hz, 1):
        return b"", "too_short" if len(track.waveform) else "absent"
    if level < settings.silence_dbfs:
        return b"", "silent"
    return encode_wav(track.waveform, settings.sample_rate_hz), "kept"


def _jpeg(image: NDArray[np.uint8], settings: MediaSettings) -> bytes:
    encode: Any = simplejpeg.encode_jpeg
    return bytes(encode(image, quality=settings.jpeg_quality, colorsubsampling="444"))
