"""95 % confidence intervals of metrics by the percentile bootstrap (Efron 1979).

Videos are resampled, not clips, since clips of one video are not independent. The sound partners
of clips and the gallery of the retrieval are held fixed.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from aiaic.evaluation.conditions import MATCHED, MISMATCHED, MISSING, SWAPPED
from aiaic.evaluation.scorer import SWAPPED_WITHOUT_SOUND, WITH_SOUND, WITHOUT_SOUND
from aiaic.evaluation.scores import Rows

LEVEL = 0.95
RESAMPLES = 1_000

_CHUNK_RESAMPLES = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratio:
    """A metric that is a ratio of two sums over clips: a mean, a difference of means, a share."""

    numerator: Mapping[str, float]
    """Summand of each clip."""
    denominator: Mapping[str, float]
    """Summand of each of the same clips."""

    @classmethod
    def mean(cls, values: Mapping[str, float]) -> "Ratio":
        """The mean of a value of clips."""
        return cls(numerator=values, denominator=dict.fromkeys(values, 1.0))


def intervals(
    scores: Mapping[str, Rows],
    conditions: Collection[str],
    video: Mapping[str, int],
    hits: Mapping[str, float],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Confidence intervals of PSNR, gain, harm, shares, relevance AUC and R@1, where defined.

    Args:
        scores: scores of clips.
        conditions: conditions whose PSNR gets an interval.
        video: number of each clip's video, by key.
        hits: 1 where a clip's sound retrieves its own picture first, else 0; may be empty.
        seed: seed of the resampling.

    Returns:
        ``level``, ``resamples``, ``videos``, ``psnr`` by condition, and the other metrics by name.
        An interval is a dict of ``low`` and ``high``.

    Raises:
        ValueError: all clips are of one video.
    """
    videos, number = np.unique(list(video.values()), return_inverse=True)
    if len(videos) < 2:
        raise ValueError("all clips are of one video, so there is nothing to resample")
    video_index = dict(zip(video, number.tolist(), strict=True))
    ratios = {f"psnr.{name}": Ratio.mean(_psnr(scores[name])) for name in conditions}
    ratios |= dict(_ratios(scores)) | ({"r_at_1": Ratio.mean(hits)} if hits else {})
    found = {
        name: _percentiles(values)
        for name, values in _resample(
            ratios, _Auc.of(scores, video_index), video_index, len(videos), seed
        ).items()
    }
    psnr = {name: found.pop(f"psnr.{name}") for name in conditions}
    described = {"level": LEVEL, "resamples": RESAMPLES, "videos": len(videos), "psnr": psnr}
    return described | {name: interval for name, interval in found.items() if interval}


def _resample(
    ratios: Mapping[str, Ratio],
    auc: "_Auc | None",
    video_index: Mapping[str, int],
    videos: int,
    seed: int,
) -> dict[str, Float[Array, " r"]]:
    """Every metric on every resample of the videos."""
    sums = _sums(ratios, video_index, videos)
    drawn: dict[str, list[Array]] = {}
    for counts in _draws(videos, seed):
        numerators, denominators = (counts @ part for part in sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            for name, values in zip(ratios, (numerators / denominators).T, strict=True):
                drawn.setdefault(name, []).append(values)
        if auc is not None:
            drawn.setdefault("relevance_auc", []).append(auc.resampled(counts))
    return {name: np.concatenate(values) for name, values in drawn.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Auc:
    """Relevance scores of matched and mismatched sounds, sorted from low to high."""

    video: Array
    """Video of each score."""
    fits: Array
    """1 where the sound is matched, 0 where it is mismatched."""
    starts: Array
    """Index at which each distinct score starts."""

    @classmethod
    def of(cls, scores: Mapping[str, Rows], video_index: Mapping[str, int]) -> "_Auc | None":
        found = [
            (row["relevance"], video_index[key], float(name == MATCHED))
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
        """The AUC with each video counted as often as it was drawn; ties count half."""
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
        rows, lower = scores.get(condition, {}), scores.get(without, {})
        if rows and lower:
            upper = scores[WITH_SOUND] if condition == MATCHED else {}
            yield (
                name,
                Ratio(
                    numerator={k: lower[k]["mse_ab"] - rows[k]["mse_ab"] for k in rows},
                    denominator={
                        k: lower[k]["mse_ab"] - (upper[k]["mse_ab"] if upper else 0.0) for k in rows
                    },
                ),
            )


def _psnr(rows: Rows) -> dict[str, float]:
    return {key: row["psnr"] for key, row in rows.items()}


def _sums(
    ratios: Mapping[str, Ratio], video_index: Mapping[str, int], videos: int
) -> tuple[Float[Array, "v m"], Float[Array, "v m"]]:
    """Numerator and denominator of each metric, summed over the clips of each video."""
    numerators, denominators = (np.zeros((videos, len(ratios))) for _ in range(2))
    for number, ratio in enumerate(ratios.values()):
        rows = [video_index[key] for key in ratio.numerator]
        np.add.at(numerators[:, number], rows, list(ratio.numerator.values()))
        np.add.at(
            denominators[:, number], rows, [ratio.denominator[key] for key in ratio.numerator]
        )
    return numerators, denominators


def _draws(videos: int, seed: int) -> Iterator[Float[Array, "r v"]]:
    """How often each video was drawn, for a chunk of the resamples at a time."""
    generator = np.random.default_rng(seed)
    for _ in range(RESAMPLES // _CHUNK_RESAMPLES):
        drawn = generator.integers(videos, size=(_CHUNK_RESAMPLES, videos))
        flat = drawn + videos * np.arange(_CHUNK_RESAMPLES)[:, None]
        counts = np.bincount(flat.ravel(), minlength=_CHUNK_RESAMPLES * videos)
        yield counts.reshape(_CHUNK_RESAMPLES, videos).astype(float)


def _percentiles(values: Float[Array, " r"]) -> dict[str, float]:
    """The central 95 %; empty resamples, in which a metric is undefined, are left out."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return {}
    low, high = np.quantile(finite, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return {"low": float(low), "high": float(high)}
