"""Colour arithmetic on sRGB pictures and CIE Lab (D65, 2 degrees)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

AB_SCALE = 110.0
"""Networks see and predict ``ab / AB_SCALE``; sRGB reaches -108 to 98, so this lies in (-1, 1)."""

# IEC 61966-2-1 primaries, and the D65 white point that scikit-image and kornia use as well.
_RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_XYZ_TO_RGB = torch.linalg.inv(torch.tensor(_RGB_TO_XYZ, dtype=torch.float64)).tolist()
_WHITE_D65 = (0.95047, 1.0, 1.08883)
_EPSILON = 0.008856
_KAPPA = 7.787

_GAMUT_TOLERANCE = 1e-5  # of linear light: at most a hundredth of a step of L, in the dark
_GAMUT_BISECTIONS = 7
_STEPS_16_BIT = 257  # of 16 bits in one step of 8 bits: 65535 / 255


def rgb_to_lab(
    rgb: Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b 3 h w"],
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 2 h w"]]:
    """Lightness ``L`` in [0, 100] and chroma ``ab`` (about -108 to 98) of sRGB pictures.

    Args:
        rgb: sRGB, uint8 in [0, 255] or float in [0, 1].
    """
    xyz = _mix(_RGB_TO_XYZ, _linear(rgb)).unbind(1)
    # Plain numbers, because copying a tensor of them to the device would synchronize with it.
    xyz = torch.stack([value / white for value, white in zip(xyz, _WHITE_D65, strict=True)], 1)
    f = torch.where(xyz > _EPSILON, xyz.clamp_min(_EPSILON) ** (1 / 3), _KAPPA * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return (116 * y - 16).unsqueeze(1), torch.stack((500 * (x - y), 200 * (y - z)), 1)


def lightness(
    rgb: Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b 3 h w"],
) -> Float[Tensor, "b 1 h w"]:
    """Only the ``L`` of :func:`rgb_to_lab`, at half the cost."""
    y = _mix(_RGB_TO_XYZ[1:2], _linear(rgb))
    return (
        116 * torch.where(y > _EPSILON, y.clamp_min(_EPSILON) ** (1 / 3), _KAPPA * y + 16 / 116)
        - 16
    )


def lab_to_rgb(
    L: Float[Tensor, "b 1 h w"], ab: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """sRGB in [0, 1]; colours outside sRGB are clipped per channel."""
    linear = lab_to_linear(L, ab).clamp(0, 1)
    curve = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curve, 12.92 * linear)


def lab_to_linear(
    L: Float[Tensor, "b 1 h w"], ab: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """Linear light in sRGB's primaries; colours inside the sRGB gamut are in [0, 1]."""
    y = (L[:, 0] + 16) / 116
    f = torch.stack((y + ab[:, 0] / 500, y, y - ab[:, 1] / 200), 1)
    xyz = torch.where(f > _EPSILON ** (1 / 3), f**3, (f - 16 / 116) / _KAPPA).unbind(1)
    xyz = torch.stack([value * white for value, white in zip(xyz, _WHITE_D65, strict=True)], 1)
    return _mix(_XYZ_TO_RGB, xyz)


def to_uint8(rgb: Float[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """Round sRGB in [0, 1] to 8 bits."""
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8)


def join(L: Float[Tensor, "b 1 h w"], ab: Float[Tensor, "b 2 h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """Join the original lightness with predicted chroma to an 8-bit sRGB picture."""
    return to_uint8(lab_to_rgb(L, ab))


def fit_to_gamut(
    L: Float[Tensor, "b 1 h w"], ab: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, "b 2 h w"]:
    """Reduce chroma, at constant hue, until sRGB has the colour at this lightness.

    Clipping the channels instead, as :func:`lab_to_rgb` does, would change the lightness.
    """
    outside = ~_in_gamut(L, ab)[:, 0]
    if not outside.any():
        return ab
    L_outside = L[:, 0][outside].view(1, 1, 1, -1)
    ab_outside = ab.permute(1, 0, 2, 3)[:, outside].view(1, 2, 1, -1)
    low, high = torch.zeros_like(L_outside), torch.ones_like(L_outside)
    for _ in range(_GAMUT_BISECTIONS):
        middle = (low + high) / 2
        fits = _in_gamut(L_outside, middle * ab_outside)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    result = ab.permute(1, 0, 2, 3).clone()
    result[:, outside] = (low * ab_outside)[0, :, 0]
    return result.permute(1, 0, 2, 3)


def ab_distance(
    first: Float[Tensor, "b 2 h w"], second: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, " b"]:
    """Mean distance in the ab plane of two pictures' chroma, in Lab units."""
    return (first - second).norm(dim=1).mean((1, 2))


def picture_to_rgb(
    picture: NDArray[Any], device: torch.device | str = "cpu"
) -> Float[Tensor, "1 3 h w"]:
    """An sRGB picture [h w 3], uint8 or uint16, as a batch of one with values in [0, 1]."""
    contiguous = np.ascontiguousarray(picture, np.uint8 if picture.dtype == np.uint8 else np.int32)
    values = torch.tensor(contiguous, device=device)
    return values.permute(2, 0, 1)[None].float() / float(np.iinfo(picture.dtype).max)


def to_8_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Round 16-bit values to 8 bits; 8-bit values are returned as they are."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.uint32) + _STEPS_16_BIT // 2) // _STEPS_16_BIT).astype(np.uint8)


def _in_gamut(L: Tensor, ab: Tensor) -> Tensor:
    least, most = lab_to_linear(L, ab).aminmax(dim=1, keepdim=True)
    return (least > -_GAMUT_TOLERANCE) & (most < 1 + _GAMUT_TOLERANCE)


def _linear(rgb: Tensor) -> Tensor:
    value = rgb.float() / 255.0 if rgb.dtype == torch.uint8 else rgb
    curve = ((value + 0.055) / 1.055).clamp_min(0) ** 2.4
    return torch.where(value > 0.04045, curve, value / 12.92)


def _mix(
    matrix: Sequence[Sequence[float]], x: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b rows h w"]:
    """Apply a matrix to channels; not by a matrix product, which autocast would run in bf16."""
    first, second, third = x.unbind(1)
    return torch.stack([row[0] * first + row[1] * second + row[2] * third for row in matrix], 1)
