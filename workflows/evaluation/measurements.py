"""All that an evaluation measures, as JSON values."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from aiaic.color import rgb_to_lab
from aiaic.evaluation.evaluator import Evaluation, evaluate
from aiaic.evaluation.probes import sibling_probe_accuracy
from aiaic.evaluation.summary import figures
from workflows.artifacts import samples
from workflows.evaluation import video_scores, worker
from workflows.evaluation.ground_truth import World
from workflows.evaluation.target import Subject
from workflows.evaluation.worker import SEED
from workflows.options import Evaluate

_PROTOCOLS = {
    "center_crop": "short side resized, centre square",
    "resize": "both sides resized to the square",
}


def measure(
    subject: Subject, world: World | None, options: Evaluate
) -> tuple[Evaluation, dict[str, Any]]:
    """All scores and figures; predictions are written where the options say so."""
    known = None if world is None else world.truth
    videos = {} if options.videos is None else video_scores.find(options.videos)
    perception = worker.open_perception(options)
    with worker.opened(options, subject, known, perception) as evaluator:
        evaluation = evaluate(evaluator, seed=SEED, truth=known, labels=subject.labels)
    result = figures(
        evaluation,
        subject.networks,
        truth=known,
        labels=subject.labels,
        trained_labels=_trained_labels(subject, options.shards),
        seed=SEED,
    )
    if world is not None:
        _probe(subject, world, options.shards, result)
    _score_videos(subject, videos, result)
    protocol = _protocol(subject) | {"metric_weights": worker.metric_weights(options)}
    return evaluation, {"protocol": protocol, **result}


def _score_videos(subject: Subject, videos: Mapping[str, str], result: dict[str, Any]) -> None:
    if not videos:
        result["absent"]["videos"] = "none are given"
    elif not subject.networks.hears:
        result["absent"]["videos"] = "a checkpoint of stage 1 has no trained audio encoder"
    else:
        model = subject.networks.model
        result["videos"] = video_scores.score(videos, model, subject.view.size_px)


def _probe(subject: Subject, world: World, shards: str, result: dict[str, Any]) -> None:
    """How well the decoded lightness alone tells siblings apart, over all clips of the world."""
    refs = [
        ref for split in world.splits for ref in samples.open_evaluation(shards, split).validation
    ]
    world.truth.require([ref.key for ref in refs])
    found = [
        (rgb_to_lab(batch.picture)[0][:, 0].numpy(), batch.keys)
        for batch in subject.batches(refs, "probe the grey", with_sound=False)
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


def _protocol(subject: Subject) -> dict[str, Any]:
    return {
        "name": subject.protocol,
        "size": subject.view.size_px,
        "crop": _PROTOCOLS[subject.protocol],
        "split": subject.split,
        "n": len(subject.refs),
        "manifest_digest": subject.manifest_digest,
        "same_shards_as_training": subject.manifest_digest == subject.record.manifest_digest,
        "seed": SEED,
        "weights": {
            "place": subject.place,
            "stage": subject.record.stage,
            "step": subject.record.step,
            "recipe": subject.recipe.name,
            "model_sha256": subject.model_sha256,
        },
    }


def _trained_labels(subject: Subject, shards: str) -> set[str] | None:
    """Labels of the training split, where these are the shards that were trained on."""
    if subject.record.manifest_digest != subject.manifest_digest:
        return None
    trained = samples.open_evaluation(shards, subject.record.split).validation
    return {ref.label for ref in trained}
