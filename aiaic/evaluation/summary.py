"""Summarizes the scores of clips as the metrics of a model, as plain JSON values.

A metric that cannot be computed is left out, and ``absent`` gives the reason.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from aiaic.evaluation import metrics
from aiaic.evaluation.bootstrap import intervals
from aiaic.evaluation.conditions import (
    CONDITIONS,
    IMAGE,
    MATCHED,
    MISMATCHED,
    MISSING,
    SWAPPED,
    GroundTruth,
)
from aiaic.evaluation.encoding import Networks
from aiaic.evaluation.evaluator import Evaluation
from aiaic.evaluation.retrieval import colour_leak, retrieval
from aiaic.evaluation.scorer import SWAPPED_WITHOUT_SOUND, WITH_SOUND, WITHOUT_SOUND
from aiaic.evaluation.scores import PICTURE, Rows, Scores, column, mean
from aiaic.evaluation.set_metrics import add_set_distances

HISTOGRAM_BINS = 20
UNSEEN = "unseen"

_BOUNDS = (WITHOUT_SOUND, WITH_SOUND)
_NO_TRUTH = {
    "bounds": "needs the ground truth of a synthetic world (--truth)",
    "probe_accuracy": "needs the classes of a synthetic world (--truth)",
    "cosine_ceiling": "needs the classes of a synthetic world (--truth)",
}


def summarize(
    evaluation: Evaluation,
    networks: Networks,
    *,
    truth: GroundTruth | None = None,
    labels: Mapping[str, str] | None = None,
    trained_labels: Collection[str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All metrics that the scores allow.

    Means of a condition are over all clips that have it (``n``). Differences and shares are over
    the same clips on both sides, those with a fitting sound; ``paired`` gives the means over these.

    Args:
        evaluation: scores and semantics.
        networks: the evaluated networks.
        truth: ground truth of a synthetic world.
        labels: label of each clip by key.
        trained_labels: labels of the training split; None: unknown.
        seed: seed of the resampling behind confidence intervals and KID.
    """
    scores = dict(evaluation.scores)
    absent = _absent_conditions(evaluation, networks, truth)
    _add_unseen(scores, labels, trained_labels, absent)
    names = [name for name in (*CONDITIONS, UNSEEN) if scores.get(name)]
    result: dict[str, Any] = {
        "conditions": {name: _means(scores[name]) for name in names},
        "bounds": {name: _means(scores[name]) for name in _BOUNDS if scores.get(name)},
        "picture": {"colorfulness": float(np.mean(column(scores[PICTURE], "colorfulness")))},
    }
    result |= _differences(scores, absent) | _shares(scores, absent)
    result |= _relevance(scores, networks, absent) | {"ab_distance": _ab_distances(scores)}
    if not any("lpips" in row for row in result["conditions"].values()):
        absent["lpips"] = "needs weights of AlexNet (--lpips-weights), and pictures of 32 px"
    result["absent"] = absent
    add_set_distances(evaluation, result, seed=seed)
    hits = _add_embeddings(evaluation, networks, truth, labels, result)
    if labels is not None and scores.get(MATCHED):
        result["labels"] = by_label(scores, labels)
    _add_intervals(evaluation, scores, names, hits, result, seed)
    return result | {"absent": dict(sorted(absent.items()))}


def by_label(scores: Mapping[str, Rows], labels: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """PSNR with the clip's own sound and without sound, by label, in alphabetical order.

    Means are over the ``n`` clips of a label with a fitting sound; labels without one are left out.
    """
    matched, missing = scores.get(MATCHED, {}), scores.get(MISSING, {})
    keys_by_label: dict[str, list[str]] = {}
    for key in matched:
        if labels[key]:
            keys_by_label.setdefault(labels[key], []).append(key)
    found: dict[str, dict[str, Any]] = {}
    for label, keys in sorted(keys_by_label.items()):
        with_sound, without_sound = mean(matched, keys, "psnr"), mean(missing, keys, "psnr")
        found[label] = {
            "n": len(keys),
            "psnr_matched": with_sound,
            "psnr_missing": without_sound,
            "guidance_gain_db": with_sound - without_sound,
        }
        relevance = column({key: matched[key] for key in keys}, "relevance")
        if relevance:
            found[label]["relevance_matched"] = float(np.mean(relevance))
    return found


def _absent_conditions(
    evaluation: Evaluation, networks: Networks, truth: GroundTruth | None
) -> dict[str, str]:
    absent: dict[str, str] = {}
    for name in CONDITIONS:
        if evaluation.scores.get(name):
            continue
        if name == IMAGE and networks.stage1 is None:
            absent[name] = "the stage-1 checkpoint of the run was not found"
        elif name != IMAGE and not networks.audio_trained:
            absent[name] = "stage 1 does not train the audio encoder"
        elif not evaluation.sounds.fitting:
            absent[name] = "no clip has a usable sound that fits"
        elif name == SWAPPED and truth is None:
            absent[name] = "needs the ground truth of a synthetic world (--truth)"
        else:
            absent[name] = "no two clips differ in the way this condition needs"
    return absent | (_NO_TRUTH if truth is None else {})


def _add_unseen(
    scores: Scores,
    labels: Mapping[str, str] | None,
    trained_labels: Collection[str] | None,
    absent: dict[str, str],
) -> None:
    """Add the condition ``unseen``: matched sounds of labels that training did not have."""
    if labels is None or trained_labels is None:
        absent[UNSEEN] = "the labels of the training split are unknown"
        return
    seen = {"", *trained_labels}  # a clip without a label is not known to be unseen
    scores[UNSEEN] = {k: v for k, v in scores.get(MATCHED, {}).items() if labels[k] not in seen}
    if not scores[UNSEEN]:
        every_seen = "every evaluated clip with sound has a label of the training split"
        absent[UNSEEN] = absent.get(MATCHED, every_seen)


def _means(rows: Rows) -> dict[str, Any]:
    found = sorted({metric for row in rows.values() for metric in row} - {"ab_distance"})
    return {m: float(np.mean(column(rows, m))) for m in found} | {"n": len(rows)}


def _differences(scores: Scores, absent: dict[str, str]) -> dict[str, Any]:
    """Gain and harm in dB, each over the clips that have both results."""
    found: dict[str, Any] = {}
    for name, better, worse, clips in (
        ("guidance_gain_db", MATCHED, MISSING, MATCHED),
        ("harm_db", MISSING, MISMATCHED, MISMATCHED),
    ):
        keys = scores.get(clips, {}).keys()
        if keys:
            found[name] = mean(scores[better], keys, "psnr") - mean(scores[worse], keys, "psnr")
        else:
            absent[name] = _needs([clips])
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
    """Share of what sound can tell that the model makes use of: 0 without sound, 1 at the bound.

    ``oracle_share`` is (MSE_without - MSE_matched) / (MSE_without - MSE_with) over the clips with a
    fitting sound. ``swapped_share`` is the same for swapped sounds, scored against the rendering in
    the sibling's colours: MSE_without is the error of the siblings' mean, and MSE_with is 0, since
    the prediction with sound is the rendering itself. (The hue jitter and codec noise that keep
    MSE_with over 0 for decoded frames are not in a rendering.)
    """
    shares: dict[str, float] = {}
    for name, condition, without in (
        ("oracle_share", MATCHED, WITHOUT_SOUND),
        ("swapped_share", SWAPPED, SWAPPED_WITHOUT_SOUND),
    ):
        keys = scores.get(condition, {}).keys()
        if not keys or not scores.get(without):
            absent[name] = absent.get(condition) or absent.get("bounds", "there are no bounds")
            continue
        best = mean(scores[WITH_SOUND], keys, "mse_ab") if condition == MATCHED else 0.0
        worst = mean(scores[without], keys, "mse_ab")
        if worst > best:
            shares[name] = (worst - mean(scores[condition], keys, "mse_ab")) / (worst - best)
        else:
            absent[name] = "the bounds are equal: sound does not determine these clips' colours"
    return shares


def _relevance(scores: Scores, networks: Networks, absent: dict[str, str]) -> dict[str, Any]:
    if networks.model.colorizer.always_relevant:
        reason = "the model does not learn relevance; it is fixed at 1"
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
        absent["relevance_auc"] = _needs([MATCHED, MISMATCHED])
    return result


def _ab_distances(scores: Scores) -> dict[str, float]:
    """Mean chroma distance between the result with the own sound and those of other conditions."""
    return {
        f"matched_{name}": float(np.mean(found))
        for name in (MISSING, MISMATCHED, SWAPPED)
        if (found := column(scores.get(name, {}), "ab_distance"))
    }


def _add_embeddings(
    evaluation: Evaluation,
    networks: Networks,
    truth: GroundTruth | None,
    labels: Mapping[str, str] | None,
    result: dict[str, Any],
) -> dict[str, float]:
    """Add retrieval and colour leak; returns which sounds retrieve their own picture first."""
    absent = result["absent"]
    if not networks.scene_trained:
        reason = "stage 3 was trained from scratch, without a scene encoder"
        absent.update(dict.fromkeys(("colour_leak_r2", "retrieval"), reason))
        return {}
    try:
        result["colour_leak_r2"] = colour_leak(evaluation, truth, labels)
    except ValueError as error:
        absent["colour_leak_r2"] = str(error)
    found = retrieval(evaluation, truth)
    if found is None:
        absent["retrieval"] = absent.get(MATCHED, _needs([MATCHED]))
        return {}
    result["retrieval"] = found.metrics
    if truth is not None and "cosine_ceiling" not in found.metrics:
        absent["cosine_ceiling"] = "no class has two clips with a fitting sound"
    return found.hits


def _add_intervals(
    evaluation: Evaluation,
    scores: Scores,
    conditions: Sequence[str],
    hits: Mapping[str, float],
    result: dict[str, Any],
    seed: int,
) -> None:
    """Add confidence intervals of the metrics that are reported."""
    video = {clip.key: clip.video for clip in evaluation.semantics.clips}
    try:
        found = intervals(scores, conditions, video, hits, seed=seed)
    except ValueError as error:
        result["absent"]["intervals"] = str(error)
        return
    reported = {*result, "level", "resamples", "videos", "psnr", "r_at_1"}
    result["intervals"] = {name: found[name] for name in found if name in reported}


def _needs(conditions: Sequence[str]) -> str:
    return f"needs the condition{'s' * (len(conditions) > 1)} {' and '.join(map(repr, conditions))}"
