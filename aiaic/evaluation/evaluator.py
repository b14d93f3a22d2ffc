"""Evaluates a model in two passes over its clips, chunk by chunk.

The first pass encodes each sound and each picture once. The second colorizes each picture with the
semantics of each condition and scores the results; pictures are never held for longer than a batch.
Chunks may be computed by any number of processes: their results are joined in order, so the result
depends neither on the number of processes nor on their speed.

:mod:`~aiaic.evaluation.conditions` chooses the sounds, :mod:`~aiaic.evaluation.sound_assignment`
looks up their semantics, :mod:`~aiaic.evaluation.scorer` colorizes and scores.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from aiaic.evaluation import encoding, scores
from aiaic.evaluation.conditions import GroundTruth, Sounds, choose
from aiaic.evaluation.encoding import Semantics
from aiaic.evaluation.perceptual import Features
from aiaic.evaluation.scorer import Scored, Scorer
from aiaic.evaluation.scores import Scores
from aiaic.evaluation.sound_assignment import Assigner, Assignment
from aiaic.loading.batch import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of every clip under every condition, and what they were computed from."""

    scores: Scores
    sounds: Sounds
    semantics: Semantics
    features: Mapping[str, Features]
    """As in :class:`Scored`; empty without Inception's weights."""


@runtime_checkable
class Evaluator(Protocol):
    """Runs both passes, in this process or in many."""

    def encode(self) -> Iterable[Semantics]:
        """The semantics of each chunk of clips, in order."""
        ...

    def score(self, assignments: Sequence[Assignment]) -> Iterable[Scored]:
        """The scores of each chunk, in order, given one assignment each."""
        ...


def evaluate(
    evaluator: Evaluator,
    *,
    seed: int = 0,
    truth: GroundTruth | None = None,
    labels: Mapping[str, str] | None = None,
) -> Evaluation:
    """Evaluate a model under all conditions that its clips allow.

    Args:
        evaluator: evaluator of the model and its clips.
        seed: seed of the choice of sound partners.
        truth: ground truth of a synthetic world.
        labels: label of each clip by key.

    Raises:
        ValueError: there are no clips, or the ground truth is that of other clips.
    """
    encoded = list(evaluator.encode())
    semantics = encoding.join(encoded)
    if truth is not None:
        truth.require(semantics.keys)
    sounds = choose(semantics.clips, seed=seed, truth=truth, labels=labels)
    assigner = Assigner(semantics, sounds, truth)
    parts = list(evaluator.score([assigner.assign(part.keys) for part in encoded]))
    featured = {name for part in parts for name in part.features}
    return Evaluation(
        scores=scores.merge([part.scores for part in parts]),
        sounds=sounds,
        semantics=semantics,
        features={
            name: Features.join([p.features[name] for p in parts if name in p.features])
            for name in sorted(featured)
        },
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InProcess:
    """Runs both passes in this process, one chunk after the other."""

    scorer: Scorer
    chunks: Sequence[Callable[[], Iterable[Batch]]]
    """Each reads the batches of one chunk, in the evaluated view, and is called once per pass.
    Batches need sound only if the model has a trained audio encoder."""
    seed: int = 0
    """Seed of the noise."""

    def encode(self) -> Iterator[Semantics]:
        """The semantics of each chunk of clips."""
        yield from map(self.encode_chunk, range(len(self.chunks)))

    def score(self, assignments: Sequence[Assignment]) -> Iterator[Scored]:
        """The scores of each chunk."""
        for chunk, assignment in enumerate(assignments):
            yield self.score_chunk(chunk, assignment)

    def encode_chunk(self, chunk: int) -> Semantics:
        """The semantics of one chunk of clips."""
        batches = self.chunks[chunk]()
        return encoding.encode(self.scorer.networks, batches, self.seed, self.scorer.device)

    def score_chunk(self, chunk: int, assignment: Assignment) -> Scored:
        """The scores of one chunk of clips."""
        return self.scorer.score(self.chunks[chunk](), assignment)
