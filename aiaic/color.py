"""CIE Lab (D65, 2 degrees) on batches of sRGB pictures."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
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


def rgb_to_lab(
    rgb: Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b 3 h w"],
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 2 h w"]]:
    """Lightness ``L`` in [0, 100] and chroma ``ab`` (about -108 to 98) of sRGB pictures.

    Args:
        rgb: sRGB, uint8 in [0, 255] or float in [0, 1].
    """
    xyz = _mix(_RGB_TO_XYZ, _linear(rgb)).unbind(1)
    # By plain numbers: a tensor of them would be copied to the device, which waits for it.
    xyz = torch.stack([value / white for value, white in zip(xyz, _WHITE_D65, strict=True)], 1)
    f = torch.where(xyz > _EPSILON, xyz.clamp_min(_EPSILON) ** (1 / 3), _KAPPA * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return (116 * y - 16).unsqueeze(1), torch.stack((500 * (x - y), 200 * (y - z)), 1)


def lightness(
    rgb: Float[Tensor, "b 3 h w"] | UInt8[Tensor, "b 3 h w"],
) -> Float[Tensor, "b 1 h w"]:
    """``L`` of ``rgb_to_lab`` alone, at half of the cost."""
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
    """Linear light in sRGB's primaries; what sRGB has lies in [0, 1]."""
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


def _linear(rgb: Tensor) -> Tensor:
    value = rgb.float() / 255.0 if rgb.dtype == torch.uint8 else rgb
    curve = ((value + 0.055) / 1.055).clamp_min(0) ** 2.4
    return torch.where(value > 0.04045, curve, value / 12.92)


def _mix(
    matrix: Sequence[Sequence[float]], x: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b rows h w"]:
    """A matrix on channels, spelled out: a matrix product would run in bf16 under autocast."""
    first, second, third = x.unbind(1)
    return torch.stack([row[0] * first + row[1] * second + row[2] * third for row in matrix], 1)
