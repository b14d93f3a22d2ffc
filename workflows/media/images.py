"""Reads pictures as sRGB arrays, and writes PNG, JPEG, WebP and TIFF files.

A written picture keeps what the other one had: 16 bits if the format has them, transparency, EXIF,
XMP and the colour profile. A picture in another RGB space (Display P3, Adobe RGB) is colorized in
sRGB and converted back; grey and CMYK profiles become sRGB. TIFF keeps profile, XMP and
description, but not EXIF, which libvips neither reads nor writes there.

GIF, BMP, AVIF and HEIC are read as well. The format is detected from the content, and only the
loaders of these formats can be reached.
"""

import dataclasses
import io
import re
from typing import Any

import numpy as np
import PIL.Image
import pyvips
from numpy.typing import NDArray

from aiaic.color import to_8_bit
from data_prep import storage
from workflows.media.color_profiles import image_of, in_profile, to_srgb, with_profile

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff")
"""Suffixes of pictures that can be read and written."""
SOURCE_SUFFIXES = (*SUFFIXES, ".bmp", ".gif", ".avif", ".heic", ".heif")
"""Suffixes of pictures that can be read; libvips may lack the decoder of HEIC."""
MAX_PIXELS = 64_000_000
"""Larger pictures are rejected before they are decoded."""

_LOADERS = {
    b"\x89PNG\r\n\x1a\n": "pngload_buffer",
    b"\xff\xd8\xff": "jpegload_buffer",
    b"II*\0": "tiffload_buffer",
    b"MM\0*": "tiffload_buffer",
    b"GIF8": "gifload_buffer",
}
_HEIF_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_JPEG = {"Q": 95, "subsample_mode": "off"}
_TIFF = {"compression": "deflate", "predictor": "horizontal"}
_SAVERS: dict[str, dict[str, Any]] = {
    ".png": {},
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".jfif": _JPEG,
    ".webp": {"Q": 95, "smart_subsample": True},
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
_OPAQUE_SUFFIXES = (".jpg", ".jpeg", ".jfif")
_DEEP_SUFFIXES = (".png", ".tif", ".tiff")
_SPACES = ("b-w", "grey16", "srgb", "rgb16", "cmyk")
_KEPT_FIELDS = ("exif-", "xmp-data", "image-description")
_ORIENTATION_IN_XMP = re.compile(rb'(tiff:Orientation(?:="|>))[1-8]')

pyvips.block_untrusted_set(True)
pyvips.cache_set_max(0)  # each picture is read once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded file: its pixels, upright and in sRGB, and everything else to keep."""

    rgb: NDArray[Any]
    """sRGB [h w 3], uint8 or uint16."""
    alpha: NDArray[Any] | None = None
    """Opacity [h w], at the file's depth."""
    bits: int = 8
    """Depth of the file: 8 or 16. ``rgb`` may be deeper, so that a profile loses no levels."""
    profile: bytes | None = None
    """ICC profile of the result; None: no profile, which means sRGB."""
    is_srgb: bool = True
    """Whether that profile is sRGB, so that pixels need no conversion."""
    metadata: tuple[tuple[int, str, Any], ...] = ()
    """EXIF, XMP and description as libvips represents them: type, name, value."""
    pixels_per_mm: tuple[float, float] = (1.0, 1.0)
    """Print resolution, horizontal and vertical; libvips's default of 1 if the file has none."""
    pages: int = 1
    """Number of pages of the file; this is the first."""


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture that can be read."""
    return storage.suffix_of(name) in SOURCE_SUFFIXES


def is_target(name: str) -> bool:
    """Whether a file's name is that of a picture that can be written."""
    return storage.suffix_of(name) in SUFFIXES


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """An upright 8-bit sRGB picture [h w 3], and nothing else of the file.

    Raises:
        ValueError: see :func:`read`.
    """
    return to_8_bit(read(content, name).rgb)


def encode(rgb: NDArray[Any], suffix: str) -> bytes:
    """The content of a file with only sRGB pixels; the suffix chooses the format."""
    return write(rgb, Picture(rgb=rgb), f"picture{suffix}")


def read(content: bytes, name: str) -> Picture:
    """Read the first page of a file, with its EXIF rotation applied.

    Raises:
        ValueError: the format is not supported, or the file is damaged, too large, neither 8- nor
            16-bit, or has a broken colour profile.
    """
    try:
        image = _open(content, name)
        _check_size(image.width, image.height, name)
        if image.format not in ("uchar", "ushort") or image.interpretation not in _SPACES:
            raise ValueError(
                f"'{name}' has pixels of kind {image.interpretation}, {image.format}: "
                "convert it to grey, RGB or CMYK with 8 or 16 bits first"
            )
        return _decoded(image, name)
    except pyvips.Error as error:
        problem = "is a damaged picture"
        if content[4:8] == b"ftyp":
            problem = "is damaged, or of a kind (HEIC) that this libvips cannot decode"
        raise ValueError(f"'{name}' {problem}: {_reason(error)}") from None


def write(rgb: NDArray[Any], like: Picture, target: str) -> bytes:
    """The content of a file with new pixels and everything else of another picture.

    JPEG and WebP are written at quality 95, JPEG with chroma at full resolution, and TIFF is
    deflated. JPEG and WebP have 8 bits, and JPEG has no transparency.

    Args:
        rgb: sRGB [h w 3], uint8 or uint16, of the size of ``like``.
        like: the other picture.
        target: place of the file, whose suffix chooses the format.

    Raises:
        ValueError: the picture is too large for the format (JPEG, WebP).
    """
    suffix = storage.suffix_of(target)
    try:
        return _with_all_of(like, rgb, suffix).write_to_buffer(suffix, **_SAVERS[suffix])
    except pyvips.Error as error:
        raise ValueError(f"cannot write '{target}': {_reason(error)}: use .png or .tif") from None


def _with_all_of(like: Picture, rgb: NDArray[Any], suffix: str) -> Any:
    """New pixels with everything else of another picture that the format supports."""
    bits = like.bits if suffix in _DEEP_SUFFIXES else 8
    image = in_profile(rgb, like.profile, bits, is_srgb=like.is_srgb)
    if like.alpha is not None and suffix not in _OPAQUE_SUFFIXES:
        alpha = like.alpha if bits == like.bits else to_8_bit(like.alpha)
        image = image.bandjoin(image_of(alpha))
    across, down = like.pixels_per_mm
    image = image.copy(xres=across, yres=down)
    for kind, field, value in like.metadata:
        image.set_type(kind, field, value)
    if like.metadata:
        image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    if like.profile is not None:
        image = with_profile(image, like.profile)
    return image


def dropped(like: Picture, suffix: str) -> list[str]:
    """What a result in this format loses of a picture, as short notes for a person."""
    notes: list[str] = []
    if like.pages > 1:
        notes.append(f"only the first of {like.pages} pages")
    if like.alpha is not None and suffix.lower() in _OPAQUE_SUFFIXES:
        notes.append("transparency lost in JPEG")
    if like.bits == 16 and suffix.lower() not in _DEEP_SUFFIXES:
        notes.append("16 bits reduced to 8")
    return notes


def _reason(error: pyvips.Error) -> str:
    return " ".join(str(error.detail or error.message).split())[:200]


def _open(content: bytes, name: str) -> Any:
    loader = next((_LOADERS[magic] for magic in _LOADERS if content.startswith(magic)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        loader = "webpload_buffer"
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        loader = "heifload_buffer"
    if content.startswith(b"BM"):
        return _open_bmp(content, name)
    if loader is None:
        raise ValueError(f"'{name}' is not a PNG, JPEG, WebP, TIFF, GIF, BMP, AVIF or HEIC picture")
    return pyvips.Operation.call(loader, content, fail_on="error")


def _open_bmp(content: bytes, name: str) -> Any:
    """A BMP picture, which libvips does not read."""
    try:
        with PIL.Image.open(io.BytesIO(content), formats=["BMP"]) as image:
            _check_size(image.width, image.height, name)
            mode = "RGBA" if image.mode == "RGBA" else "RGB"
            values = np.asarray(image.convert(mode))
    except (OSError, PIL.Image.DecompressionBombError) as error:
        raise ValueError(f"'{name}' is a damaged picture: {error}") from None
    return pyvips.Image.new_from_array(values).copy(interpretation="srgb")


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"'{name}' has {width} x {height} pixels, more than "
            f"{MAX_PIXELS // 1_000_000} million: reduce its size first"
        )


def _decoded(image: Any, name: str) -> Picture:
    bits = 16 if image.format == "ushort" else 8
    upright = image.autorot()
    alpha = None
    if upright.hasalpha():
        alpha = upright[upright.bands - 1].numpy()
        upright = upright.extract_band(0, n=upright.bands - 1)
    srgb, profile, is_srgb = to_srgb(upright, bits, name)
    fields = image.get_fields()
    return Picture(
        rgb=srgb.numpy(),
        alpha=alpha,
        bits=bits,
        profile=profile,
        is_srgb=is_srgb,
        metadata=tuple(
            (image.get_typeof(field), field, _upright_xmp(field, image.get(field)))
            for field in fields
            if field.startswith(_KEPT_FIELDS)
        ),
        pixels_per_mm=(upright.xres, upright.yres),
        pages=image.get("n-pages") if "n-pages" in fields else 1,
    )


def _upright_xmp(field: str, value: Any) -> Any:
    return _ORIENTATION_IN_XMP.sub(rb"\g<1>1", value) if field == "xmp-data" else value
