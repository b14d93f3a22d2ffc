"""Colours clips under every sound condition and scores the results, clip by clip.

Two passes over the clips, neither of which holds their pictures: the first encodes each sound and
each picture once, the second colours each picture with its own, no, another's, noisy... semantics.
:mod:`aiaic.conditions` says whose sound a clip gets, :mod:`aiaic.scoring` how a result is scored,
:mod:`aiaic.figures` what follows.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aiaic.audio import to_float
from aiaic.batch import Batch
from aiaic.color import AB_SCALE, join, rgb_to_lab
from aiaic.conditions import (
    IMAGE,
    MATCHED,
    MISMATCHED,
    MISSING,
    SILENT,
    SWAPPED,
    Sounds,
    Truth,
    choose,
)
from aiaic.encoding import Networks, Semantics, encode, hear
from aiaic.loader import crop
from aiaic.networks.model import Model
from aiaic.scoring import Scores, Target, add, add_distances, score, score_bound

WITHOUT_SOUND = "without_sound"
WITH_SOUND = "with_sound"
SWAPPED_WITHOUT_SOUND = "swapped_without_sound"


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
class Evaluation:
    """Scores of every clip under every condition."""

    scores: Scores
    sounds: Sounds
    semantics: Semantics


def evaluate(
    networks: Networks,
    batches: Callable[[], Iterable[Batch]],
    *,
    seed: int = 0,
    truth: Truth | None = None,
    labels: Mapping[str, str] | None = None,
    observe: Callable[[Prediction], None] | None = None,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluate a model under all conditions for which there is what they need.

    Args:
        networks: the models, in eval mode, on ``device``.
        batches: gives all clips once, in centre view; called twice. Sound may be None where the
            model does not hear.
        seed: of partners and noise.
        truth: the synthetic world's.
        labels: of each clip by key, where there are any.
        observe: is shown every prediction.
        device: where the networks are; the CPU where absent.

    Raises:
        ValueError: there are no clips, or the truth is of others.
    """
    device = device or torch.device("cpu")
    with torch.inference_mode():
        semantics = encode(networks, batches(), seed, device)
        keys = [clip.key for clip in semantics.clips]
        if truth is not None:
            truth.require(keys)
        sounds = choose(semantics.clips, seed=seed, truth=truth, labels=labels)
        scores: Scores = {}
        painter = _Painter(networks, semantics, sounds, truth, device)
        for batch in batches():
            _score_batch(painter, batch.to(device), scores, observe)
    return Evaluation(scores=scores, sounds=sounds, semantics=semantics)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Case:
    """Clips of a batch that are coloured under one condition."""

    condition: str
    rows: list[int]
    """Of the batch."""
    semantics: Float[Tensor, "b d"]
    present: Bool[Tensor, " b"]
    network: Model


class _Painter:
    """Knows which semantics colour which clip under which condition."""

    def __init__(
        self,
        networks: Networks,
        semantics: Semantics,
        sounds: Sounds,
        truth: Truth | None,
        device: torch.device,
    ) -> None:
        self.networks = networks
        self.semantics = semantics
        self.sounds = sounds
        self.truth = truth
        self.device = device
        self._row = {clip.key: row for row, clip in enumerate(semantics.clips)}

    def cases(self, batch: Batch) -> Iterator[_Case]:
        everyone = list(range(len(batch)))
        yield self._case(MISSING, everyone, None, None)
        fitting = [row for row, key in enumerate(batch.keys) if key in self.sounds.fitting]
        own = [self._row[batch.keys[row]] for row in fitting]
        if self.semantics.image is not None:
            image = self.semantics.image[own]
            yield self._case(IMAGE, fitting, image, None, self.networks.stage1)
        if not self.networks.hears:
            return
        for name, sound in self.semantics.sound.items():
            yield self._case(name, fitting, sound[own], self.semantics.audible[name][own])
        assert batch.waveform is not None
        silence, audible = hear(self.networks.model, torch.zeros_like(to_float(batch.waveform)))
        yield self._case(SILENT, fitting, silence[fitting], audible[fitting])
        for name, partners in (
            (MISMATCHED, self.sounds.mismatched),
            (SWAPPED, self.sounds.swapped),
        ):
            rows = [row for row in fitting if batch.keys[row] in partners]
            theirs = [self._row[partners[batch.keys[row]]] for row in rows]
            clean, heard = self.semantics.sound[MATCHED], self.semantics.audible[MATCHED]
            yield self._case(name, rows, clean[theirs], heard[theirs])

    def renderings(self, batch: Batch) -> list[dict[str, Float[Tensor, "2 h w"]]]:
        """For each clip its scene's chroma in the colours of each sibling class."""
        truth = self.truth
        if truth is None:
            return []
        size = batch.picture.shape[-1]
        classes = [truth.siblings[truth.appearance_by_key[key]] for key in batch.keys]
        views = [
            crop(truth.rendering(key, name), size, 0.5, 0.5)
            for key, names in zip(batch.keys, classes, strict=True)
            for name in names
        ]
        rgb = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
        ab = iter(rgb_to_lab(rgb.to(self.device))[1])
        return [{name: next(ab) for name in names} for names in classes]

    def _case(
        self,
        condition: str,
        rows: list[int],
        semantics: Tensor | None,
        present: Tensor | None,
        network: Model | None = None,
    ) -> _Case:
        if semantics is None:
            semantics = torch.zeros(len(rows), self.semantics.scene.shape[1])
            present = torch.zeros(len(rows), dtype=torch.bool)
        if present is None:
            present = torch.ones(len(rows), dtype=torch.bool)
        return _Case(
            condition=condition,
            rows=rows,
            semantics=semantics.to(self.device),
            present=present.to(self.device),
            network=network or self.networks.model,
        )


def _score_batch(
    painter: _Painter,
    batch: Batch,
    scores: Scores,
    observe: Callable[[Prediction], None] | None,
) -> None:
    L, ab = rgb_to_lab(batch.picture)
    own = Target.of(batch.picture)
    renderings = painter.renderings(batch)
    swapped_ab, swapped = ab, own
    if renderings:
        swapped_ab = _swapped_ab(painter, batch, ab, renderings)
        swapped = Target.of(join(L, swapped_ab))
        _score_bounds(painter, batch, L, own, swapped, renderings, scores)
    results: dict[str, dict[str, Tensor]] = {}
    for case in painter.cases(batch):
        if not case.rows:
            continue
        is_swapped = case.condition == SWAPPED
        keys = tuple(batch.keys[row] for row in case.rows)
        predicted, logits = case.network.colorizer(L[case.rows], case.semantics, case.present)
        relevance = logits.double().sigmoid().mean(1).masked_fill(~case.present, torch.nan)
        predicted = predicted.float() * AB_SCALE
        result = join(L[case.rows], predicted)
        target = (swapped if is_swapped else own).rows(case.rows)
        reached = score(scores, case.condition, keys, result, target)
        results[case.condition] = dict(zip(keys, reached, strict=True))
        add(scores, case.condition, keys, "relevance", relevance)
        if observe is not None:
            observe(
                Prediction(
                    condition=case.condition,
                    keys=keys,
                    L=L[case.rows],
                    ab_predicted=predicted,
                    ab_true=(swapped_ab if is_swapped else ab)[case.rows],
                    relevance=relevance,
                )
            )
    for condition in (MISSING, MISMATCHED, SWAPPED):
        add_distances(scores, condition, results.get(MATCHED, {}), results.get(condition, {}))


def _swapped_ab(
    painter: _Painter,
    batch: Batch,
    ab: Float[Tensor, "b 2 h w"],
    renderings: list[dict[str, Float[Tensor, "2 h w"]]],
) -> Float[Tensor, "b 2 h w"]:
    """The chroma that a swapped sound should lead to; a clip's own where it gets none."""
    truth, partners = painter.truth, painter.sounds.swapped
    assert truth is not None
    return torch.stack(
        [
            rendered[truth.class_by_key[partners[key]]] if key in partners else own
            for key, rendered, own in zip(batch.keys, renderings, ab, strict=True)
        ]
    )


def _score_bounds(
    painter: _Painter,
    batch: Batch,
    L: Float[Tensor, "b 1 h w"],
    own: Target,
    swapped: Target,
    renderings: list[dict[str, Float[Tensor, "2 h w"]]],
    scores: Scores,
) -> None:
    """What could be reached without and with sound, and without it where sounds are swapped."""
    truth = painter.truth
    assert truth is not None
    mean = torch.stack([torch.stack(tuple(each.values())).mean(0) for each in renderings])
    known = torch.stack(
        [each[truth.class_by_key[key]] for key, each in zip(batch.keys, renderings, strict=True)]
    )
    without = join(L, mean)
    score_bound(scores, WITHOUT_SOUND, batch.keys, without, own)
    score_bound(scores, WITH_SOUND, batch.keys, join(L, known), own)
    rows = [row for row, key in enumerate(batch.keys) if key in painter.sounds.swapped]
    if rows:
        keys = [batch.keys[row] for row in rows]
        score_bound(scores, SWAPPED_WITHOUT_SOUND, keys, without[rows], swapped.rows(rows))
