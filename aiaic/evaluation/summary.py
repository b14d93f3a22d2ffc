"""From scores of clips to the figures of a model, as plain JSON values.

A figure that cannot be computed is absent, and its reason stands under ``absent``.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from aiaic.evaluation import metrics
from aiaic.evaluation.bootstrap import intervals
from aiaic.evaluation.columns import column, mean
from aiaic.evaluation.conditions import (
    CONDITIONS,
    IMAGE,
    MATCHED,
    MISMATCHED,
    MISSING,
    SWAPPED,
    Truth,
)
from aiaic.evaluation.encoding import Networks
from aiaic.evaluation.evaluator import Evaluation
from aiaic.evaluation.labels import by_label
from aiaic.evaluation.retrieval import colour_leak, retrieval
from aiaic.evaluation.scorer import SWAPPED_WITHOUT_SOUND, WITH_SOUND, WITHOUT_SOUND
from aiaic.evaluation.scores import PICTURE, Scores
from aiaic.evaluation.set_metrics import add_set_distances

HISTOGRAM_BINS = 20
UNSEEN = "unseen"

_BOUNDS = (WITHOUT_SOUND, WITH_SOUND)
_NO_TRUTH = {
    "bounds": "only a synthetic world's truth gives the colours without and with sound",
    "probe_accuracy": "only a synthetic world's truth gives the classes to tell apart",
    "cosine_ceiling": "only a synthetic world's truth gives the classes that sound can tell",
}


def figures(
    evaluation: Evaluation,
    networks: Networks,
    *,
    truth: Truth | None = None,
    labels: Mapping[str, str] | None = None,
    trained_labels: Collection[str] | None = None,
    seed: int = 0,
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
        seed: of the draws behind confidence intervals and KID.
    """
    scores = dict(evaluation.scores)
    absent = _absent_conditions(evaluation, networks, truth)
    if labels is None or trained_labels is None:
        absent[UNSEEN] = "the labels of the training split are not known"
    else:
        matched = scores.get(MATCHED, {})
        seen = {"", *trained_labels}  # of a clip without a label nobody knows
        scores[UNSEEN] = {k: v for k, v in matched.items() if labels[k] not in seen}
        if not scores[UNSEEN]:
            absent[UNSEEN] = "no evaluated clip with a sound has a label that training had not"
    names = [name for name in (*CONDITIONS, UNSEEN) if scores.get(name)]
    result: dict[str, Any] = {
        "conditions": {name: _means(scores[name]) for name in names},
        "bounds": {name: _means(scores[name]) for name in _BOUNDS if scores.get(name)},
        "picture": {"colorfulness": float(np.mean(column(scores[PICTURE], "colorfulness")))},
    }
    result |= _differences(scores, absent) | _shares(scores, absent)
    result |= _relevance(scores, networks, absent)
    result["ab_distance"] = {
        f"matched_{name}": float(np.mean(found))
        for name in (MISSING, MISMATCHED, SWAPPED)
        if (found := column(scores.get(name, {}), "ab_distance"))
    }
    if not any("lpips" in row for row in result["conditions"].values()):
        absent["lpips"] = "no weights of torchvision's AlexNet are given, or pictures under 32 px"
    result["absent"] = absent
    add_set_distances(evaluation, result, seed=seed)
    hits = _add_embeddings(evaluation, networks, truth, labels, result)
    if labels is not None and scores.get(MATCHED):
        result["labels"] = by_label(scores, labels)
    try:
        video = {clip.key: clip.video for clip in evaluation.semantics.clips}
        found = intervals(scores, names, video, hits, seed=seed)
        known = {*result, "level", "resamples", "videos", "psnr", "r_at_1"}
        result["intervals"] = {name: found[name] for name in found if name in known}
    except ValueError as error:
        absent["intervals"] = str(error)
    return result | {"absent": dict(sorted(absent.items()))}


def _add_embeddings(
    evaluation: Evaluation,
    networks: Networks,
    truth: Truth | None,
    labels: Mapping[str, str] | None,
    result: dict[str, Any],
) -> dict[str, float]:
    """Add retrieval and the leak of colours; gives which clips' sounds find their own picture."""
    absent = result["absent"]
    if not networks.sees:
        reason = "the checkpoint is of stage 3 from scratch, whose scene encoder is untrained"
        absent.update(dict.fromkeys(("colour_leak_r2", "retrieval"), reason))
        return {}
    try:
        result["colour_leak_r2"] = colour_leak(evaluation, truth, labels)
    except ValueError as error:
        absent["colour_leak_r2"] = str(error)
    found = retrieval(evaluation, truth)
    if found is None:
        absent["retrieval"] = absent.get(MATCHED, "there is no condition 'matched'")
        return {}
    result["retrieval"] = found.figures
    if truth is not None and "cosine_ceiling" not in found.figures:
        absent["cosine_ceiling"] = "no class has two clips with a fitting sound"
    return found.hits


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
    return absent | (_NO_TRUTH if truth is None else {})


def _means(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    metrics_found = sorted({metric for row in rows.values() for metric in row} - {"ab_distance"})
    return {m: float(np.mean(column(rows, m))) for m in metrics_found} | {"n": len(rows)}


def _differences(scores: Scores, absent: dict[str, str]) -> dict[str, Any]:
    """Gain and harm in dB, each over the clips that have both results."""
    found: dict[str, Any] = {}
    for figure, better, worse, clips in (
        ("guidance_gain_db", MATCHED, MISSING, MATCHED),
        ("harm_db", MISSING, MISMATCHED, MISMATCHED),
    ):
        keys = scores.get(clips, {}).keys()
        if keys:
            found[figure] = mean(scores[better], keys, "psnr") - mean(scores[worse], keys, "psnr")
        else:
            absent[figure] = f"there is no condition '{clips}'"
    keys = scores.get(MATCHED, {}).keys()
    if keys:
        paired = {
            name: {m: mean(scores[name], keys, m) for m in ("psnr", "mse_ab")}
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
        at_best = mean(scores[WITH_SOUND], keys, "mse_ab") if condition == MATCHED else 0.0
        deaf = mean(scores[without], keys, "mse_ab")
        if deaf > at_best:
            shares[figure] = (deaf - mean(scores[condition], keys, "mse_ab")) / (deaf - at_best)
        else:
            absent[figure] = "the two bounds do not differ: sound tells nothing of these clips"
    return shares


def _relevance(scores: Scores, networks: Networks, absent: dict[str, str]) -> dict[str, Any]:
    if networks.model.colorizer.always_relevant:
        reason = "the model holds the relevance at 1"
        absent.update(dict.fromkeys(("relevance", "relevance_auc"), reason))
        return {}
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    found = {name: column(scores.get(name, {}), "relevance") for name in (*CONDITIONS, UNSEEN)}
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
