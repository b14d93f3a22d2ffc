"""Decodes bytes of a shard into square pictures and windows of sound, as numpy arrays."""

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from aiaic.loading.sampler import Range

_SAMPLE_BYTES = 2


def decode_picture(jpeg: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG to sRGB, [h w 3]."""
    return simplejpeg.decode_jpeg(jpeg, "RGB")


def crop(rgb: NDArray[np.uint8], size: int, x: float, y: float) -> NDArray[np.uint8]:
    """Resize the short side to ``size`` and crop a square.

    A view of ``rgb`` if no resizing is needed, so that only the rows of the crop need be copied.

    Args:
        rgb: [h w 3].
        size: side of the square in pixels.
        x: horizontal position of the square, in [0, 1).
        y: vertical position, in [0, 1).
    """
    height, width = rgb.shape[:2]
    if min(height, width) != size:
        scale = size / min(height, width)
        rgb = resize(rgb, max(size, round(width * scale)), max(size, round(height * scale)))
        height, width = rgb.shape[:2]
    top = int(y * (height - size + 1))
    left = int(x * (width - size + 1))
    return rgb[top : top + size, left : left + size]


def resize(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize a whole picture [h w 3] (bicubic)."""
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def sound_range(stored: Range, needed: int, at: float) -> Range:
    """The bytes of a stored sound to read for a window of ``needed`` samples.

    Args:
        stored: (offset, size) of its 16-bit samples.
        needed: length of the window in samples.
        at: position of the window, in [0, 1); a sound that is too short is read whole.

    Raises:
        ValueError: the sound has no samples.
    """
    offset, size = stored
    if size <= 0:
        raise ValueError("its sound has no samples according to the index: run 'aiaic verify'")
    left = size // _SAMPLE_BYTES - needed
    if left <= 0:
        return stored
    return offset + int(at * (left + 1)) * _SAMPLE_BYTES, needed * _SAMPLE_BYTES


def window(pcm: bytes, needed: int, at: float, *, roll: bool) -> NDArray[np.int16]:
    """Turn the bytes of :func:`sound_range` into ``needed`` samples; a view if their number fits.

    Args:
        pcm: 16-bit samples, little endian.
        needed: length of the window in samples; a shorter sound is repeated.
        at: how far a short sound is rotated, in [0, 1).
        roll: whether a short sound is rotated.

    Raises:
        ValueError: there are no bytes, or an odd number of them.
    """
    if not pcm or len(pcm) % _SAMPLE_BYTES:
        raise ValueError(f"{len(pcm)} bytes are not a sound of 16-bit samples")
    sound = np.frombuffer(pcm, "<i2")
    if len(sound) == needed:
        return sound
    if roll:
        sound = np.roll(sound, int(at * len(sound)))
    return np.tile(sound, -(-needed // len(sound)))[:needed]
