"""95 % confidence intervals of figures by the bootstrap (Efron 1979), percentile method.

Whole videos are drawn, since clips of one video are not independent. What is not drawn anew: whose
sound a clip got, and the gallery of the retrieval.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from aiaic.evaluation.columns import Rows
from aiaic.evaluation.conditions import MATCHED, MISMATCHED, MISSING, SWAPPED
from aiaic.evaluation.scorer import SWAPPED_WITHOUT_SOUND, WITH_SOUND, WITHOUT_SOUND

LEVEL = 0.95
RESAMPLES = 1_000

_AT_ONCE = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratio:
    """A figure that is a sum over clips divided by another: a mean, a difference, a share."""

    above: Mapping[str, float]
    """By clip."""
    below: Mapping[str, float]
    """Of the same clips."""

    @classmethod
    def mean(cls, values: Mapping[str, float]) -> "Ratio":
        """The mean of a figure of clips."""
        return cls(above=values, below=dict.fromkeys(values, 1.0))


def intervals(
    scores: Mapping[str, Rows],
    conditions: Collection[str],
    video: Mapping[str, int],
    hits: Mapping[str, float],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Intervals of PSNR, gain, harm, shares, relevance AUC and R@1, as far as they are there.

    Args:
        scores: of clips.
        conditions: those whose PSNR is asked for.
        video: of each clip by key.
        hits: 1 where a clip's sound retrieves its own picture first, else 0.
        seed: of the draws.

    Raises:
        ValueError: all clips are of one video.
    """
    videos, number = np.unique(list(video.values()), return_inverse=True)
    if len(videos) < 2:
        raise ValueError("all clips are of one video: there is nothing to draw anew")
    place = dict(zip(video, number.tolist(), strict=True))
    ratios = {f"psnr.{name}": Ratio.mean(_psnr(scores[name])) for name in conditions}
    ratios |= dict(_ratios(scores)) | ({"r_at_1": Ratio.mean(hits)} if hits else {})
    auc = _Auc.of(scores, place)
    sums = _sums(ratios, place, len(videos))
    drawn: dict[str, list[Array]] = {}
    for counts in _draws(len(videos), seed):
        above, below = (counts @ part for part in sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            for name, values in zip(ratios, (above / below).T, strict=True):
                drawn.setdefault(name, []).append(values)
        if auc is not None:
            drawn.setdefault("relevance_auc", []).append(auc.resampled(counts))
    found = {name: _percentiles(np.concatenate(values)) for name, values in drawn.items()}
    psnr = {name: found.pop(f"psnr.{name}") for name in conditions}
    described = {"level": LEVEL, "resamples": RESAMPLES, "videos": len(videos), "psnr": psnr}
    return described | {name: interval for name, interval in found.items() if interval}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Auc:
    """Relevance of fitting and unfitting sounds, from low to high."""

    video: Array
    """Of each score."""
    fits: Array
    """1 where the sound fits, else 0."""
    starts: Array
    """Where each distinct score begins."""

    @classmethod
    def of(cls, scores: Mapping[str, Rows], place: Mapping[str, int]) -> "_Auc | None":
        found = [
            (row["relevance"], place[key], float(name == MATCHED))
            for name in (MATCHED, MISMATCHED)
            for key, row in scores.get(name, {}).items()
            if "relevance" in row
        ]
        if len({fits for _, _, fits in found}) < 2:
            return None
        relevance, video, fits = (np.array(part) for part in zip(*sorted(found), strict=True))
        starts = np.flatnonzero(np.diff(relevance, prepend=-np.inf))
        return cls(video=video.astype(int), fits=fits, starts=starts)

    def resampled(self, counts: Float[Array, "r v"]) -> Float[Array, " r"]:
        """The AUC with each video as often as it was drawn; ties count half."""
        weights = counts[:, self.video]
        fitting = np.add.reduceat(weights * self.fits, self.starts, axis=1)
        others = np.add.reduceat(weights * (1 - self.fits), self.starts, axis=1)
        below = np.cumsum(others, axis=1) - others / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return (fitting * below).sum(1) / (fitting.sum(1) * others.sum(1))


def _ratios(scores: Mapping[str, Rows]) -> Iterator[tuple[str, Ratio]]:
    matched, mismatched = scores.get(MATCHED, {}), scores.get(MISMATCHED, {})
    missing = scores.get(MISSING, {})
    for name, better, worse, keys in (
        ("guidance_gain_db", matched, missing, matched.keys()),
        ("harm_db", missing, mismatched, mismatched.keys()),
    ):
        if keys:
            yield name, Ratio.mean({k: better[k]["psnr"] - worse[k]["psnr"] for k in keys})
    for name, condition, without in (
        ("oracle_share", MATCHED, WITHOUT_SOUND),
        ("swapped_share", SWAPPED, SWAPPED_WITHOUT_SOUND),
    ):
        rows, deaf = scores.get(condition, {}), scores.get(without, {})
        if rows and deaf:
            best = scores[WITH_SOUND] if condition == MATCHED else {}
            yield (
                name,
                Ratio(
                    above={k: deaf[k]["mse_ab"] - rows[k]["mse_ab"] for k in rows},
                    below={
                        k: deaf[k]["mse_ab"] - (best[k]["mse_ab"] if best else 0.0) for k in rows
                    },
                ),
            )


def _psnr(rows: Rows) -> dict[str, float]:
    return {key: row["psnr"] for key, row in rows.items()}


def _sums(
    ratios: Mapping[str, Ratio], place: Mapping[str, int], videos: int
) -> tuple[Float[Array, "v f"], Float[Array, "v f"]]:
    """Of each video and figure what stands above and below the line."""
    above, below = (np.zeros((videos, len(ratios))) for _ in range(2))
    for number, ratio in enumerate(ratios.values()):
        rows = [place[key] for key in ratio.above]
        np.add.at(above[:, number], rows, list(ratio.above.values()))
        np.add.at(below[:, number], rows, [ratio.below[key] for key in ratio.above])
    return above, below


def _draws(videos: int, seed: int) -> Iterator[Float[Array, "r v"]]:
    """How often each video was drawn, some resamples at a time."""
    generator = np.random.default_rng(seed)
    for _ in range(RESAMPLES // _AT_ONCE):
        drawn = generator.integers(videos, size=(_AT_ONCE, videos))
        flat = drawn + videos * np.arange(_AT_ONCE)[:, None]
        counts = np.bincount(flat.ravel(), minlength=_AT_ONCE * videos)
        yield counts.reshape(_AT_ONCE, videos).astype(float)


def _percentiles(values: Float[Array, " r"]) -> dict[str, float]:
    """The middle 95 %; draws in which a figure has no clips are left out."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return {}
    low, high = np.quantile(finite, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return {"low": float(low), "high": float(high)}
