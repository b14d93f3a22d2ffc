"""Scores of colorized clips: one row of metrics per clip and condition."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aiaic.color import ab_distance, rgb_to_lab
from aiaic.evaluation import metrics
from aiaic.evaluation.perceptual import Lpips

Rows = Mapping[str, Mapping[str, float]]
"""Key of a clip -> metric -> value."""
Scores = dict[str, dict[str, dict[str, float]]]
"""Condition, bound or :data:`PICTURE` -> key of a clip -> metric -> value."""

PICTURE = "picture"
"""Rows of the true picture itself: its colourfulness, and its mean chroma ``a`` and ``b``."""
RENDERING = "rendering"
"""Rows of the mean chroma of the scene in the mean colours of its own class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """Pictures that results are compared with, and what every comparison needs of them."""

    rgb: UInt8[Tensor, "b 3 h w"]
    ab: Float[Tensor, "b 2 h w"]
    """In Lab units."""
    colorfulness: Float[Tensor, " b"]

    @classmethod
    def of(cls, rgb: UInt8[Tensor, "b 3 h w"]) -> "Target":
        """The target for some pictures."""
        return cls(rgb=rgb, ab=rgb_to_lab(rgb)[1], colorfulness=metrics.colorfulness(rgb))

    def rows(self, rows: Sequence[int]) -> "Target":
        """The target of some of the clips."""
        if len(rows) == len(self.rgb):
            return self
        chosen = list(rows)
        return Target(
            rgb=self.rgb[chosen], ab=self.ab[chosen], colorfulness=self.colorfulness[chosen]
        )


def score_bound(
    scores: Scores,
    name: str,
    keys: Sequence[str],
    result: UInt8[Tensor, "b 3 h w"],
    target: Target,
) -> Float[Tensor, "b 2 h w"]:
    """Add PSNR and chroma error of some clips; returns the chroma of the results, in Lab units."""
    ab = rgb_to_lab(result)[1]
    add(scores, name, keys, "psnr", metrics.psnr(result, target.rgb))
    add(scores, name, keys, "mse_ab", metrics.mse_ab(ab, target.ab))
    return ab


def score(
    scores: Scores,
    name: str,
    keys: Sequence[str],
    result: UInt8[Tensor, "b 3 h w"],
    target: Target,
    lpips: Lpips | None = None,
) -> Float[Tensor, "b 2 h w"]:
    """Like :func:`score_bound`, with SSIM, colourfulness and, given its network, LPIPS."""
    colorfulness = metrics.colorfulness(result)
    add(scores, name, keys, "colorfulness", colorfulness)
    add(scores, name, keys, "colorfulness_abs", metrics.colorfulness_abs(result))
    difference = (colorfulness - target.colorfulness).abs()
    add(scores, name, keys, "colorfulness_difference", difference)
    if min(result.shape[-2:]) >= metrics.SSIM_WINDOW_PX:
        add(scores, name, keys, "ssim", metrics.ssim(result, target.rgb))
    if lpips is not None:
        add(scores, name, keys, "lpips", lpips(result, target.rgb))
    return score_bound(scores, name, keys, result, target)


def add_chroma(
    scores: Scores, name: str, keys: Sequence[str], ab: Float[Tensor, "b 2 h w"]
) -> None:
    """Add the mean chroma of some pictures, in Lab units."""
    for metric, values in zip("ab", ab.double().mean((2, 3)).T, strict=True):
        add(scores, name, keys, metric, values)


def add_distances(
    scores: Scores,
    name: str,
    first: dict[str, Float[Tensor, "2 h w"]],
    second: dict[str, Float[Tensor, "2 h w"]],
) -> None:
    """Add the chroma distance of two results for the same picture, for clips that have both."""
    both = [key for key in first if key in second]
    if both:
        pair = [torch.stack([results[key] for key in both]) for results in (first, second)]
        add(scores, name, both, "ab_distance", ab_distance(*pair))


def add(
    scores: Scores, name: str, keys: Sequence[str], metric: str, values: Float[Tensor, " b"]
) -> None:
    """Add one metric of some clips; NaN means that a clip has none."""
    rows = scores.setdefault(name, {})
    for key, value in zip(keys, values.tolist(), strict=True):
        if not math.isnan(value):
            rows.setdefault(key, {})[metric] = value


def merge(parts: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]]) -> Scores:
    """Merge the scores of parts of the clips, in order."""
    whole: Scores = {}
    for part in parts:
        for name, rows in part.items():
            whole.setdefault(name, {}).update({key: dict(row) for key, row in rows.items()})
    return whole


def column(rows: Rows, metric: str) -> list[float]:
    """The values of a metric, of the clips that have it."""
    return [row[metric] for row in rows.values() if metric in row]


def mean(rows: Rows, keys: Collection[str], metric: str) -> float:
    """The mean of a metric over certain clips, all of which have it."""
    return float(np.mean([rows[key][metric] for key in keys]))
