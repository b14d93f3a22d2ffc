"""Chooses the clips that gain most and least by sound, and those with the lowest PSNR."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aiaic.audio import to_float
from aiaic.evaluation.conditions import MATCHED, MISSING
from aiaic.evaluation.scores import Scores
from aiaic.inference import Colorizer
from aiaic.loading.loader import Loader
from aiaic.loading.sampler import SampleRef
from aiaic.networks.model import Model
from workflows.report.examples import grey

BEST = "best"
WORST = "worst"
FURTHEST = "furthest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtremeClip:
    """A clip with its scores and results."""

    key: str
    label: str
    grey: NDArray[np.uint8]
    without_sound: NDArray[np.uint8]
    own: NDArray[np.uint8]
    """Result with the clip's own sound."""
    truth: NDArray[np.uint8]
    psnr_missing: float
    psnr_matched: float


def choose(scores: Scores, limit: int) -> dict[str, list[str]]:
    """Keys of the best, the worst and the furthest clips, the most extreme first.

    The best clips gain most PSNR by their own sound, the worst gain least or lose most, and no clip
    is both; the furthest have the lowest PSNR with their own sound. Empty if no clip was colorized
    with a sound.
    """
    matched, missing = scores.get(MATCHED, {}), scores.get(MISSING, {})
    gain = {key: row["psnr"] - missing[key]["psnr"] for key, row in matched.items()}
    by_gain = sorted(gain, key=lambda key: (-gain[key], key))
    half = min(limit, len(by_gain) // 2)
    chosen = {
        BEST: by_gain[:half],
        WORST: by_gain[::-1][:half],
        FURTHEST: sorted(matched, key=lambda key: (matched[key]["psnr"], key))[:limit],
    }
    return {name: keys for name, keys in chosen.items() if keys}


def colorize(
    chosen: Mapping[str, Sequence[str]],
    refs: Sequence[SampleRef],
    scores: Scores,
    *,
    names: Mapping[str, str],
    model: Model,
    loader: Loader,
) -> dict[str, list[ExtremeClip]]:
    """Colorize the chosen clips in the same way as ``aiaic colorize``.

    Args:
        chosen: keys of the clips to show, by kind.
        refs: all evaluated clips.
        scores: scores of all clips.
        names: class or label of each clip.
        model: the evaluated model, on the CPU.
        loader: loader of the evaluated view.
    """
    needed = {key for keys in chosen.values() for key in keys}
    colorizer = Colorizer(model, size_px=loader.view.size_px)
    clips: dict[str, ExtremeClip] = {}
    for batch in loader.evaluation([ref for ref in refs if ref.key in needed], batch_size=8):
        assert batch.waveform is not None
        waveforms = to_float(batch.waveform).numpy()
        for key, picture, waveform in zip(batch.keys, batch.picture, waveforms, strict=True):
            truth = picture.permute(1, 2, 0).contiguous().numpy()
            clips[key] = ExtremeClip(
                key=key,
                label=names[key],
                grey=grey(truth),
                without_sound=colorizer.colorize(truth).rgb,
                own=colorizer.colorize(truth, waveform).rgb,
                truth=truth,
                psnr_missing=scores[MISSING][key]["psnr"],
                psnr_matched=scores[MATCHED][key]["psnr"],
            )
    return {name: [clips[key] for key in keys] for name, keys in chosen.items()}
