"""Quality of a clip: measures of its pictures, and filters with thresholds on them.

Every decoded clip is measured and the index contains the measures, so that new thresholds rebuild
only the shards in which a clip's fate changes.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_prep.media.sample import Reason

FILTER_REASONS = ("no_sound", "grey", "still")
"""Reasons for which ``judge`` rejects."""
_HASH_SIDE, _HASH_INPUT = 8, 32
_BAR_LEVEL = 20
"""Brightest pixel of a black bar, out of 255: compression makes black lighter."""
_LUMA = np.array([77, 150, 29], np.int32)
_MIN_BAR_SHARE, _MIN_KEPT_SHARE = 0.02, 0.4


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Thresholds under which a clip is rejected; all are off by default."""

    require_sound: bool = False
    """Reject clips without usable sound instead of writing them without it."""
    min_colorfulness: float | None = None
    """Reject grey clips: those whose most colourful picture is below this. 5 is barely tinted, 15
    slightly colourful (Hasler and Suesstrunk 2003)."""
    min_motion: float | None = None
    """Reject still clips: those that change by less, in levels of 255; 1 is hardly any movement."""


class Measured(Protocol):
    """The measures that filters compare with their thresholds."""

    @property
    def sound_fate(self) -> str: ...

    @property
    def colorfulness(self) -> float: ...

    @property
    def motion(self) -> float | None: ...


def judge(clip: Measured, filters: Filters) -> tuple[Reason, str] | None:
    """The reason for a clip's rejection and what was found; None if it passes.

    Records contain both, so a change of these texts rebuilds shards.
    """
    if filters.require_sound and clip.sound_fate != "kept":
        return "no_sound", clip.sound_fate
    least = filters.min_colorfulness
    if least is not None and clip.colorfulness < least:
        return "grey", f"colourfulness {clip.colorfulness:.1f}; at least {least:g} is asked for"
    least = filters.min_motion
    if least is not None and clip.motion is not None and clip.motion < least:
        return "still", f"changes by {clip.motion:.2f} levels; at least {least:g} is asked for"
    return None


def colorfulness(image: NDArray[np.uint8]) -> float:
    """Colourfulness M3 of an sRGB picture [h w 3] (Hasler and Suesstrunk 2003).

    Every other row and column is enough. Integers are summed, so that the result is the same on
    every processor.
    """
    red, green, blue = (image[::2, ::2, channel].astype(np.int32) for channel in range(3))
    rg_mean, rg_variance = _moments(red - green)
    yb_mean, yb_variance = _moments(red + green - 2 * blue)
    spread = math.sqrt(rg_variance + yb_variance / 4)
    return spread + 0.3 * math.sqrt(rg_mean**2 + yb_mean**2 / 4)


def motion(thumbnails: Sequence[NDArray[np.uint8]]) -> float | None:
    """Largest mean difference between two small grey pictures, in levels of 255.

    None if there are fewer than two: whether anything moves is unknown then.
    """
    pairs = itertools.combinations([picture.astype(np.int32) for picture in thumbnails], 2)
    differences = [int(np.abs(one - other).sum()) / one.size for one, other in pairs]
    return round(max(differences), 3) if differences else None


def perceptual_hash(grey: NDArray[np.uint8]) -> str:
    """DCT hash (Zauner 2010) of a grey thumbnail [32 32]: 64 bits as 16 hexadecimal digits.

    Similar pictures differ in few bits; scale, compression and brightness hardly matter.
    """
    spectrum = _DCT @ grey.astype(np.int64) @ _DCT.T
    bits = spectrum > np.sort(spectrum, axis=None)[spectrum.size // 2]
    return np.packbits(bits).tobytes().hex()


def letterbox(images: Sequence[NDArray[np.uint8]]) -> tuple[int, int, int, int] | None:
    """The area inside the black bars of all pictures [h w 3]: left, top, width, height.

    None if there are no bars. A bar must be black in every picture, and enough of the picture must
    be left: a dark scene is not a letterbox.
    """
    # Luma only: subsampled chroma bleeds into the bars.
    brightest = np.maximum.reduce([image @ _LUMA for image in images]) / _LUMA.sum()
    height, width = brightest.shape
    rows = np.flatnonzero(brightest.max(axis=1) > _BAR_LEVEL)
    columns = np.flatnonzero(brightest.max(axis=0) > _BAR_LEVEL)
    if not len(rows):
        return None
    top, bottom = _bars(int(rows[0]), int(rows[-1]) + 1, height)
    left, right = _bars(int(columns[0]), int(columns[-1]) + 1, width)
    kept = (right - left) * (bottom - top)
    if kept == width * height or kept < _MIN_KEPT_SHARE * width * height:
        return None
    return left, top, right - left, bottom - top


def _bars(first: int, end: int, length: int) -> tuple[int, int]:
    """First and end between two opposite bars; a very thin bar counts as part of the picture."""
    least = _MIN_BAR_SHARE * length
    return first if first >= least else 0, end if length - end >= least else length


def _moments(values: NDArray[np.int32]) -> tuple[float, float]:
    """Mean and variance."""
    count = values.size
    mean = int(values.sum(dtype=np.int64)) / count
    square = int(np.square(values).sum(dtype=np.int64)) / count
    return mean, max(square - mean**2, 0.0)


def _dct() -> NDArray[np.int64]:
    """The lowest frequencies of the DCT-II as integers, whose sums are the same everywhere."""
    frequency, position = np.arange(_HASH_SIDE)[:, None], np.arange(_HASH_INPUT)[None]
    basis = np.cos(np.pi * frequency * (2 * position + 1) / (2 * _HASH_INPUT))
    basis[0] /= math.sqrt(2)
    return np.rint(4096 * basis).astype(np.int64)


_DCT = _dct()
