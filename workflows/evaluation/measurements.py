"""Turns the scores of an evaluation into all that is reported, as JSON values."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from aiaic.color import rgb_to_lab
from aiaic.evaluation.evaluator import Evaluation
from aiaic.evaluation.probes import sibling_probe_accuracy
from aiaic.evaluation.summary import summarize
from workflows.artifacts import samples
from workflows.evaluation import video_scores, worker
from workflows.evaluation.ground_truth import SyntheticWorld
from workflows.evaluation.job import EvaluationJob
from workflows.evaluation.target import EvaluationTarget
from workflows.evaluation.worker import SEED

_CROPS = {
    "center_crop": "short side resized, centre square",
    "resize": "both sides resized to the square",
}


def measure(
    job: EvaluationJob,
    target: EvaluationTarget,
    evaluation: Evaluation,
    videos: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The protocol and all metrics of an evaluation.

    Args:
        job: what was evaluated.
        target: the same, opened.
        evaluation: scores of all clips.
        videos: places of colour videos by name; each is colorized and compared with itself.

    Raises:
        ValueError: a video cannot be colorized or compared.
    """
    result = summarize(
        evaluation,
        target.networks,
        truth=target.truth,
        labels=target.labels,
        trained_labels=_trained_labels(target, job.shards),
        seed=SEED,
    )
    if target.world is not None:
        _probe_lightness(target, target.world, job.shards, result)
    _score_videos(target, videos or {}, result)
    protocol = _protocol(target) | {"metric_weights": worker.metric_weights(job)}
    return {"protocol": protocol, **result}


def _score_videos(
    target: EvaluationTarget, videos: Mapping[str, str], result: dict[str, Any]
) -> None:
    if not videos:
        result["absent"]["videos"] = "needs colour videos (--videos)"
    elif not target.networks.audio_trained:
        result["absent"]["videos"] = "stage 1 does not train the audio encoder"
    else:
        model = target.networks.model
        result["videos"] = video_scores.score(videos, model, target.view.size_px)


def _probe_lightness(
    target: EvaluationTarget, world: SyntheticWorld, shards: str, result: dict[str, Any]
) -> None:
    """Add how well decoded lightness alone tells siblings apart, over all clips of the world."""
    refs = [
        ref for split in world.splits for ref in samples.open_evaluation(shards, split).validation
    ]
    world.truth.require([ref.key for ref in refs])
    found = [
        (rgb_to_lab(batch.picture)[0][:, 0].numpy(), batch.keys)
        for batch in target.batches(refs, "probe the lightness", with_sound=False)
    ]
    keys = [key for _, part in found for key in part]
    try:
        result["probe_accuracy"] = sibling_probe_accuracy(
            np.concatenate([L for L, _ in found]),
            np.array([world.truth.appearance_by_key[key] for key in keys]),
            np.array([world.truth.class_by_key[key] for key in keys]),
        )
    except ValueError as error:
        result["absent"]["probe_accuracy"] = str(error)


def _protocol(target: EvaluationTarget) -> dict[str, Any]:
    return {
        "name": target.protocol,
        "size": target.view.size_px,
        "crop": _CROPS[target.protocol],
        "split": target.split,
        "n": len(target.refs),
        "manifest_digest": target.manifest_digest,
        "same_shards_as_training": target.manifest_digest == target.record.manifest_digest,
        "seed": SEED,
        "weights": {
            "place": target.place,
            "stage": target.record.stage,
            "step": target.record.step,
            "recipe": target.recipe.name,
            "model_sha256": target.model_sha256,
        },
    }


def _trained_labels(target: EvaluationTarget, shards: str) -> set[str] | None:
    """Labels of the training split; None unless the model was trained on these very shards."""
    if target.record.manifest_digest != target.manifest_digest:
        return None
    trained = samples.open_evaluation(shards, target.record.split).validation
    return {ref.label for ref in trained}
