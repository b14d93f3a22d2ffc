"""Encodes and scores chunks of clips, in this process or as one of many workers.

Which clips form a chunk, and which of them a batch, follows from the checkpoint and the shards
alone, and the results of chunks are joined in order. So the number of workers does not change the
result, and neither does the restart of a worker that died.
"""

import functools
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from aiaic.evaluation.encoding import Semantics
from aiaic.evaluation.evaluator import Evaluator, InProcess
from aiaic.evaluation.perceptual import Inception, Lpips, Perception
from aiaic.evaluation.scorer import Prediction, Scored, Scorer
from aiaic.evaluation.sound_assignment import Assignment
from aiaic.networks.pretrained import SUFFIXES, State
from data_prep import storage
from workflows.artifacts import pretrained_weights
from workflows.evaluation.job import EvaluationJob
from workflows.evaluation.target import EvaluationTarget, open_target

T = TypeVar("T")

SEED = 0
"""Seed of sound partners, noise and resampling; part of the protocol."""


class EvaluationWorker:
    """Evaluates single chunks of a job; opens the checkpoint and the data at the first one.

    Not earlier: an error of opening should reach the caller as that error, not as the failed start
    of a worker.
    """

    def __init__(self, job: EvaluationJob) -> None:
        self._job = job

    def encode(self, chunk: int) -> tuple[int, Semantics]:
        """The number of a chunk, and the semantics of its clips."""
        return chunk, self._evaluator.encode_chunk(chunk)

    def score(self, chunk: int, assignment: Assignment) -> tuple[int, Scored]:
        """The number of a chunk, and the scores of its clips."""
        return chunk, self._evaluator.score_chunk(chunk, assignment)

    @functools.cached_property
    def _evaluator(self) -> InProcess:
        target = open_target(self._job)
        torch.set_num_threads(target.recipe.training.threads)
        return in_process(self._job, target, open_perception(self._job))


def in_process(job: EvaluationJob, target: EvaluationTarget, perception: Perception) -> InProcess:
    """An evaluator that does the work in this process.

    Args:
        job: what to evaluate.
        target: the same, opened.
        perception: networks of LPIPS, FID and KID.
    """
    return InProcess(
        scorer=Scorer(
            networks=target.networks,
            truth=target.truth,
            perception=perception.to(target.device),
            view=target.loader(with_sound=False).evaluated,
            observe=None if job.predictions is None else _prediction_writer(job.predictions),
            device=target.device,
        ),
        chunks=target.chunks(),
        seed=SEED,
    )


def open_perception(job: EvaluationJob) -> Perception:
    """The networks of LPIPS, FID and KID for which the job names weights.

    Raises:
        FileNotFoundError: a file of weights does not exist.
        ValueError: it is not a file of weights, or holds those of another network.
    """

    def network(place: str | None, kind: Callable[[State, str], T]) -> T | None:
        if place is None:
            return None
        if not storage.name_of(place).endswith(SUFFIXES):
            raise ValueError(f"'{place}' is not a file of weights ({', '.join(SUFFIXES)})")
        return kind(pretrained_weights.read(place), place)

    return Perception(
        lpips=network(job.lpips_weights, Lpips),
        inception=network(job.inception_weights, Inception),
    )


def metric_weights(job: EvaluationJob) -> dict[str, dict[str, str]]:
    """Place and SHA-256 of the weights behind LPIPS, FID and KID, for the protocol."""
    places = {"lpips": job.lpips_weights, "inception": job.inception_weights}
    return {
        name: {"place": place, "sha256": hashlib.sha256(storage.read_bytes(place)).hexdigest()}
        for name, place in places.items()
        if place is not None
    }


class WithProgress:
    """An evaluator with a progress bar for each of its two passes."""

    def __init__(self, evaluator: Evaluator, clips: int) -> None:
        """Args:
        evaluator: the evaluator that does the work.
        clips: total number of clips.
        """
        self._evaluator = evaluator
        self._clips = clips
        self._chunk_sizes: list[int] = []

    def encode(self) -> Iterator[Semantics]:
        """The semantics of each chunk of clips."""
        with tqdm(total=self._clips, desc="encode", unit="clip") as bar:
            for part in self._evaluator.encode():
                self._chunk_sizes.append(len(part.clips))
                yield part
                bar.update(len(part.clips))

    def score(self, assignments: Sequence[Assignment]) -> Iterator[Scored]:
        """The scores of each chunk."""
        with tqdm(total=self._clips, desc="colorize and score", unit="clip") as bar:
            scored = self._evaluator.score(assignments)
            for part, size in zip(scored, self._chunk_sizes, strict=True):
                yield part
                bar.update(size)


def _prediction_writer(folder: str) -> Callable[[Prediction], None]:
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
