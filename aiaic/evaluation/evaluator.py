"""Evaluates a model in two passes over its clips, a fixed chunk of them at a time.

Neither pass holds pictures: the first encodes each sound and each picture once, the second colours
each picture with its own, no, another's, noisy... semantics and scores the results. Chunks may be
done by whatever processes there are; the parts are joined in order, so that the result depends on
neither their number nor their speed. ``conditions`` says whose sound a clip gets, ``guides`` with
what a chunk is coloured, ``scorer`` does it, and ``figures`` says what follows.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from aiaic.evaluation import encoding
from aiaic.evaluation import scores as scoring
from aiaic.evaluation.assignment import Assigner, Assignment
from aiaic.evaluation.conditions import Sounds, Truth, choose
from aiaic.evaluation.encoding import Semantics
from aiaic.evaluation.perceptual import Features
from aiaic.evaluation.scorer import Scored, Scorer
from aiaic.evaluation.scores import Scores
from aiaic.loading.batch import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of every clip under every condition."""

    scores: Scores
    sounds: Sounds
    semantics: Semantics
    features: Mapping[str, Features]
    """As in :class:`Scored`; empty without the network."""


@runtime_checkable
class Evaluator(Protocol):
    """What carries out both passes, chunk by chunk, in this process or in many."""

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
    truth: Truth | None = None,
    labels: Mapping[str, str] | None = None,
) -> Evaluation:
    """Evaluate a model under all conditions for which there is what they need.

    Args:
        evaluator: of the model and its clips.
        seed: of partners.
        truth: the synthetic world's.
        labels: of each clip by key, where there are any.

    Raises:
        ValueError: there are no clips, or the truth is of others.
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
        scores=scoring.merge([part.scores for part in parts]),
        sounds=sounds,
        semantics=semantics,
        features={
            name: Features.join([p.features[name] for p in parts if name in p.features])
            for name in sorted(featured)
        },
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class InProcess:
    """Carries out both passes in this process, one chunk after the other."""

    scorer: Scorer
    chunks: Sequence[Callable[[], Iterable[Batch]]]
    """Each gives its clips once, in the evaluated view; called twice. Sound may be None where the
    model does not hear."""
    seed: int = 0
    """Of noise."""

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
