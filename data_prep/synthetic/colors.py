"""CIE Lab (D65, 2 degree observer) <-> sRGB, and the 8-bit planes of video codecs.

Lab as in CIE 15:2004, sRGB as in IEC 61966-2-1, luma and chroma as in ITU-R BT.601, studio range.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

WHITE = (0.95047, 1.0, 1.08883)
XYZ_TO_RGB = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
RGB_TO_Y = (0.2126729, 0.7151522, 0.0721750)


def lab_to_linear(L: Floats, ab: Floats) -> Floats:
    """``L`` [h w] in [0, 100] and ``ab`` [2 h w] -> linear sRGB [3 h w], *not* clipped.

    Values outside [0, 1] are outside the sRGB gamut.
    """
    fy = (L + 16) / 116
    roots = (fy + ab[0] / 500, fy, fy - ab[1] / 200)
    xyz = np.stack([white * _cube(root) for white, root in zip(WHITE, roots, strict=True)])
    return np.stack([weighted_sum(row, xyz) for row in XYZ_TO_RGB])


def lab_to_rgb(L: Floats, ab: Floats) -> Bytes:
    """``L`` [h w] and ``ab`` [2 h w] -> 8-bit sRGB [h w 3], clipped to the gamut."""
    rgb = _compress(np.clip(lab_to_linear(L, ab), 0, 1))
    return np.moveaxis(np.rint(255 * rgb), 0, 2).astype(np.uint8)


def lab_to_yuv420(L: Floats, ab: Floats) -> tuple[Bytes, Bytes, Bytes]:
    """``L`` [h w] and ``ab`` [2 h w], h and w even -> planes Y [h w], Cb and Cr [h/2 w/2].

    H.264 halves the resolution of chroma, and lightness depends on luma *and* chroma. So the luma
    is chosen last, given the chroma that a decoder will see: the decoded ``L`` is the requested one
    for every colour ("constant luminance"; Poynton, Digital Video and HD, 2nd ed., ch. 8).
    """
    linear = np.clip(lab_to_linear(L, ab), 0, 1)
    target = weighted_sum(RGB_TO_Y, linear)
    r, g, b = _compress(linear)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    cb = _halved((b - luma) / 1.772)
    cr = _halved((r - luma) / 1.402)
    blue, red = (_doubled(np.rint(224 * c) / 224) for c in (cb, cr))
    offsets = (1.402 * red, -0.344136 * blue - 0.714136 * red, 1.772 * blue)
    luma = _newton_step(luma, offsets, target)
    planes = (16 + 219 * luma, 128 + 224 * cb, 128 + 224 * cr)
    y, u, v = (np.clip(np.rint(p), 16, 240).astype(np.uint8) for p in planes)
    return y, u, v


def _newton_step(luma: Floats, offsets: tuple[Floats, Floats, Floats], target: Floats) -> Floats:
    """One step towards the luma whose decoded luminance is ``target``, with fixed chroma."""
    luminance, slope = np.zeros_like(luma), np.zeros_like(luma)
    for weight, offset in zip(RGB_TO_Y, offsets, strict=True):
        encoded = np.clip(luma + offset, 0.04045, 1)
        linear = ((encoded + 0.055) / 1.055) ** 2.4
        luminance += weight * linear
        slope += weight * linear * 2.4 / (encoded + 0.055)
    return luma + (target - luminance) / slope


def weighted_sum(weights: Sequence[float], layers: Floats) -> Floats:
    """Sum of ``layers`` [n h w] by ``weights`` [n], without BLAS, which rounds by thread count."""
    return np.einsum("n,nhw->hw", np.asarray(weights, np.float32), layers)


def _cube(f: Floats) -> Floats:
    """The inverse of Lab's cube root with its linear segment."""
    return np.where(f > 6 / 29, f * f * f, 3 * (6 / 29) ** 2 * (f - 4 / 29))


def _compress(linear: Floats) -> Floats:
    """The sRGB transfer curve, linear [0, 1] -> encoded [0, 1]."""
    return np.where(
        linear <= 0.0031308,
        12.92 * linear,
        1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055,
    )


def _halved(plane: Floats) -> Floats:
    """Mean of each 2 x 2 block."""
    h, w = plane.shape
    return plane.reshape(h // 2, 2, w // 2, 2).mean(axis=(1, 3))


def _doubled(plane: Floats) -> Floats:
    """Bilinear upsampling by two."""
    h, w = plane.shape
    return np.asarray(
        Image.fromarray(plane).resize((2 * w, 2 * h), Image.Resampling.BILINEAR), np.float32
    )
