"""Writes videos: H.264 frames, and the sound packets of another file as they are."""

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_prep import storage
from data_prep.media.container import AnyPacket
from data_prep.media.orientation import display_matrix
from workflows.media.video_reader import DecodedFrame, VideoReader, reason_of

TARGET_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
"""Suffixes of the formats that can be written."""

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_H264 = {"crf": "17", "preset": "medium", "threads": "4"}  # the bytes depend on the threads
_BT709, _BT601 = 1, 6
_MATRICES = {1: _BT709, 5: _BT601, 6: _BT601}
_LIMITED = 1
_UNKNOWN = 2
_TO_YUV = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)


def is_target(name: str) -> bool:
    """Whether a file's name is that of a video that can be written."""
    return storage.suffix_of(name) in TARGET_SUFFIXES


class VideoWriter:
    """Writes a video with the timestamps, frame rate, rotation, pixel shape, colour space and sound
    of another.

    4:2:0 has no odd sizes, so the last row or column is repeated if necessary.
    """

    def __init__(self, path: Path, source: VideoReader, first: DecodedFrame) -> None:
        """Args:
        path: file to write; its suffix chooses the format.
        source: the other video.
        first: first frame of the other video.

        Raises:
            ValueError: the format cannot contain one of the sound streams.
        """
        self._name = source.name
        self._orientation = source.orientation
        self._time_base = source.video.time_base
        self._matrix = _MATRICES.get(first.frame.colorspace, _BT601)
        kind = _FORMATS[path.suffix]
        flags = {"fflags": "+bitexact"} | ({} if kind == "matroska" else {"movflags": "+faststart"})
        self._container = av.open(str(path), "w", format=kind, options=flags)
        self._container.metadata.update(source.metadata)
        self._video = self._add_video(source, first)
        self._audio = {stream.index: self._add_audio(stream, kind) for stream in source.audio}
        try:
            self._container.start_encoding()  # now, because this may fail
        except FFmpegError as error:
            if not source.audio or isinstance(error, OSError):
                raise
            raise _unsupported_sound(kind, source.audio) from None

    def write(self, rgb: NDArray[np.uint8], source: DecodedFrame) -> None:
        """Add a frame.

        Args:
            rgb: upright sRGB [h w 3].
            source: frame of the other video to take the timestamp from.
        """
        coded = self._orientation.coded(rgb)
        height, width = coded.shape[:2]
        if height % 2 or width % 2:
            coded = np.pad(coded, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = VideoFrame.from_ndarray(coded, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=self._matrix,
            dst_color_range=_LIMITED,
            interpolation=_TO_YUV,
        )
        frame.pts, frame.time_base = source.frame.pts, self._time_base
        with self._writing():
            self._container.mux(self._video.encode(frame))

    def copy(self, packet: AnyPacket) -> None:
        """Add a packet of sound of the other video."""
        packet.stream = self._audio[packet.stream_index]
        with self._writing():
            self._container.mux(packet)

    def finish(self) -> None:
        """Write the remaining frames and the index, and close the file."""
        with self._writing():
            self._container.mux(self._video.encode(None))
            self._container.close()

    @contextlib.contextmanager
    def _writing(self) -> Generator[None]:
        """Turn errors of the encoder or format into one that names the video; OSErrors stay."""
        try:
            yield
        except FFmpegError as error:
            if isinstance(error, OSError):
                raise
            reason = reason_of(error)
            raise ValueError(f"cannot write the result of video '{self._name}': {reason}") from None

    def _add_video(self, source: VideoReader, first: DecodedFrame) -> VideoStream:
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
            raise _unsupported_sound(kind, [stream]) from None
        added.metadata.update(stream.metadata)
        return added


def _unsupported_sound(kind: str, sounds: Sequence[AudioStream]) -> ValueError:
    names = sorted({stream.codec_context.codec.canonical_name for stream in sounds})
    way_out = "use --out with .mkv" if kind != "matroska" else "convert the sound first"
    return ValueError(f"{kind} cannot contain {' and '.join(names)} sound: {way_out}")
