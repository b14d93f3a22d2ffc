"""Predicted chroma and original lightness -> a picture of the original's size and depth."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from aiaic.color import lab_to_linear, lab_to_rgb, lightness

_ROUNDING = 1e-5  # of linear light: a hundredth of a step of L at most, in the dark
_HALVINGS = 7
_STRIP_PIXELS = 1 << 20
_STEPS = 257  # of 16 bits in one of 8: 65535 / 255


def join_large(
    rgb: NDArray[Any], ab: Float[Tensor, "1 2 h w"], *, strip_pixels: int = _STRIP_PIXELS
) -> NDArray[Any]:
    """Enlarge chroma to a picture and join it with the picture's lightness, strip by strip.

    Args:
        rgb: sRGB [h w 3], uint8 or uint16, of any size; the result is of the same.
        ab: chroma in Lab units; computing happens on its device.
        strip_pixels: how many are joined at a time, which bounds the memory.
    """
    height, width = rgb.shape[:2]
    result = np.empty_like(rgb)
    rows = max(1, strip_pixels // width)
    for top in range(0, height, rows):
        strip = slice(top, min(top + rows, height))
        L = lightness(unit_rgb(rgb[strip], ab.device))
        ab_strip = into_srgb(L, _enlarged(ab, height, width, strip))
        coloured = lab_to_rgb(L, ab_strip)[0].permute(1, 2, 0).cpu().numpy()
        result[strip] = (coloured * np.iinfo(rgb.dtype).max).round()
    return result


def unit_rgb(rgb: NDArray[Any], device: torch.device | str = "cpu") -> Float[Tensor, "1 3 h w"]:
    """A picture [h w 3], uint8 or uint16, as sRGB in [0, 1]."""
    contiguous = np.ascontiguousarray(rgb, np.uint8 if rgb.dtype == np.uint8 else np.int32)
    values = torch.tensor(contiguous, device=device)
    return values.permute(2, 0, 1)[None].float() / float(np.iinfo(rgb.dtype).max)


def to_8_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values of 8 or 16 bits as 8-bit, rounded."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) + _STEPS // 2) // _STEPS).astype(np.uint8)


def into_srgb(
    L: Float[Tensor, "b 1 h w"], ab: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, "b 2 h w"]:
    """Shrink chroma towards grey, its hue kept, where sRGB has no such colour of this lightness.

    Clipping channels instead, as ``lab_to_rgb`` does, would change the lightness.
    """
    lost = ~_in_srgb(L, ab)[:, 0]
    if not lost.any():
        return ab
    L_lost = L[:, 0][lost].view(1, 1, 1, -1)
    ab_lost = ab.permute(1, 0, 2, 3)[:, lost].view(1, 2, 1, -1)
    low, high = torch.zeros_like(L_lost), torch.ones_like(L_lost)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = _in_srgb(L_lost, middle * ab_lost)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    result = ab.permute(1, 0, 2, 3).clone()
    result[:, lost] = (low * ab_lost)[0, :, 0]
    return result.permute(1, 0, 2, 3)


def _enlarged(
    ab: Float[Tensor, "1 2 h w"], height: int, width: int, strip: slice
) -> Float[Tensor, "1 2 rows width"]:
    """Some rows of chroma enlarged bilinearly to a size, as ``F.interpolate`` does all of it."""
    rows = torch.arange(strip.start, strip.stop, device=ab.device, dtype=ab.dtype)
    y = ((rows + 0.5) * (ab.shape[2] / height) - 0.5).clamp_min(0)
    upper = y.long()
    lower = (upper + 1).clamp_max(ab.shape[2] - 1)
    between = torch.lerp(ab[:, :, upper], ab[:, :, lower], (y - upper)[:, None])
    return F.interpolate(between, size=(len(rows), width), mode="bilinear", align_corners=False)


def _in_srgb(L: Tensor, ab: Tensor) -> Tensor:
    least, most = lab_to_linear(L, ab).aminmax(dim=1, keepdim=True)
    return (least > -_ROUNDING) & (most < 1 + _ROUNDING)
