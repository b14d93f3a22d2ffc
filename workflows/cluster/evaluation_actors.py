"""Evaluates the chunks of a job on Ray actors."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import ray
from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayActorError
from ray.util import ActorPool

from aiaic.evaluation.encoding import Semantics
from aiaic.evaluation.scorer import Scored
from aiaic.evaluation.sound_assignment import Assignment
from workflows.cluster import session
from workflows.evaluation.job import EvaluationJob
from workflows.evaluation.worker import EvaluationWorker

log = logging.getLogger(__name__)

_RESTARTS = 3
"""Restarts of an actor, and retries of a chunk that died with it, before the evaluation fails."""


@contextlib.contextmanager
def started(job: EvaluationJob, *, workers: int, chunks: int) -> Iterator["RayEvaluator"]:
    """An evaluator with its actors, and with a Ray cluster if there is none; both end on exit.

    Args:
        job: what to evaluate; its places must mean the same on all machines.
        workers: number of actors; on a cluster with GPUs each gets one, and there are no more
            actors than GPUs.
        chunks: number of chunks of the job.
    """
    workers = min(workers, max(chunks, 1))
    with session.connected(cpus=workers):
        gpus = session.gpus()
        if 0 < gpus < workers:
            log.warning("using %d workers, one per GPU, instead of %d", gpus, workers)
            workers = gpus
        if session.cpus() < workers:
            log.warning(
                "%d workers need as many CPUs and the cluster has %d: Ray waits for more",
                workers,
                session.cpus(),
            )
        kind = ray.remote(
            num_cpus=1,
            num_gpus=int(gpus > 0),
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
        )(EvaluationWorker)
        actors = [cast(Any, kind).remote(job) for _ in range(workers)]
        try:
            yield RayEvaluator(actors, chunks)
        finally:
            for actor in actors:
                ray.kill(actor)


class RayEvaluator:
    """Runs both passes of an evaluation on actors; each takes the next chunk when it is idle."""

    def __init__(self, actors: Sequence[Any], chunks: int) -> None:
        """Args:
        actors: of :class:`EvaluationWorker`.
        chunks: number of chunks of the job.
        """
        self._actors = actors
        self._chunks = chunks

    def encode(self) -> Iterator[Semantics]:
        """The semantics of each chunk of clips, in order."""
        return self._in_order("encode", [(chunk,) for chunk in range(self._chunks)])

    def score(self, assignments: Sequence[Assignment]) -> Iterator[Scored]:
        """The scores of each chunk, in order."""
        return self._in_order("score", list(enumerate(assignments)))

    def _in_order(self, method: str, tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """The results of all chunks in order; early ones wait for those before them.

        Raises:
            OSError: an actor died more often than it may be restarted.
        """
        pool: Any = ActorPool(list(self._actors))
        done: dict[int, Any] = {}
        following = 0
        try:
            for chunk, part in pool.map_unordered(
                lambda actor, task: getattr(actor, method).remote(*task), tasks
            ):
                done[chunk] = part
                while following in done:
                    yield done.pop(following)
                    following += 1
        except (RayActorError, OutOfMemoryError, ActorUnschedulableError) as error:
            raise OSError(
                f"an evaluation worker died {_RESTARTS + 1} times, probably out of memory: "
                "use fewer --workers"
            ) from error
