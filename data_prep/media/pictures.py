"""Converts video frames to upright sRGB pictures.

Pictures keep their aspect ratio, with the short side at ``size_px`` (smaller sources are scaled up,
so that a crop of ``size_px`` always fits). Rotation metadata and non-square pixels are applied; of
an interlaced frame, one field is used. Files that name no colour matrix are read as BT.601, as
FFmpeg does.
"""

from collections.abc import Sequence

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from data_prep.media.orientation import orientation_of
from data_prep.media.quality import letterbox
from data_prep.media.sample import MediaSettings, RejectedError

_SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.BITEXACT
)
_WIDE_TRANSFERS = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
_WIDE_MATRICES = (9, 10)  # BT.2020
_MOTION_SIZE = 64, 36


def upright_images(
    frames: Sequence[VideoFrame], video: VideoStream, settings: MediaSettings
) -> tuple[list[NDArray[np.uint8]], tuple[int, ...]]:
    """Frames as sRGB pictures, uint8 [h w 3], and the crop that removed black bars.

    The crop is left, top, width and height in the frame; empty if nothing was cut.

    Raises:
        RejectedError: HDR or BT.2020, frames of different sizes, or an extreme aspect ratio.
    """
    for frame in frames:
        refuse_wide_gamut(frame)
    if len({(frame.width, frame.height) for frame in frames}) > 1:
        raise RejectedError("undecodable", "frames of several sizes")
    crop = letterbox([full_rgb(frame) for frame in frames]) if settings.cut_letterbox else None
    scaler = VideoReformatter()  # shared: setting one up takes a tenth of the time of a frame
    return [_upright(frame, crop, video, scaler, settings) for frame in frames], crop or ()


def refuse_wide_gamut(frame: VideoFrame) -> None:
    """Raises RejectedError if a frame is neither BT.601 nor BT.709."""
    if (
        frame.color_trc in _WIDE_TRANSFERS
        or frame.color_primaries == ColorPrimaries.BT2020
        or frame.colorspace in _WIDE_MATRICES
    ):
        raise RejectedError("wide_gamut", "HDR or BT.2020: colours would come out wrong")


def motion_thumbnail(frame: VideoFrame) -> NDArray[np.uint8]:
    """A small grey version of a frame, uint8 [36 64]."""
    return _grey(frame, *_MOTION_SIZE)


def square_thumbnail(image: NDArray[np.uint8], side: int = 32) -> NDArray[np.uint8]:
    """A small grey version of an sRGB picture [h w 3], stretched to a square."""
    return _grey(VideoFrame.from_ndarray(image, format="rgb24"), side, side)


def _upright(
    frame: VideoFrame,
    crop: tuple[int, int, int, int] | None,
    video: VideoStream,
    scaler: VideoReformatter,
    settings: MediaSettings,
) -> NDArray[np.uint8]:
    """Converts to RGB first: FFmpeg loses up to two levels between two YCbCr formats."""
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
    return orientation_of(frame).upright(image)


def full_rgb(frame: VideoFrame) -> NDArray[np.uint8]:
    """A frame as coded, in sRGB at its own size: uint8 [h w 3]."""
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
