"""Reads the frames and the sound packets of a video file."""

import dataclasses
import math
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import av
import numpy as np
from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from data_prep import storage
from data_prep.catalog import VIDEO_SUFFIXES
from data_prep.media import frames, pictures
from data_prep.media.container import (
    FILM_CODECS,
    FILM_DEMUXERS,
    AnyPacket,
    declared_length_s,
    open_media,
)
from data_prep.media.orientation import Orientation, orientation_of
from data_prep.media.sample import MediaSettings, RejectedError

_LEAST_MISSING_S, _MOST_PRESENT_SHARE = 1.0, 0.95
"""A video is truncated if it lacks more seconds at its end, and has less of its length."""
SOURCE_SUFFIXES = (
    *VIDEO_SUFFIXES,
    *(".avi", ".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts", ".flv", ".3gp", ".wmv", ".asf"),
)
"""Suffixes of videos that can be read."""
_TIMED = ("video", "audio", "subtitle", "data")
_NOT_COPIED = ("encoder", "major_brand", "minor_version", "compatible_brands")


def is_video(name: str) -> bool:
    """Whether a file's name is that of a video that can be read."""
    return storage.suffix_of(name) in SOURCE_SUFFIXES


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodedFrame:
    """A frame of a video."""

    rgb: NDArray[np.uint8]
    """sRGB [h w 3], upright."""
    frame: VideoFrame
    """The frame as decoded, with its timestamp and colour space."""
    time_s: float
    """Presentation time on the file's clock."""


class VideoReader:
    """Reads a video once, from start to end.

    Every error is a ValueError that names the file: it is not a video, or one that is not
    supported (its codec, HDR, too many pixels).
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        """Args:
        file: the video.
        name: name of the video, for errors.
        """
        self.name = name
        if not os.fstat(file.fileno()).st_size:
            raise ValueError(f"cannot read video '{name}': it is empty")
        try:
            self._container = open_media(file, FILM_DEMUXERS)
            self.video = frames.video_stream(
                self._container, MediaSettings(size_px=None, max_s=math.inf), FILM_CODECS
            )
        except (FFmpegError, RejectedError) as error:
            raise self._refusal(error) from None
        sounds: list[AudioStream] = list(self._container.streams.audio)
        self.audio = [stream for stream in sounds if _is_known(stream)]
        self._unknown = len(sounds) - len(self.audio)
        self.video.thread_type, self.video.thread_count = "AUTO", 0
        self.rate = self.video.average_rate or self.video.guessed_rate or Fraction(25)
        self.orientation = Orientation()
        self.metadata = {
            key: value
            for key, value in self._container.metadata.items()
            if key.lower() not in _NOT_COPIED
        }
        self._damaged_packets = self._zero_length_frames = 0
        self._ends_s: dict[int, float] = {}  # end of the last packet read, by stream

    @property
    def notes(self) -> list[str]:
        """What was skipped so far, for a person to read."""
        skipped = {
            "damaged packets": self._damaged_packets,
            "frames of zero duration": self._zero_length_frames,
            "sound streams with an unknown codec": self._unknown,
        }
        return [f"skipped {count} {kind}" for kind, count in skipped.items() if count]

    @property
    def frames_declared(self) -> int | None:
        """Approximate number of frames, from the file's header; None if it has none."""
        length_s = declared_length_s(self._container)
        return self.video.frames or (round(length_s * self.rate) if length_s else None)

    @property
    def pixel_aspect(self) -> float:
        """Width of a pixel divided by its height, in the upright picture."""
        aspect = float(self.video.sample_aspect_ratio or 1)
        return 1 / aspect if self.orientation.transposed else aspect

    def close(self) -> None:
        """Close the container."""
        self._container.close()

    def read(self) -> Iterator[DecodedFrame | AnyPacket]:
        """Frames in order of time, interleaved with the packets of sound.

        Raises:
            ValueError: the file cannot be read any further, or it is truncated.
        """
        last_pts: int | None = None
        size: tuple[int, int] | None = None
        for packet in self._packets():
            if packet.stream_index != self.video.index:
                if packet.size and packet.dts is not None:
                    yield packet
                continue
            for frame in self._decoded(packet):
                pts = frame.pts if frame.pts is not None else self._following_pts(last_pts)
                if last_pts is not None and pts <= last_pts:
                    self._zero_length_frames += 1
                    continue  # timestamps must increase in the written file
                last_pts, frame.pts = pts, pts
                if size not in (None, (frame.width, frame.height)):
                    raise ValueError(
                        f"video '{self.name}' changes its frame size: split it there first"
                    )
                size = frame.width, frame.height
                yield self._to_rgb(frame)
        self._reject_truncated()

    def _packets(self) -> Iterator[AnyPacket]:
        try:
            for packet in self._container.demux(self.video, *self.audio):
                if packet.size and packet.pts is not None:
                    end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    ended_s = self._ends_s.get(packet.stream_index, end_s)
                    self._ends_s[packet.stream_index] = max(ended_s, end_s)
                yield packet
        except FFmpegError as error:
            raise self._refusal(error) from None

    def _reject_truncated(self) -> None:
        """Raise if the file ends before its declared end; streamed files declare none."""
        if not self._ends_s:
            return
        start_s = (self._container.start_time or 0) / av.time_base
        end_s, declared_s = max(self._ends_s.values()), 0.0
        if self.video.duration is not None:
            end_s = self._ends_s.get(self.video.index, start_s)
            declared = (self.video.start_time or 0) + self.video.duration
            declared_s = frames.seconds(declared, self.video) - start_s
        elif all(s.index in self._ends_s for s in self._container.streams if s.type in _TIMED):
            declared_s = declared_length_s(self._container) or 0.0
        held_s = end_s - start_s
        if declared_s - held_s > _LEAST_MISSING_S and held_s < _MOST_PRESENT_SHARE * declared_s:
            raise ValueError(
                f"video '{self.name}' is truncated: it ends at {held_s:.2f} s of {declared_s:.2f} s"
            )

    def _decoded(self, packet: AnyPacket) -> list[VideoFrame]:
        try:
            return self.video.codec_context.decode(packet if packet.size else None)
        except EOFError:
            return []  # already flushed
        except FFmpegError:
            self._damaged_packets += 1
            return []

    def _to_rgb(self, frame: VideoFrame) -> DecodedFrame:
        try:
            pictures.refuse_wide_gamut(frame)
        except RejectedError as error:
            raise self._refusal(error) from None
        self.orientation = orientation_of(frame)
        rgb = self.orientation.upright(pictures.full_rgb(frame))
        time_s = frames.seconds(frame.pts or 0, self.video)
        return DecodedFrame(rgb=rgb, frame=frame, time_s=time_s)

    def _following_pts(self, pts: int | None) -> int:
        """Timestamp of a frame without one, one frame after the last."""
        if pts is None:
            return 0
        return pts + max(1, round(1 / (self.rate * (self.video.time_base or Fraction(1)))))

    def _refusal(self, error: Exception) -> ValueError:
        detail = error.detail if isinstance(error, RejectedError) else reason_of(error)
        return ValueError(f"cannot read video '{self.name}': {detail}")


def _is_known(stream: AudioStream) -> bool:
    context: Any = stream.codec_context  # None if FFmpeg does not know the codec
    return context is not None


def reason_of(error: Exception) -> str:
    """What went wrong, without FFmpeg's error number."""
    return (error.strerror if isinstance(error, FFmpegError) else None) or str(error)
