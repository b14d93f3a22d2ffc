"""What carries out an evaluation's passes: this process, or workers of Ray.

A chunk of clips is the unit of work. Which clips make a chunk, and a batch of it, follows from
the checkpoint and the shards alone, and parts are joined in order: the result is the same on any
number of workers, and after any number of their deaths.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from aiaic.evaluation.assignment import Assignment
from aiaic.evaluation.conditions import Truth
from aiaic.evaluation.encoding import Semantics
from aiaic.evaluation.evaluator import Evaluator, InProcess
from aiaic.evaluation.perceptual import Inception, Lpips, Perception
from aiaic.evaluation.scorer import Prediction, Scored, Scorer
from aiaic.networks.pretrained import SUFFIXES, State
from data_prep import storage
from workflows.artifacts import pretrained_weights
from workflows.evaluation import ground_truth
from workflows.evaluation.target import Subject, open_subject
from workflows.options import Evaluate

T = TypeVar("T")

SEED = 0
"""Of partners, noise and draws; part of the protocol."""


@contextlib.contextmanager
def opened(
    options: Evaluate, subject: Subject, known: Truth | None, perception: Perception
) -> Iterator[Evaluator]:
    """The evaluator that the options ask for, with progress bars; Ray goes with the context.

    Raises:
        ValueError: the number of workers is negative.
    """
    if options.workers < 0:
        raise ValueError(f"--workers is {options.workers}: give 0 or more")
    if options.workers == 0:
        yield _Shown(in_process(options, subject, known, perception), len(subject.refs))
        return
    from workflows.cluster import evaluation_actors  # noqa: PLC0415 (Ray is needed for this alone)

    chunks = len(subject.chunks())
    with evaluation_actors.started(_everywhere(options, subject), chunks) as evaluator:
        yield _Shown(evaluator, len(subject.refs))


def in_process(
    options: Evaluate, subject: Subject, known: Truth | None, perception: Perception
) -> InProcess:
    """An evaluator in this process, with as many threads as every other has."""
    torch.set_num_threads(subject.recipe.training.threads)
    return InProcess(
        scorer=Scorer(
            networks=subject.networks,
            truth=known,
            perception=perception.to(subject.device),
            view=subject.loader(with_sound=False).evaluated,
            observe=None if options.predictions is None else _writer(options.predictions),
            device=subject.device,
        ),
        chunks=subject.chunks(),
        seed=SEED,
    )


def open_perception(options: Evaluate) -> Perception:
    """The networks of LPIPS, FID and KID whose weights are given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds other weights, or is no file.
    """

    def network(place: str | None, kind: Callable[[State, str], T]) -> T | None:
        if place is None:
            return None
        if not storage.name_of(place).endswith(SUFFIXES):
            raise ValueError(f"'{place}' is no file of weights ({', '.join(SUFFIXES)})")
        return kind(pretrained_weights.read(place), place)

    return Perception(
        lpips=network(options.lpips_weights, Lpips),
        inception=network(options.inception_weights, Inception),
    )


def metric_weights(options: Evaluate) -> dict[str, dict[str, str]]:
    """Which files of weights LPIPS, FID and KID rest on, for the protocol."""
    places = {"lpips": options.lpips_weights, "inception": options.inception_weights}
    return {
        name: {"place": place, "sha256": hashlib.sha256(storage.read_bytes(place)).hexdigest()}
        for name, place in places.items()
        if place is not None
    }


class Worker:
    """What a worker of Ray keeps: the checkpoint and all else that the options name by place."""

    def __init__(self, options: Evaluate) -> None:
        self._options = options

    def encode(self, chunk: int) -> tuple[int, Semantics]:
        """The semantics of a chunk of clips, under its number."""
        return chunk, self._evaluator.encode_chunk(chunk)

    def score(self, chunk: int, assignment: Assignment) -> tuple[int, Scored]:
        """The scores of a chunk of clips, under its number."""
        return chunk, self._evaluator.score_chunk(chunk, assignment)

    @functools.cached_property
    def _evaluator(self) -> InProcess:
        """Opened at the first use, so that what is absent on this machine is told by its name."""
        options = self._options
        known = None if options.truth is None else ground_truth.read(options.truth).truth
        return in_process(options, open_subject(options), known, open_perception(options))


class _Shown:
    """An evaluator with a progress bar for each pass."""

    def __init__(self, evaluator: Evaluator, clips: int) -> None:
        self._evaluator = evaluator
        self._clips = clips
        self._sizes: list[int] = []

    def encode(self) -> Iterator[Semantics]:
        with tqdm(total=self._clips, desc="listen and look", unit="clip") as bar:
            for part in self._evaluator.encode():
                self._sizes.append(len(part.clips))
                yield part
                bar.update(len(part.clips))

    def score(self, assignments: Sequence[Assignment]) -> Iterator[Scored]:
        with tqdm(total=self._clips, desc="colour", unit="clip") as bar:
            scored = self._evaluator.score(assignments)
            for part, size in zip(scored, self._sizes, strict=True):
                yield part
                bar.update(size)


def _everywhere(options: Evaluate, subject: Subject) -> Evaluate:
    """The same options with places that mean the same in every process."""
    places = {
        name: storage.absolute(place)
        for name in ("shards", "truth", "predictions", "lpips_weights", "inception_weights")
        if (place := getattr(options, name)) is not None
    }
    checkpoint = storage.absolute(subject.place)
    return dataclasses.replace(options, **places, checkpoint=checkpoint)


def _writer(folder: str) -> Callable[[Prediction], None]:
    """Writes ``<condition>/<key>.npz`` with ``L``, ``ab_predicted`` and ``ab_true``, Lab units."""

    def write(prediction: Prediction) -> None:
        for row, key in enumerate(prediction.keys):
            content = io.BytesIO()
            np.savez(
                content,
                L=prediction.L[row, 0].cpu().numpy(),
                ab_predicted=prediction.ab_predicted[row].cpu().numpy(),
                ab_true=prediction.ab_true[row].cpu().numpy(),
            )
            name = storage.join(folder, prediction.condition, f"{key}.npz")
            storage.write_bytes(name, content.getvalue())

    return write
