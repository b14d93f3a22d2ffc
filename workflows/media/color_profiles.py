"""Converts pictures between the colour space of an ICC profile and sRGB, with libvips."""

import functools
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray

from aiaic.color import to_8_bit

_PROFILE = "icc-profile-data"
_BANDS_OF_SPACE = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}


def to_srgb(image: Any, bits: int, name: str) -> tuple[Any, bytes | None, bool]:
    """Pixels in sRGB, the profile of the result, and whether that is sRGB."""
    profile = image.get(_PROFILE) if _PROFILE in image.get_fields() else None
    if profile is None and image.bands == 4:
        return image.icc_transform("srgb", input_profile="cmyk", depth=bits), _srgb_profile(), True
    if profile is not None:
        space = profile[16:20]
        if profile[36:40] != b"acsp" or space not in _BANDS_OF_SPACE:
            raise ValueError(f"'{name}' has a damaged colour profile: remove it first")
        grey_in_rgb = (space, image.bands) == (b"RGB ", 1)
        if _BANDS_OF_SPACE[space] != image.bands and not grey_in_rgb:
            raise ValueError(f"'{name}' has a colour profile for other channels: remove it first")
        if space != b"RGB ":
            return image.icc_transform("srgb", embedded=True, depth=bits), _srgb_profile(), True
    if image.bands == 1:
        kind = "rgb16" if bits == 16 else "srgb"
        image = image.bandjoin([image, image]).copy(interpretation=kind)
    if profile is None or _is_srgb(profile):
        return image, profile, True
    # Always 16 bits, because two conversions at 8 bits would lose levels.
    return image.icc_transform("srgb", embedded=True, depth=16), profile, False


def in_profile(rgb: NDArray[Any], profile: bytes | None, bits: int, *, is_srgb: bool) -> Any:
    """sRGB pixels converted to the colour space of a picture's profile."""
    if is_srgb:
        return image_of(to_8_bit(rgb) if bits == 8 else rgb)
    image = image_of(rgb).icc_import(input_profile="srgb")
    return with_profile(image, profile).icc_export(depth=bits)


@functools.lru_cache
def _is_srgb(profile: bytes) -> bool:
    """Whether a profile is sRGB, judged by its effect, because there are many variants."""
    values = np.linspace(0, 255, 6).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(values, values, values), -1).reshape(6, 36, 3)
    image = with_profile(image_of(grid), profile)
    reached = image.icc_transform("srgb", embedded=True).numpy()
    return bool(np.abs(reached.astype(int) - grid).max() <= 2)


@functools.lru_cache
def _srgb_profile() -> bytes:
    return pyvips.Image.profile_load("srgb")


def image_of(values: NDArray[Any]) -> Any:
    """Pixels [h w 3], or one band [h w], as an image of libvips."""
    deep = values.dtype == np.uint16
    kinds = ("srgb", "rgb16") if values.ndim == 3 else ("b-w", "grey16")
    return pyvips.Image.new_from_array(values).copy(interpretation=kinds[deep])


def with_profile(image: Any, profile: bytes | None) -> Any:
    profiled = image.copy()  # the metadata of a shared image must not change
    profiled.set_type(pyvips.GValue.blob_type, _PROFILE, profile)
    return profiled
