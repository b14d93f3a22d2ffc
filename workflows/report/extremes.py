"""Where sound helps most, where it harms most, and where colours are furthest from the truth."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aiaic.audio import to_float
from aiaic.evaluation.conditions import MATCHED, MISSING
from aiaic.evaluation.scores import Scores
from aiaic.inference import colorizer
from aiaic.loading.loader import Loader
from aiaic.loading.sampler import SampleRef
from aiaic.networks.model import Model
from workflows.report.examples import grey

BEST = "best"
WORST = "worst"
FURTHEST = "furthest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A clip with its scores, and what the network makes of it."""

    key: str
    label: str
    grey: NDArray[np.uint8]
    without_sound: NDArray[np.uint8]
    own: NDArray[np.uint8]
    """Coloured with its own sound."""
    truth: NDArray[np.uint8]
    psnr_missing: float
    psnr_matched: float


def choose(scores: Scores, limit: int) -> dict[str, list[str]]:
    """Keys of the best, the worst and the furthest clips, the most extreme first.

    Best and worst are those whose PSNR gains and loses most by their own sound, and never the same;
    furthest those with the lowest PSNR. Empty where no clip was coloured with a sound.
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


def colour(
    chosen: Mapping[str, Sequence[str]],
    refs: Sequence[SampleRef],
    scores: Scores,
    *,
    names: Mapping[str, str],
    model: Model,
    loader: Loader,
) -> dict[str, list[Case]]:
    """Colour the chosen clips as ``aiaic colorize`` does.

    Args:
        chosen: keys of clips by strip.
        refs: of all clips.
        scores: of all clips.
        names: what each clip shows.
        model: on the CPU.
        loader: of the evaluated view.
    """
    needed = {key for keys in chosen.values() for key in keys}
    cases: dict[str, Case] = {}
    for batch in loader.evaluation([ref for ref in refs if ref.key in needed], batch_size=8):
        assert batch.waveform is not None
        waveforms = to_float(batch.waveform).numpy()
        for key, picture, waveform in zip(batch.keys, batch.picture, waveforms, strict=True):
            truth = picture.permute(1, 2, 0).contiguous().numpy()
            size_px = loader.view.size_px
            cases[key] = Case(
                key=key,
                label=names[key],
                grey=grey(truth),
                without_sound=colorizer.colorize(model, truth, size_px=size_px).rgb,
                own=colorizer.colorize(model, truth, waveform, size_px=size_px).rgb,
                truth=truth,
                psnr_missing=scores[MISSING][key]["psnr"],
                psnr_matched=scores[MATCHED][key]["psnr"],
            )
    return {name: [cases[key] for key in keys] for name, keys in chosen.items()}
