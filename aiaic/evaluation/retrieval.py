"""Metrics of the embeddings of sounds and pictures: retrieval, its ceiling, and leaked colours."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array
from torch import Tensor
from torch.nn import functional as F

from aiaic.evaluation import metrics
from aiaic.evaluation.conditions import MATCHED, GroundTruth
from aiaic.evaluation.evaluator import Evaluation
from aiaic.evaluation.probes import colour_leak_r2
from aiaic.evaluation.scores import PICTURE, RENDERING

_CLIPS_PER_LABEL = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How well sounds retrieve their pictures among those of all clips with a fitting sound."""

    metrics: dict[str, Any]
    hits: dict[str, float]
    """By clip: 1 if its sound retrieves its own picture first, else 0."""


def retrieval(evaluation: Evaluation, truth: GroundTruth | None) -> Retrieval | None:
    """Retrieval of pictures by sound; None if no clip with a fitting sound was encoded."""
    semantics = evaluation.semantics
    rows = [row for row, key in enumerate(semantics.keys) if key in evaluation.sounds.fitting]
    if MATCHED not in semantics.sound or not rows:
        return None
    sound, scene = semantics.sound[MATCHED][rows], semantics.scene[rows]
    own = metrics.retrieval_ranks(sound, scene, torch.arange(len(rows))).double()
    keys = [semantics.keys[row] for row in rows]
    found: dict[str, Any] = {
        "r_at_1": (own <= 1).double().mean().item(),
        "r_at_5": (own <= 5).double().mean().item(),
        "median_rank": own.median().item(),
        "n": len(rows),
        "cosine": (sound * scene).sum(1).double().mean().item(),
    }
    if truth is not None:
        classes = [truth.class_by_key[key] for key in keys]
        groups = torch.from_numpy(np.unique(classes, return_inverse=True)[1])
        by_class = metrics.retrieval_ranks(sound, scene, groups)
        found["r_at_1_by_class"] = (by_class <= 1).double().mean().item()
        ceiling = cosine_ceiling(scene, groups)
        if ceiling is not None:
            found["cosine_ceiling"] = ceiling
    hits = dict(zip(keys, (own <= 1).double().tolist(), strict=True))
    return Retrieval(metrics=found, hits=hits)


def cosine_ceiling(scene: Float[Tensor, "n d"], groups: Tensor) -> float | None:
    """Upper bound of the cosine of sound and picture if sound determines nothing but the class.

    The mean over clips of the cosine between a picture's semantics and the mean semantics of the
    other pictures of its class; None if no class has two clips.
    """
    member = F.one_hot(groups).double()
    others = (member.T @ scene.double())[groups] - scene.double()
    together = member.sum(0)[groups] > 1
    if not together.any():
        return None
    return F.cosine_similarity(scene.double(), others)[together].mean().item()


def colour_leak(
    evaluation: Evaluation, truth: GroundTruth | None, labels: Mapping[str, str] | None
) -> float:
    """R² of a linear probe from scene semantics to the colours that only the picture can tell.

    These are its mean chroma minus that of the rendering of its class or, without ground truth,
    minus the mean of its label; labels with fewer than eight clips are left out.

    Raises:
        ValueError: there is neither ground truth nor labels, or there are too few clips.
    """
    scores, semantics = evaluation.scores, evaluation.semantics
    chroma = _chroma(evaluation, PICTURE)
    if truth is not None and scores.get(RENDERING):
        own = chroma - _chroma(evaluation, RENDERING)
        chosen = np.arange(len(own))
    elif labels is not None:
        names = np.unique([labels[key] for key in semantics.keys], return_inverse=True)[1]
        frequencies = np.bincount(names)
        means = np.stack([np.bincount(names, part) for part in chroma.T], 1) / frequencies[:, None]
        own = chroma - means[names]
        # In the mean of few clips each clip's own colour has a large share, which hides a leak.
        chosen = np.flatnonzero(frequencies[names] >= _CLIPS_PER_LABEL)
        if not len(chosen):
            raise ValueError(f"no label has {_CLIPS_PER_LABEL} clips or more")
    else:
        raise ValueError("without ground truth or labels, the colours of a class are unknown")
    video = np.array([clip.video for clip in semantics.clips])
    return colour_leak_r2(semantics.scene.double().numpy()[chosen], own[chosen], video[chosen])


def _chroma(evaluation: Evaluation, name: str) -> Float[Array, "n 2"]:
    rows = evaluation.scores[name]
    return np.array([[rows[key]["a"], rows[key]["b"]] for key in evaluation.semantics.keys])
