"""Scores of coloured clips: one row of figures per clip and condition."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aiaic import metrics
from aiaic.color import rgb_to_lab

Scores = dict[str, dict[str, dict[str, float]]]
"""Condition or bound -> key of a clip -> metric -> value."""


def score(
    scores: Scores,
    name: str,
    keys: Sequence[str],
    result: UInt8[Tensor, "b 3 h w"],
    truth: UInt8[Tensor, "b 3 h w"],
) -> Float[Tensor, "b 2 h w"]:
    """Add the rows of some clips; gives the results' chroma, in Lab units."""
    colorfulness = metrics.colorfulness(result)
    ab = rgb_to_lab(result)[1]
    columns = {
        "psnr": metrics.psnr(result, truth),
        "mse_ab": metrics.mse_ab(ab, rgb_to_lab(truth)[1]),
        "colorfulness": colorfulness,
        "colorfulness_abs": metrics.colorfulness_abs(result),
        "colorfulness_difference": (colorfulness - metrics.colorfulness(truth)).abs(),
    }
    if min(result.shape[-2:]) >= metrics.SSIM_WINDOW_PX:
        columns["ssim"] = metrics.ssim(result, truth)
    for name_of_metric, column in columns.items():
        add(scores, name, keys, name_of_metric, column)
    return ab


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
