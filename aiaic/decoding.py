"""Bytes of a shard -> squares of pictures and windows of sound, as numpy arrays."""

import struct

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from aiaic.audio import AudioConfig

_HEADER = struct.Struct("<4s4x8sIHHIIHH4sI")
_KIND = [b"RIFF", b"WAVEfmt ", 16, 1, 1, 16, b"data"]  # 16 bytes of format: PCM, one channel


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


def cut(wav: bytes, audio: AudioConfig, at: float, *, roll: bool) -> NDArray[np.int16]:
    """A window of long sound, or short sound repeated and, with ``roll``, rotated.

    Raises:
        ValueError: it is no sound as shards hold it, or of another sample rate.
    """
    sound, rate = _samples(wav)
    if rate != audio.sample_rate_hz:
        raise ValueError(
            f"the shards' sound has {rate} Hz, the recipe's model.audio.sample_rate_hz is "
            f"{audio.sample_rate_hz}: rebuild the shards or change the recipe"
        )
    needed = audio.samples
    if len(sound) >= needed:
        start = int(at * (len(sound) - needed + 1))
        return sound[start : start + needed]
    if roll:
        sound = np.roll(sound, int(at * len(sound)))
    return np.tile(sound, -(-needed // len(sound)))[:needed]


def _samples(wav: bytes) -> tuple[NDArray[np.int16], int]:
    """The samples of a WAV file as shards hold it, without a copy, and their rate.

    Shards hold one kind of file, 16 bit, mono, with nothing between its header and its samples, so
    that these are a view. ``wave`` takes six times as long for a window, libsndfile, which calls
    back into Python for bytes in memory, fifty times: a fifth of what the picture takes.
    """
    if len(wav) > _HEADER.size:
        *kind, rate, _, _, bits, data, size = _HEADER.unpack_from(wav)
        if [*kind, bits, data] == _KIND and _HEADER.size + size == len(wav):
            return np.frombuffer(wav, "<i2", offset=_HEADER.size), rate
    raise ValueError(
        "a sound of the shards is not 16-bit mono WAV as `aiaic prepare` writes it: rebuild them, "
        "or see `aiaic verify`"
    )
