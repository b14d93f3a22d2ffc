"""Scores of coloured clips: one row of figures per clip and condition."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aiaic.color import rgb_to_lab
from aiaic.evaluation import metrics
from aiaic.evaluation.perceptual import Lpips

Scores = dict[str, dict[str, dict[str, float]]]
"""Condition, bound or :data:`PICTURE` -> key of a clip -> metric -> value."""

PICTURE = "picture"
"""Row of what the true picture is: its colourfulness, and its mean chroma ``a`` and ``b``."""
RENDERING = "rendering"
"""Row of the mean chroma of the scene in the mean colours of its own class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What results are scored against, with what every score needs of it."""

    rgb: UInt8[Tensor, "b 3 h w"]
    ab: Float[Tensor, "b 2 h w"]
    """In Lab units."""
    colorfulness: Float[Tensor, " b"]

    @classmethod
    def of(cls, rgb: UInt8[Tensor, "b 3 h w"]) -> "Target":
        """The target that a picture is."""
        return cls(rgb=rgb, ab=rgb_to_lab(rgb)[1], colorfulness=metrics.colorfulness(rgb))

    def rows(self, rows: Sequence[int]) -> "Target":
        """The target of some clips."""
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
    """Add PSNR and error of chroma of some clips; gives the results' chroma, in Lab units."""
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
    """Like :func:`score_bound`, with SSIM, colourfulness and, where there is one, LPIPS as well."""
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


def merge(parts: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]]) -> Scores:
    """The scores of all clips from those of some at a time, in the order of the parts."""
    whole: Scores = {}
    for part in parts:
        for name, rows in part.items():
            whole.setdefault(name, {}).update({key: dict(row) for key, row in rows.items()})
    return whole


def add(
    scores: Scores, name: str, keys: Sequence[str], metric: str, values: Float[Tensor, " b"]
) -> None:
    """Add one figure of some clips; NaN stands for none."""
    rows = scores.setdefault(name, {})
    for key, value in zip(keys, values.tolist(), strict=True):
        if not math.isnan(value):
            rows.setdefault(key, {})[metric] = value


def add_distances(
    scores: Scores,
    name: str,
    first: dict[str, Float[Tensor, "2 h w"]],
    second: dict[str, Float[Tensor, "2 h w"]],
) -> None:
    """Add how far two results of the same picture lie apart, for clips that have both."""
    both = [key for key in first if key in second]
    if both:
        pair = [torch.stack([results[key] for key in both]) for results in (first, second)]
        add(scores, name, both, "ab_distance", metrics.ab_distance(*pair))
