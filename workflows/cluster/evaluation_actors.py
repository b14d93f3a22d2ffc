"""Workers of Ray that evaluate chunks of clips."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import ray
from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayActorError
from ray.util import ActorPool

from aiaic.evaluation.assignment import Assignment
from aiaic.evaluation.encoding import Semantics
from aiaic.evaluation.scorer import Scored
from workflows.cluster import session
from workflows.evaluation.worker import Worker
from workflows.options import Evaluate

log = logging.getLogger(__name__)

_DEATHS = 3
"""After which a worker is given up; a chunk that was lost with it is done again."""


@contextlib.contextmanager
def started(options: Evaluate, chunks: int) -> Iterator["RayEvaluator"]:
    """Workers that take one chunk after the other; they, and Ray, go with the context.

    Where there are GPUs each worker has one, and there are no more workers than GPUs.
    """
    workers = min(options.workers, max(chunks, 1))
    with session.connected(cpus=workers):
        gpus = session.gpus()
        if 0 < gpus < workers:
            log.warning("%d GPUs: as many workers evaluate, not %d", gpus, workers)
            workers = gpus
        if session.cpus() < workers:
            log.warning("the cluster has %d CPUs now: Ray waits until it has more", session.cpus())
        kind = ray.remote(
            num_cpus=1,
            num_gpus=int(gpus > 0),
            max_restarts=_DEATHS,
            max_task_retries=_DEATHS,
        )(Worker)
        actors = [cast(Any, kind).remote(options) for _ in range(workers)]
        try:
            yield RayEvaluator(actors, chunks)
        finally:
            for actor in actors:
                ray.kill(actor)


class RayEvaluator:
    """Both passes of an evaluation on actors, whoever is free; parts come back in order."""

    def __init__(self, actors: Sequence[Any], chunks: int) -> None:
        self._actors = actors
        self._chunks = chunks

    def encode(self) -> Iterator[Semantics]:
        """The semantics of each chunk of clips."""
        return self._in_order("encode", [(chunk,) for chunk in range(self._chunks)])

    def score(self, assignments: Sequence[Assignment]) -> Iterator[Scored]:
        """The scores of each chunk."""
        return self._in_order("score", list(enumerate(assignments)))

    def _in_order(self, method: str, tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """The parts of all chunks; one that came early waits for those before it.

        Raises:
            OSError: a worker died again and again.
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
                f"a worker of the evaluation died {_DEATHS + 1} times, likely for want of memory: "
                "give fewer --workers"
            ) from error
