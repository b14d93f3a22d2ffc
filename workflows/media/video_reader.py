"""Files of videos: frames out of one, frames and the copied sound into another."""

import contextlib
import dataclasses
import math
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import av
import numpy as np
from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_prep.catalog import VIDEO_SUFFIXES
from data_prep.media import frames
from data_prep.media.orientation import Turn, display_matrix, turn_of
from data_prep.media.sample import MediaSettings, RejectedError
from data_prep.media.sound import AnyPacket, open_media

TARGET_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_H264 = {"crf": "17", "preset": "medium", "threads": "4"}  # of another number come other bytes
_BT709, _BT601 = 1, 6
_MATRICES = {1: _BT709, 5: _BT601, 6: _BT601}
_LIMITED = 1
_UNKNOWN = 2
_MISSING_S, _WHOLE_SHARE = 1.0, 0.95  # what may lack at the end of a whole file
_TO_YUV = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
_TIMED = ("video", "audio", "subtitle", "data")
_NOT_COPIED = ("encoder", "major_brand", "minor_version", "compatible_brands")


def is_video(name: str) -> bool:
    """Whether a file's name says that it is a video we read."""
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES


def is_target(name: str) -> bool:
    """Whether a file's name says that it is a video we write."""
    return PurePosixPath(name).suffix.lower() in TARGET_SUFFIXES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """A frame of a video."""

    rgb: NDArray[np.uint8]
    """sRGB [h w 3], upright."""
    frame: VideoFrame
    """As decoded: its time and its colour space."""
    time_s: float
    """On the file's clock."""


class VideoSource:
    """A video that is read once, from its beginning to its end.

    Raises ValueError, naming the file, where it is none, or is one that is not read: of another
    codec, in HDR, of too many pixels.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        """Args:
        file: the video.
        name: what it is called in errors.
        """
        self.name = name
        try:
            self._container = open_media(file)
            self.video = frames.video_stream(
                self._container, MediaSettings(size_px=None, max_s=math.inf)
            )
        except (FFmpegError, RejectedError) as error:
            raise self._refusal(error) from None
        sounds: list[AudioStream] = list(self._container.streams.audio)
        self.audio = [stream for stream in sounds if _is_known(stream)]
        self._unknown = len(sounds) - len(self.audio)
        self.video.thread_type, self.video.thread_count = "AUTO", 0
        self.rate = self.video.average_rate or self.video.guessed_rate or Fraction(25)
        self.turn = Turn()
        self.metadata = {
            key: value
            for key, value in self._container.metadata.items()
            if key.lower() not in _NOT_COPIED
        }
        self._damaged = self._timeless = 0
        self._ends_s: dict[int, float] = {}  # of the packets read so far, by stream

    @property
    def notes(self) -> list[str]:
        """What of the file was left out so far."""
        left_out = {
            "damaged packets passed over": self._damaged,
            "frames shown for no time left out": self._timeless,
            "sound streams of unknown codec left out": self._unknown,
        }
        return [f"{count} {what}" for what, count in left_out.items() if count]

    @property
    def frames_declared(self) -> int | None:
        """How many frames there will be, about."""
        length_s = (self._container.duration or 0) / av.time_base
        return self.video.frames or (round(length_s * self.rate) if length_s else None)

    @property
    def pixel_aspect(self) -> float:
        """Width of a pixel over its height, as seen upright."""
        aspect = float(self.video.sample_aspect_ratio or 1)
        return 1 / aspect if self.turn.swapped else aspect

    def close(self) -> None:
        """Leave the file."""
        self._container.close()

    def read(self) -> Iterator[Shown | AnyPacket]:
        """Frames in order of time, and between them the packets of sound, to be copied.

        Raises ValueError where the file cannot be read on, and at the end where it is cut off.
        """
        last_pts: int | None = None
        size: tuple[int, int] | None = None
        for packet in self._packets():
            if packet.stream_index != self.video.index:
                if packet.size and packet.dts is not None:
                    yield packet
                continue
            for frame in self._decoded(packet):
                pts = frame.pts if frame.pts is not None else _after(last_pts, self)
                if last_pts is not None and pts <= last_pts:
                    self._timeless += 1
                    continue  # what is shown for no time cannot be written
                last_pts, frame.pts = pts, pts
                if size not in (None, (frame.width, frame.height)):
                    raise ValueError(f"'{self.name}' changes its size on the way: split it first")
                size = frame.width, frame.height
                yield self._shown(frame)
        self._hold_whole()

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

    def _hold_whole(self) -> None:
        """Refuse a file that ended before it should; of a streamed one nobody knows."""
        if not self._ends_s:
            return
        begins_s = (self._container.start_time or 0) / av.time_base
        ends_s, declared_s = max(self._ends_s.values()), 0.0
        if self.video.duration is not None:
            ends_s = self._ends_s.get(self.video.index, begins_s)
            declared = (self.video.start_time or 0) + self.video.duration
            declared_s = frames.seconds(declared, self.video) - begins_s
        elif all(s.index in self._ends_s for s in self._container.streams if s.type in _TIMED):
            declared_s = (self._container.duration or 0) / av.time_base
        held_s = ends_s - begins_s
        if declared_s - held_s > _MISSING_S and held_s < _WHOLE_SHARE * declared_s:
            raise ValueError(
                f"video '{self.name}' is cut off at {held_s:.2f} s of {declared_s:.2f} s"
            )

    def _decoded(self, packet: AnyPacket) -> list[VideoFrame]:
        try:
            return self.video.codec_context.decode(packet if packet.size else None)
        except EOFError:
            return []  # flushed already
        except FFmpegError:
            self._damaged += 1
            return []

    def _shown(self, frame: VideoFrame) -> Shown:
        try:
            frames.refuse_wide_gamut(frame)
        except RejectedError as error:
            raise self._refusal(error) from None
        self.turn = turn_of(frame)
        rgb = self.turn.upright(frames.full_rgb(frame))
        return Shown(rgb=rgb, frame=frame, time_s=frames.seconds(frame.pts or 0, self.video))

    def _refusal(self, error: Exception) -> ValueError:
        detail = error.detail if isinstance(error, RejectedError) else _reason(error)
        return ValueError(f"video '{self.name}' cannot be coloured: {detail}")


def _is_known(stream: AudioStream) -> bool:
    context: Any = stream.codec_context  # none where FFmpeg does not know the codec
    return context is not None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, FFmpegError) else None) or str(error)


def _after(pts: int | None, source: VideoSource) -> int:
    if pts is None:
        return 0
    return pts + max(1, round(1 / (source.rate * (source.video.time_base or Fraction(1)))))


class VideoTarget:
    """A video in the making: H.264 pictures, and the sound streams of another, packet by packet.

    Times, frame rate, rotation, shape of pixels and colour space are the source's. 4:2:0 has no odd
    sizes: the last row or column is doubled then.
    """

    def __init__(self, path: Path, source: VideoSource, first: Shown) -> None:
        """Args:
        path: of the file, whose suffix chooses the format.
        source: the video that is coloured.
        first: its first frame.

        Raises:
            ValueError: the format cannot hold one of the sound streams.
        """
        self._name = source.name
        self._turn = source.turn
        self._time_base = source.video.time_base
        self._matrix = _MATRICES.get(first.frame.colorspace, _BT601)
        kind = _FORMATS[path.suffix]
        flags = {"fflags": "+bitexact"} | ({} if kind == "matroska" else {"movflags": "+faststart"})
        self._container = av.open(str(path), "w", format=kind, options=flags)
        self._container.metadata.update(source.metadata)
        self._video = self._add_video(source, first)
        self._audio = {stream.index: self._add_audio(stream, kind) for stream in source.audio}
        try:
            self._container.start_encoding()  # now, and not at the first packet: it may be refused
        except FFmpegError as error:
            if not source.audio or isinstance(error, OSError):
                raise
            raise _cannot_hold(kind, source.audio) from None

    def write(self, rgb: NDArray[np.uint8], shown: Shown) -> None:
        """Add a frame: upright pixels, shown when ``shown`` is."""
        coded = self._turn.coded(rgb)
        height, width = coded.shape[:2]
        if height % 2 or width % 2:
            coded = np.pad(coded, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = VideoFrame.from_ndarray(coded, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=self._matrix,
            dst_color_range=_LIMITED,
            interpolation=_TO_YUV,
        )
        frame.pts, frame.time_base = shown.frame.pts, self._time_base
        with self._writing():
            self._container.mux(self._video.encode(frame))

    def copy(self, packet: AnyPacket) -> None:
        """Add a packet of sound as it is."""
        packet.stream = self._audio[packet.stream_index]
        with self._writing():
            self._container.mux(packet)

    def finish(self) -> None:
        """Write what is left; the file is whole then."""
        with self._writing():
            self._container.mux(self._video.encode(None))
            self._container.close()

    @contextlib.contextmanager
    def _writing(self) -> Generator[None]:
        """What encoder or format refuse as an error that names the video; a full disk as it is."""
        try:
            yield
        except FFmpegError as error:
            if isinstance(error, OSError):
                raise
            reason = _reason(error)
            raise ValueError(f"video '{self._name}' cannot be written: {reason}") from None

    def _add_video(self, source: VideoSource, first: Shown) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=source.rate, options=_H264)
        frame = first.frame
        stream.width, stream.height = (-(-side // 2) * 2 for side in (frame.width, frame.height))
        stream.pix_fmt = "yuv420p"
        context: Any = stream.codec_context
        stream.time_base = context.time_base = self._time_base
        if source.video.sample_aspect_ratio:
            context.sample_aspect_ratio = source.video.sample_aspect_ratio
        context.colorspace, context.color_range = self._matrix, _LIMITED
        context.color_primaries, context.color_trc = (
            self._matrix if known in (0, _UNKNOWN) else known
            for known in (frame.color_primaries, frame.color_trc)
        )
        matrix = display_matrix(frame)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        return stream

    def _add_audio(self, stream: AudioStream, kind: str) -> AudioStream:
        try:
            added = self._container.add_stream_from_template(stream)
        except ValueError:
            raise _cannot_hold(kind, [stream]) from None
        added.metadata.update(stream.metadata)
        return added


def _cannot_hold(kind: str, sounds: list[AudioStream]) -> ValueError:
    names = sorted({stream.codec_context.codec.canonical_name for stream in sounds})
    return ValueError(f"{kind} cannot hold {' and '.join(names)} sound: let --out end in .mkv")
