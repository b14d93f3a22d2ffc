"""Joins predicted chroma with the original lightness at the original's size and depth."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from aiaic.color import fit_to_gamut, lab_to_rgb, lightness, picture_to_rgb

_STRIP_PIXELS = 1 << 20


def upsample_and_join(
    rgb: NDArray[Any], ab: Float[Tensor, "1 2 h w"], *, strip_pixels: int = _STRIP_PIXELS
) -> NDArray[Any]:
    """Upsample chroma to a picture's size and join it with the picture's lightness.

    Works in strips, so that memory does not grow with the picture.

    Args:
        rgb: sRGB [h w 3], uint8 or uint16, of any size; the result has the same size and type.
        ab: chroma in Lab units, on the device to compute on.
        strip_pixels: number of pixels to join at a time.
    """
    height, width = rgb.shape[:2]
    result = np.empty_like(rgb)
    rows = max(1, strip_pixels // width)
    for top in range(0, height, rows):
        strip = slice(top, min(top + rows, height))
        L = lightness(picture_to_rgb(rgb[strip], ab.device))
        ab_strip = fit_to_gamut(L, _upsample_rows(ab, height, width, strip))
        joined = lab_to_rgb(L, ab_strip)[0].permute(1, 2, 0).cpu().numpy()
        result[strip] = (joined * np.iinfo(rgb.dtype).max).round()
    return result


def _upsample_rows(
    ab: Float[Tensor, "1 2 h w"], height: int, width: int, strip: slice
) -> Float[Tensor, "1 2 rows width"]:
    """Some rows of the chroma that ``F.interpolate`` would upsample bilinearly as a whole."""
    rows = torch.arange(strip.start, strip.stop, device=ab.device, dtype=ab.dtype)
    y = ((rows + 0.5) * (ab.shape[2] / height) - 0.5).clamp_min(0)
    upper = y.long()
    lower = (upper + 1).clamp_max(ab.shape[2] - 1)
    between = torch.lerp(ab[:, :, upper], ab[:, :, lower], (y - upper)[:, None])
    return F.interpolate(between, size=(len(rows), width), mode="bilinear", align_corners=False)
