"""Colorizes the clips of a chunk under every condition, and scores the results clip by clip."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from aiaic.audio import to_float
from aiaic.color import AB_SCALE, join, rgb_to_lab
from aiaic.evaluation.conditions import (
    IMAGE,
    MATCHED,
    MISMATCHED,
    MISSING,
    SILENT,
    SWAPPED,
    GroundTruth,
)
from aiaic.evaluation.encoding import Networks
from aiaic.evaluation.perceptual import Features, Perception
from aiaic.evaluation.scores import (
    PICTURE,
    RENDERING,
    Scores,
    Target,
    add,
    add_chroma,
    add_distances,
    score,
    score_bound,
)
from aiaic.evaluation.sound_assignment import Assignment
from aiaic.loading.batch import Batch
from aiaic.loading.decoding import crop
from aiaic.networks.model import Model

WITHOUT_SOUND = "without_sound"
"""Bound: the mean of the siblings' colours."""
WITH_SOUND = "with_sound"
"""Bound: the mean colours of the clip's own class."""
SWAPPED_WITHOUT_SOUND = "swapped_without_sound"
"""The mean of the siblings' colours, compared with the scene in the swapped sibling's colours."""

FEATURED = (MATCHED, MISSING)
"""Conditions whose results are also compared as sets, by FID and KID."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Results of one condition for some clips; chroma in Lab units, before rounding to 8 bits."""

    condition: str
    keys: tuple[str, ...]
    L: Float[Tensor, "b 1 h w"]
    ab_predicted: Float[Tensor, "b 2 h w"]
    ab_true: Float[Tensor, "b 2 h w"]
    """What the result is scored against: the clip's own chroma or, for ``swapped``, that of the
    same scene in the sibling's colours."""
    relevance: Float[Tensor, " b"]
    """Mean over guided levels, in [0, 1]; NaN without a sound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of some clips under every condition."""

    scores: Scores
    features: Mapping[str, Features]
    """Inception's features of the true pictures (:data:`PICTURE`) and of results, by condition."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scorer:
    """Colorizes and scores clips, given what guides them."""

    networks: Networks
    """The networks, on ``device``."""
    truth: GroundTruth | None = None
    """Ground truth of a synthetic world."""
    perception: Perception = Perception()
    """Networks of LPIPS, FID and KID, on ``device``."""
    view: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None
    """Crops and resizes a rendering to the evaluated view; None: a centre crop of the batch's
    size."""
    observe: Callable[[Prediction], None] | None = None
    """Called with every prediction."""
    device: torch.device = torch.device("cpu")
    """Device to compute on."""

    @torch.inference_mode()
    def score(self, batches: Iterable[Batch], assignment: Assignment) -> Scored:
        """Score a chunk of clips under all conditions."""
        scores: Scores = {}
        features: dict[str, list[Features]] = {}
        for batch in batches:
            on_device = batch.to(self.device)
            for name, found in _BatchScorer(self, on_device, assignment, scores).run().items():
                features.setdefault(name, []).append(found)
        joined = {name: Features.join(found) for name, found in features.items()}
        return Scored(scores=scores, features=joined)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    """Clips of a batch to colorize under one condition."""

    condition: str
    rows: list[int]
    """Rows of the clips in the batch."""
    semantics: Float[Tensor, "b d"]
    present: Bool[Tensor, " b"]
    network: Model


class _BatchScorer:
    """Scores one batch, which is on the scorer's device."""

    def __init__(
        self, scorer: Scorer, batch: Batch, assignment: Assignment, scores: Scores
    ) -> None:
        self.scorer = scorer
        self.batch = batch
        self.assignment = assignment
        self.scores = scores
        self.L, self.ab = rgb_to_lab(batch.picture)
        self.own = Target.of(batch.picture)
        self.swapped_ab, self.swapped = self.ab, self.own
        self.features: dict[str, Features] = {}

    def run(self) -> dict[str, Features]:
        """Add all scores of the batch; returns Inception's features."""
        keys = self.batch.keys
        add(self.scores, PICTURE, keys, "colorfulness", self.own.colorfulness)
        add_chroma(self.scores, PICTURE, keys, self.ab)
        self._extract_features(PICTURE, keys, self.batch.picture)
        if self.scorer.truth is not None:
            self._score_renderings(self.scorer.truth)
        results: dict[str, dict[str, Tensor]] = {}
        for task in self._tasks():
            results[task.condition] = self._score_task(task)
        for condition in (MISSING, MISMATCHED, SWAPPED):
            first, second = results.get(MATCHED, {}), results.get(condition, {})
            add_distances(self.scores, condition, first, second)
        return self.features

    def _tasks(self) -> Iterator[_Task]:
        keys, networks = self.batch.keys, self.scorer.networks
        for condition, guide in self.assignment.guides.items():
            index = {key: i for i, key in enumerate(guide.keys)}
            rows = [row for row, key in enumerate(keys) if key in index]
            chosen = [index[keys[row]] for row in rows]
            if rows:
                model = networks.stage1 if condition == IMAGE else None
                semantics, present = guide.semantics[chosen], guide.present[chosen]
                yield self._task(condition, rows, semantics, present, model)
        fitting = [row for row, key in enumerate(keys) if key in self.assignment.fitting]
        if networks.audio_trained and fitting:
            assert self.batch.waveform is not None
            silence = torch.zeros_like(to_float(self.batch.waveform[fitting]))
            yield self._task(SILENT, fitting, *networks.model.encode_sound(silence))

    def _task(
        self,
        condition: str,
        rows: list[int],
        semantics: Tensor,
        present: Tensor,
        network: Model | None = None,
    ) -> _Task:
        return _Task(
            condition=condition,
            rows=rows,
            semantics=semantics.to(self.scorer.device),
            present=present.to(self.scorer.device),
            network=network or self.scorer.networks.model,
        )

    def _score_task(self, task: _Task) -> dict[str, Float[Tensor, "2 h w"]]:
        """Colorize and score; returns the chroma of each clip's result."""
        is_swapped = task.condition == SWAPPED
        keys = tuple(self.batch.keys[row] for row in task.rows)
        L = self.L[task.rows]
        predicted, logits = task.network.colorizer(L, task.semantics, task.present)
        relevance = logits.double().sigmoid().mean(1).masked_fill(~task.present, torch.nan)
        predicted = predicted.float() * AB_SCALE
        result = join(L, predicted)
        target = (self.swapped if is_swapped else self.own).rows(task.rows)
        lpips = self.scorer.perception.lpips
        result_ab = score(self.scores, task.condition, keys, result, target, lpips)
        add(self.scores, task.condition, keys, "relevance", relevance)
        if task.condition in FEATURED:
            self._extract_features(task.condition, keys, result)
        if self.scorer.observe is not None:
            self.scorer.observe(
                Prediction(
                    condition=task.condition,
                    keys=keys,
                    L=L,
                    ab_predicted=predicted,
                    ab_true=(self.swapped_ab if is_swapped else self.ab)[task.rows],
                    relevance=relevance,
                )
            )
        return dict(zip(keys, result_ab, strict=True))

    def _extract_features(
        self, name: str, keys: Sequence[str], rgb: UInt8[Tensor, "b 3 h w"]
    ) -> None:
        inception = self.scorer.perception.inception
        if inception is not None:
            self.features[name] = Features(keys=tuple(keys), rows=inception(rgb).cpu())

    def _score_renderings(self, truth: GroundTruth) -> None:
        """Score the bounds without and with sound; sets the targets of swapped sounds."""
        keys, classes = self.batch.keys, self.assignment.swapped_class
        renderings = self._renderings(truth)
        mean = torch.stack([torch.stack(tuple(each.values())).mean(0) for each in renderings])
        own_class = torch.stack(
            [each[truth.class_by_key[key]] for key, each in zip(keys, renderings, strict=True)]
        )
        add_chroma(self.scores, RENDERING, keys, own_class)
        without = join(self.L, mean)
        score_bound(self.scores, WITHOUT_SOUND, keys, without, self.own)
        score_bound(self.scores, WITH_SOUND, keys, join(self.L, own_class), self.own)
        rows = [row for row, key in enumerate(keys) if key in classes]
        if rows:
            self.swapped_ab = self.ab.clone()
            for row in rows:
                self.swapped_ab[row] = renderings[row][classes[keys[row]]]
            self.swapped = Target.of(join(self.L, self.swapped_ab))
            chosen = [keys[row] for row in rows]
            score_bound(
                self.scores, SWAPPED_WITHOUT_SOUND, chosen, without[rows], self.swapped.rows(rows)
            )

    def _renderings(self, truth: GroundTruth) -> list[dict[str, Float[Tensor, "2 h w"]]]:
        """For each clip, the chroma of its scene in the colours of each sibling class."""
        size = self.batch.picture.shape[-1]
        view = self.scorer.view or (lambda rgb: crop(rgb, size, 0.5, 0.5))
        classes = [truth.siblings[truth.appearance_by_key[key]] for key in self.batch.keys]
        views = [
            view(truth.rendering(key, name))
            for key, names in zip(self.batch.keys, classes, strict=True)
            for name in names
        ]
        rgb = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
        ab = iter(rgb_to_lab(rgb.to(self.scorer.device))[1])
        return [{name: next(ab) for name in names} for names in classes]
