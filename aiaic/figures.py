"""From scores of clips to the figures of a model, as plain JSON values.

A figure that cannot be computed is absent, and its reason stands under ``absent``.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch

from aiaic import metrics
from aiaic.conditions import (
    CONDITIONS,
    IMAGE,
    MATCHED,
    MISMATCHED,
    MISSING,
    SWAPPED,
    Truth,
)
from aiaic.encoding import Networks
from aiaic.evaluation import SWAPPED_WITHOUT_SOUND, WITH_SOUND, WITHOUT_SOUND, Evaluation
from aiaic.scoring import Scores

HISTOGRAM_BINS = 20
UNSEEN = "unseen"

_BOUNDS = (WITHOUT_SOUND, WITH_SOUND)
_WEIGHTS_NEEDED = ("lpips", "fid", "kid")


def figures(
    evaluation: Evaluation,
    networks: Networks,
    *,
    truth: Truth | None = None,
    labels: Mapping[str, str] | None = None,
    trained_labels: Collection[str] | None = None,
) -> dict[str, Any]:
    """All figures that the scores allow.

    Means of a condition are over all clips that have it (``n``). Differences and shares are over
    the same clips on both sides: those with a fitting sound (``paired`` gives the means there).

    Args:
        evaluation: scores and semantics.
        networks: what was evaluated.
        truth: the synthetic world's, where there is one.
        labels: of each clip by key.
        trained_labels: labels that the training split holds; None where unknown.
    """
    scores = dict(evaluation.scores)
    absent = _absent_conditions(evaluation, networks, truth)
    absent |= dict.fromkeys(_WEIGHTS_NEEDED, "no weights are given")
    if labels is None or trained_labels is None:
        absent[UNSEEN] = "the labels of the training split are not known"
    else:
        matched = scores.get(MATCHED, {})
        scores[UNSEEN] = {k: v for k, v in matched.items() if labels[k] not in trained_labels}
        if not scores[UNSEEN]:
            absent[UNSEEN] = "no evaluated clip with a sound has a label that training had not"
    names = [name for name in (*CONDITIONS, UNSEEN) if scores.get(name)]
    result: dict[str, Any] = {
        "conditions": {name: _means(scores[name]) for name in names},
        "bounds": {name: _means(scores[name]) for name in _BOUNDS if scores.get(name)},
    }
    result |= _differences(scores, absent) | _shares(scores, absent)
    result |= _relevance(scores, networks, absent) | _retrieval(evaluation, networks, truth, absent)
    distances = {
        f"matched_{name}": float(np.mean(found))
        for name in (MISSING, MISMATCHED, SWAPPED)
        if (found := _column(scores.get(name, {}), "ab_distance"))
    }
    return result | {"ab_distance": distances, "absent": dict(sorted(absent.items()))}


def _absent_conditions(
    evaluation: Evaluation, networks: Networks, truth: Truth | None
) -> dict[str, str]:
    absent: dict[str, str] = {}
    no_sound = "no clip has a usable sound that fits"
    for name in CONDITIONS:
        if evaluation.scores.get(name):
            continue
        if name == IMAGE and networks.stage1 is None:
            absent[name] = "the stage-1 checkpoint is not at hand"
        elif name != IMAGE and not networks.hears:
            absent[name] = "the checkpoint is of stage 1, whose audio encoder is untrained"
        elif not evaluation.sounds.fitting:
            absent[name] = no_sound
        elif name == SWAPPED and truth is None:
            absent[name] = "only a synthetic world's truth tells a sibling's colours"
        else:
            absent[name] = "no two clips differ as this condition needs"
    if truth is None:
        absent["bounds"] = "only a synthetic world's truth gives the colours without and with sound"
        absent["probe_accuracy"] = "only a synthetic world's truth gives the classes to tell apart"
    return absent


def _means(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    metrics_found = sorted({metric for row in rows.values() for metric in row} - {"ab_distance"})
    return {m: float(np.mean(_column(rows, m))) for m in metrics_found} | {"n": len(rows)}


def _differences(scores: Scores, absent: dict[str, str]) -> dict[str, Any]:
    """Gain and harm in dB, each over the clips that have both results."""
    found: dict[str, Any] = {}
    for figure, better, worse, clips in (
        ("guidance_gain_db", MATCHED, MISSING, MATCHED),
        ("harm_db", MISSING, MISMATCHED, MISMATCHED),
    ):
        keys = scores.get(clips, {}).keys()
        if keys:
            found[figure] = _mean(scores[better], keys, "psnr") - _mean(scores[worse], keys, "psnr")
        else:
            absent[figure] = f"there is no condition '{clips}'"
    keys = scores.get(MATCHED, {}).keys()
    if keys:
        paired = {
            name: {m: _mean(scores[name], keys, m) for m in ("psnr", "mse_ab")}
            for name in (MATCHED, MISSING, *_BOUNDS)
            if scores.get(name)
        }
        found["paired"] = paired | {"n": len(keys)}
    return found


def _shares(scores: Scores, absent: dict[str, str]) -> dict[str, float]:
    """How much of what sound can tell the model makes use of: 0 for a deaf one, 1 at the bound.

    ``oracle_share`` is (MSE_without - MSE_matched) / (MSE_without - MSE_with) over the clips with
    fitting sound. ``swapped_share`` is the like against the same scenes in the sibling's colours:
    there the prediction with sound is the rendering itself, so its error is 0, and MSE_without is
    the error of the siblings' mean. (Hue jitter and codec noise, which keep ``MSE_with`` over 0
    for real frames, are not in a rendering.)
    """
    shares: dict[str, float] = {}
    for figure, condition, without in (
        ("oracle_share", MATCHED, WITHOUT_SOUND),
        ("swapped_share", SWAPPED, SWAPPED_WITHOUT_SOUND),
    ):
        keys = scores.get(condition, {}).keys()
        if not keys or not scores.get(without):
            absent[figure] = absent.get(condition) or absent.get("bounds", "there are no bounds")
            continue
        at_best = _mean(scores[WITH_SOUND], keys, "mse_ab") if condition == MATCHED else 0.0
        deaf = _mean(scores[without], keys, "mse_ab")
        if deaf > at_best:
            shares[figure] = (deaf - _mean(scores[condition], keys, "mse_ab")) / (deaf - at_best)
        else:
            absent[figure] = "the two bounds do not differ: sound tells nothing of these clips"
    return shares


def _relevance(scores: Scores, networks: Networks, absent: dict[str, str]) -> dict[str, Any]:
    if networks.model.colorizer.always_relevant:
        reason = "the model holds the relevance at 1"
        absent.update(dict.fromkeys(("relevance", "relevance_auc"), reason))
        return {}
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    found = {name: _column(scores.get(name, {}), "relevance") for name in (*CONDITIONS, UNSEEN)}
    found = {name: values for name, values in found.items() if values}
    result: dict[str, Any] = {
        "relevance": {
            name: {
                "mean": float(np.mean(values)),
                "counts": np.histogram(values, edges)[0].tolist(),
            }
            for name, values in found.items()
        },
        "relevance_bins": edges.round(6).tolist(),
    }
    if found.get(MATCHED) and found.get(MISMATCHED):
        result["relevance_auc"] = metrics.auc(found[MATCHED], found[MISMATCHED])
    else:
        absent["relevance_auc"] = "it needs the conditions 'matched' and 'mismatched'"
    return result


def _retrieval(
    evaluation: Evaluation, networks: Networks, truth: Truth | None, absent: dict[str, str]
) -> dict[str, Any]:
    """Which picture a sound finds among those of all clips with fitting sound."""
    semantics = evaluation.semantics
    rows = [i for i, clip in enumerate(semantics.clips) if clip.key in evaluation.sounds.fitting]
    if not networks.hears or not rows:
        absent["retrieval"] = absent.get(MATCHED, "there is no condition 'matched'")
        return {}
    sound, scene = semantics.sound[MATCHED][rows], semantics.scene[rows]
    own = metrics.retrieval_ranks(sound, scene, torch.arange(len(rows))).double()
    result: dict[str, Any] = {
        "r_at_1": (own <= 1).double().mean().item(),
        "r_at_5": (own <= 5).double().mean().item(),
        "median_rank": own.median().item(),
        "n": len(rows),
        "cosine": (sound * scene).sum(1).double().mean().item(),
    }
    if truth is not None:
        classes = [truth.class_by_key[semantics.clips[i].key] for i in rows]
        groups = torch.from_numpy(np.unique(classes, return_inverse=True)[1])
        by_class = metrics.retrieval_ranks(sound, scene, groups)
        result["r_at_1_by_class"] = (by_class <= 1).double().mean().item()
    return {"retrieval": result}


def _column(rows: Mapping[str, Mapping[str, float]], metric: str) -> list[float]:
    return [row[metric] for row in rows.values() if metric in row]


def _mean(rows: Mapping[str, Mapping[str, float]], keys: Collection[str], metric: str) -> float:
    return float(np.mean([rows[key][metric] for key in keys]))
