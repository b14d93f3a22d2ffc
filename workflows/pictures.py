"""Files of pictures -> sRGB arrays, and back."""

import io
import warnings
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded."""

_FORMATS = ("PNG", "JPEG")
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")
_JPEG_QUALITY = 95


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture we read and write."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """An upright sRGB picture [h w 3], its EXIF rotation applied; transparency is dropped.

    Raises:
        ValueError: it is no PNG or JPEG, damaged, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours comes first
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(
                f"'{name}' has {image.width} x {image.height} pixels, more than "
                f"{MAX_PIXELS // 1_000_000} million: make it smaller first"
            )
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _SIXTEEN_BIT:
            grey = np.clip(np.asarray(upright, np.float64) / 257, 0, 255).round().astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.asarray(upright.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise ValueError(f"'{name}' is no picture that can be read: give a PNG or JPEG") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"'{name}' is a damaged picture: {error}") from None


def encode(rgb: NDArray[np.uint8], suffix: str) -> bytes:
    """A file's content, PNG or JPEG by suffix; JPEG keeps chroma at full resolution."""
    stream = io.BytesIO()
    image = Image.fromarray(rgb)
    if suffix.lower() == ".png":
        image.save(stream, "PNG")
    else:
        image.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling="4:4:4")
    return stream.getvalue()
