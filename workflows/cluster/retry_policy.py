"""Retry policy: keep restarting while new checkpoints appear.

Nodes may die a thousand times in a long run, and each death costs the steps since the last
checkpoint. A failure that repeats before the next checkpoint is systematic and ends the run.
"""

import logging
from collections.abc import Callable, Mapping

from ray.exceptions import RayActorError, RayTaskError
from ray.train import ControllerError, PreemptionError, WorkerGroupError

from data_prep.storage.permanent_errors import PERMANENT
from workflows.cluster import ray_internals

log = logging.getLogger(__name__)

DELAYS_S = (0.0, 1.0, 5.0, 20.0)
"""Before the attempt that follows the first, second, ... failure in a row without a new checkpoint;
one more failure ends the run."""
_USER_ERRORS = (ValueError, *PERMANENT)
"""What a person has to fix: every attempt would fail alike. Other OSErrors (storage that does not
answer, a full disk on one machine) may pass."""
_LONGEST_TEXT = 400


class RetryPolicy:
    """Decides after each failed attempt whether, and when, there is another one.

    Args:
        position: gives the names of the newest checkpoints, which grow as the run makes progress.
    """

    def __init__(self, position: Callable[[], tuple[str, ...]]) -> None:
        self._position = position
        self._furthest = self._current_position()
        self.failures = 0
        """In a row, without a new checkpoint."""

    def next_delay_s(self, error: Exception) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            ValueError, OSError: raised by a worker, and any other attempt would raise it too.
            ChildProcessError: too many failures without a new checkpoint.
        """
        failures = _failures(error)
        for failure in failures.values():
            if is_user_error(failure):
                raise failure from error
        if any(_caused_by_cluster(failure) for failure in failures.values()):
            log.info("the cluster took workers away, or has too few: %s", describe(failures))
            return 0.0
        position = self._current_position()
        if position > self._furthest:
            self._furthest, self.failures = position, 0
        self.failures += 1
        if self.failures > len(DELAYS_S):
            raise _final_error(failures, self.failures) from error
        log.warning("training restarts from the last checkpoint: %s", describe(failures))
        return DELAYS_S[self.failures - 1]

    def _current_position(self) -> tuple[str, ...]:
        try:
            return self._position()
        except OSError as error:
            log.warning("cannot list the newest checkpoints: %s", error)
            return ()


def is_user_error(failure: BaseException) -> bool:
    """Whether a person has to fix something before another attempt can succeed."""
    return isinstance(failure, _USER_ERRORS)


def describe(failures: Mapping[str, BaseException]) -> str:
    """Failures in one line, by what failed; equal ones once."""
    return "; ".join(dict.fromkeys(f"{who}: {_brief(error)}" for who, error in failures.items()))


def _failures(error: Exception) -> dict[str, BaseException]:
    """Each failure by what failed."""
    if isinstance(error, WorkerGroupError):
        return {f"worker {rank}": e for rank, e in sorted(error.worker_failures.items())}
    if isinstance(error, ControllerError):
        return {"start-up of the workers": error.controller_failure}
    return {"Ray": error}


def _caused_by_cluster(failure: BaseException) -> bool:
    """Whether the cluster has taken nodes away, or does not have enough of them yet."""
    failure = ray_internals.unwrap_health_check(failure)
    preempted = isinstance(failure, RayActorError) and failure.preempted
    return (
        preempted
        or isinstance(failure, PreemptionError)
        or ray_internals.is_startup_timeout(failure)
    )


def _final_error(failures: Mapping[str, BaseException], count: int) -> Exception:
    for failure in failures.values():
        if isinstance(failure, OSError):
            return failure
    return ChildProcessError(
        f"training failed {count} times in a row without a new checkpoint, most recently: "
        f"{describe(failures)}; rerun the command to resume from the last checkpoint (lower "
        "training.save_every where machines die more often than checkpoints are written)"
    )


def _brief(failure: BaseException) -> str:
    failure = ray_internals.unwrap_health_check(failure)
    if isinstance(failure, RayTaskError):  # whose own text starts with where it was raised
        failure = failure.cause
    text = " ".join(str(failure).split()) or type(failure).__name__
    if len(text) < _LONGEST_TEXT:
        return text
    return f"{text[: _LONGEST_TEXT // 2]} ... {text[-_LONGEST_TEXT // 2 :]}"
