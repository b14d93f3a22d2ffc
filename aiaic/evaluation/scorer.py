"""Colours the clips of a chunk under every condition, and scores the results clip by clip."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from aiaic.audio import to_float
from aiaic.color import AB_SCALE, join, rgb_to_lab
from aiaic.evaluation.assignment import Assignment
from aiaic.evaluation.conditions import IMAGE, MATCHED, MISMATCHED, MISSING, SILENT, SWAPPED, Truth
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
from aiaic.loading.batch import Batch
from aiaic.loading.decoding import crop
from aiaic.networks.model import Model

WITHOUT_SOUND = "without_sound"
WITH_SOUND = "with_sound"
SWAPPED_WITHOUT_SOUND = "swapped_without_sound"

FEATURED = (MATCHED, MISSING)
"""Conditions whose results are also compared as sets, by FID and KID."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Results of one condition for some clips; chroma in Lab units, before it is made 8-bit."""

    condition: str
    keys: tuple[str, ...]
    L: Float[Tensor, "b 1 h w"]
    ab_predicted: Float[Tensor, "b 2 h w"]
    ab_true: Float[Tensor, "b 2 h w"]
    """What the result is scored against: the clip's own chroma; for ``swapped`` that of the same
    scene in the sibling's colours."""
    relevance: Float[Tensor, " b"]
    """Mean over levels, in [0, 1]; NaN where no sound took part."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of some clips under every condition."""

    scores: Scores
    features: Mapping[str, Features]
    """Inception's, of the true pictures (:data:`PICTURE`) and of the results of conditions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scorer:
    """Colours and scores clips, given what guides them."""

    networks: Networks
    """The models, in eval mode, on ``device``."""
    truth: Truth | None = None
    """The synthetic world's."""
    perception: Perception = Perception()
    """Networks of LPIPS, FID and KID, as far as they are at hand, on ``device``."""
    view: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None
    """What of a picture of any size is evaluated, for the truth's renderings; the centre, at the
    batches' size, where absent."""
    observe: Callable[[Prediction], None] | None = None
    """Is shown every prediction."""
    device: torch.device = torch.device("cpu")

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
class _Case:
    """Clips of a batch that are coloured under one condition."""

    condition: str
    rows: list[int]
    """Of the batch."""
    semantics: Float[Tensor, "b d"]
    present: Bool[Tensor, " b"]
    network: Model


class _BatchScorer:
    """Scores one batch, whose pictures are on the scorer's device."""

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
        """Add all scores of the batch; gives Inception's features."""
        keys = self.batch.keys
        add(self.scores, PICTURE, keys, "colorfulness", self.own.colorfulness)
        add_chroma(self.scores, PICTURE, keys, self.ab)
        self._featured(PICTURE, keys, self.batch.picture)
        if self.scorer.truth is not None:
            self._score_renderings(self.scorer.truth)
        results: dict[str, dict[str, Tensor]] = {}
        for case in self._cases():
            results[case.condition] = self._score_case(case)
        for condition in (MISSING, MISMATCHED, SWAPPED):
            first, second = results.get(MATCHED, {}), results.get(condition, {})
            add_distances(self.scores, condition, first, second)
        return self.features

    def _cases(self) -> Iterator[_Case]:
        keys, networks = self.batch.keys, self.scorer.networks
        for condition, guide in self.assignment.guides.items():
            place = {key: i for i, key in enumerate(guide.keys)}
            rows = [row for row, key in enumerate(keys) if key in place]
            chosen = [place[keys[row]] for row in rows]
            if rows:
                model = networks.stage1 if condition == IMAGE else None
                semantics, present = guide.semantics[chosen], guide.present[chosen]
                yield self._case(condition, rows, semantics, present, model)
        fitting = [row for row, key in enumerate(keys) if key in self.assignment.fitting]
        if networks.hears and fitting:
            assert self.batch.waveform is not None
            silence = torch.zeros_like(to_float(self.batch.waveform[fitting]))
            yield self._case(SILENT, fitting, *networks.model.hear(silence))

    def _case(
        self,
        condition: str,
        rows: list[int],
        semantics: Tensor,
        present: Tensor,
        network: Model | None = None,
    ) -> _Case:
        return _Case(
            condition=condition,
            rows=rows,
            semantics=semantics.to(self.scorer.device),
            present=present.to(self.scorer.device),
            network=network or self.scorer.networks.model,
        )

    def _score_case(self, case: _Case) -> dict[str, Float[Tensor, "2 h w"]]:
        """Colour and score; gives the chroma of each clip's result."""
        is_swapped = case.condition == SWAPPED
        keys = tuple(self.batch.keys[row] for row in case.rows)
        L = self.L[case.rows]
        predicted, logits = case.network.colorizer(L, case.semantics, case.present)
        relevance = logits.double().sigmoid().mean(1).masked_fill(~case.present, torch.nan)
        predicted = predicted.float() * AB_SCALE
        result = join(L, predicted)
        target = (self.swapped if is_swapped else self.own).rows(case.rows)
        lpips = self.scorer.perception.lpips
        reached = score(self.scores, case.condition, keys, result, target, lpips)
        add(self.scores, case.condition, keys, "relevance", relevance)
        if case.condition in FEATURED:
            self._featured(case.condition, keys, result)
        if self.scorer.observe is not None:
            self.scorer.observe(
                Prediction(
                    condition=case.condition,
                    keys=keys,
                    L=L,
                    ab_predicted=predicted,
                    ab_true=(self.swapped_ab if is_swapped else self.ab)[case.rows],
                    relevance=relevance,
                )
            )
        return dict(zip(keys, reached, strict=True))

    def _featured(self, name: str, keys: Sequence[str], rgb: UInt8[Tensor, "b 3 h w"]) -> None:
        inception = self.scorer.perception.inception
        if inception is not None:
            self.features[name] = Features(keys=tuple(keys), rows=inception(rgb).cpu())

    def _score_renderings(self, truth: Truth) -> None:
        """What could be reached without and with sound, and without it where sounds are swapped;
        sets what a swapped sound should lead to."""
        keys, classes = self.batch.keys, self.assignment.swapped_class
        renderings = self._renderings(truth)
        mean = torch.stack([torch.stack(tuple(each.values())).mean(0) for each in renderings])
        known = torch.stack(
            [each[truth.class_by_key[key]] for key, each in zip(keys, renderings, strict=True)]
        )
        add_chroma(self.scores, RENDERING, keys, known)
        without = join(self.L, mean)
        score_bound(self.scores, WITHOUT_SOUND, keys, without, self.own)
        score_bound(self.scores, WITH_SOUND, keys, join(self.L, known), self.own)
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

    def _renderings(self, truth: Truth) -> list[dict[str, Float[Tensor, "2 h w"]]]:
        """For each clip its scene's chroma in the colours of each sibling class."""
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
