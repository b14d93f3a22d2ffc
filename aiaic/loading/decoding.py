"""Bytes of a shard -> squares of pictures and windows of sound, as numpy arrays."""

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from aiaic.loading.sampler import Range

_SAMPLE_BYTES = 2


def decode_picture(jpeg: bytes) -> NDArray[np.uint8]:
    """sRGB, [h w 3]."""
    return simplejpeg.decode_jpeg(jpeg, "RGB")


def crop(rgb: NDArray[np.uint8], size: int, x: float, y: float) -> NDArray[np.uint8]:
    """Resize the short side to ``size`` and take the square at (x, y) in [0, 1) of what is left.

    A view where nothing is resized: whoever keeps it copies the rows of the crop alone.
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
    """The whole picture at another size, bicubic."""
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def sound_range(stored: Range, needed: int, at: float) -> Range:
    """The bytes of a stored sound that have to be read for a window of ``needed`` samples.

    Args:
        stored: (offset, size) of its 16-bit samples.
        needed: samples.
        at: where the window lies, in [0, 1); a short sound is read whole.

    Raises:
        ValueError: it has no samples.
    """
    offset, size = stored
    if size <= 0:
        raise ValueError("the index gives it a sound of no samples; see 'aiaic verify'")
    left = size // _SAMPLE_BYTES - needed
    if left <= 0:
        return stored
    return offset + int(at * (left + 1)) * _SAMPLE_BYTES, needed * _SAMPLE_BYTES


def window(pcm: bytes, needed: int, at: float, *, roll: bool) -> NDArray[np.int16]:
    """What :func:`sound_range` has given, as ``needed`` samples; a view of them where they suffice.

    Args:
        pcm: 16-bit samples, little endian.
        needed: samples.
        at: how far a short sound is rotated, in [0, 1).
        roll: whether it is; it is repeated in any case.

    Raises:
        ValueError: there is no sample, or half of one.
    """
    if not pcm or len(pcm) % _SAMPLE_BYTES:
        raise ValueError(f"a sound of {len(pcm)} bytes is none of 16-bit samples")
    sound = np.frombuffer(pcm, "<i2")
    if len(sound) == needed:
        return sound
    if roll:
        sound = np.roll(sound, int(at * len(sound)))
    return np.tile(sound, -(-needed // len(sound)))[:needed]
