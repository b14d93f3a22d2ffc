"""How long a training on Ray goes on after failures: as long as it makes progress.

Nodes may die a thousand times in a long run, and each death costs it the steps since the last
checkpoint. What fails again and again before the next checkpoint is no accident and ends it.
"""

import logging
from collections.abc import Callable, Iterable

from ray.exceptions import RayActorError, RayTaskError
from ray.train import ControllerError, PreemptionError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)

log = logging.getLogger(__name__)

PAUSES_S = (0.0, 1.0, 5.0, 20.0)
"""Before the attempts after the first, second, ... failure in a row without a new checkpoint; one
more failure ends the run."""
_USERS = (
    ValueError,
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
    FileExistsError,
)
"""What a person has to mend: no attempt would come further. Other OSErrors (storage that does not
answer, a machine's full disk) may pass."""
_LONG = 400


class Patience:
    """Judges failures.

    Args:
        position: names of the newest checkpoints, which grow as the run makes progress.
    """

    def __init__(self, position: Callable[[], tuple[str, ...]]) -> None:
        self._position = position
        self._furthest = self._look()
        self.failures = 0
        """In a row, without a new checkpoint."""

    def after(self, error: Exception) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            ValueError, OSError: what the workers have raised, where no attempt would come further.
            ChildProcessError: they died too often without a new checkpoint.
        """
        failures = _failures(error)
        for failure in failures.values():
            if isinstance(failure, _USERS):
                raise failure from error
        if any(_no_fault(failure) for failure in failures.values()):
            log.info("no failure of the run: %s", _told(failures))
            return 0.0
        position = self._look()
        if position > self._furthest:
            self._furthest, self.failures = position, 0
        self.failures += 1
        if self.failures > len(PAUSES_S):
            raise _last_error(failures, self.failures) from error
        log.warning("training starts anew from the last checkpoint: %s", _told(failures))
        return PAUSES_S[self.failures - 1]

    def _look(self) -> tuple[str, ...]:
        try:
            return self._position()
        except OSError as error:
            log.warning("storage does not tell the newest checkpoint: %s", error)
            return ()


def _failures(error: Exception) -> dict[str, BaseException]:
    """What has failed, by who it was."""
    if isinstance(error, WorkerGroupError):
        return {f"worker {rank}": e for rank, e in sorted(error.worker_failures.items())}
    if isinstance(error, ControllerError):
        return {"the start of the workers": error.controller_failure}
    return {"Ray": error}


def _no_fault(failure: BaseException) -> bool:
    """Whether the cluster has taken nodes away, or has not enough of them yet."""
    if isinstance(failure, WorkerHealthCheckFailedError):
        failure = failure.health_check_failure
    preempted = isinstance(failure, RayActorError) and failure.preempted
    return preempted or isinstance(failure, PreemptionError | WorkerGroupStartupTimeoutError)


def _last_error(failures: dict[str, BaseException], count: int) -> Exception:
    for failure in failures.values():
        if isinstance(failure, OSError):
            return failure
    return ChildProcessError(
        f"training failed {count} times in a row without a new checkpoint, at last: "
        f"{_told(failures)}; the same command goes on from the last checkpoint (lower "
        "training.save_every where machines die more often than checkpoints come)"
    )


def _told(failures: dict[str, BaseException]) -> str:
    return "; ".join(_unique(f"{who}: {_brief(failure)}" for who, failure in failures.items()))


def _brief(failure: BaseException) -> str:
    if isinstance(failure, WorkerHealthCheckFailedError):
        failure = failure.health_check_failure
    if isinstance(failure, RayTaskError):  # whose own text begins with where it happened
        failure = failure.cause
    text = " ".join(str(failure).split()) or type(failure).__name__
    return text if len(text) < _LONG else f"{text[: _LONG // 2]} ... {text[-_LONG // 2 :]}"


def _unique(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))
