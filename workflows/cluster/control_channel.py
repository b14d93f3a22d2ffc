"""Control channel between the driver and the workers of one attempt.

A named actor that needs no processor holds what rank 0 reported last and whether the workers are to
stop. It lives on the driver's node and ends with the driver, so neither a lost node nor another
attempt can reach it. Each report contains all earlier ones, and a new checkpoint is sent with every
report until one has arrived, so a lost call is made up for by the next. A worker never waits for
the actor within a step.
"""

import contextlib
import dataclasses
import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, cast

import ray
from ray.exceptions import ObjectLostError, PendingCallsLimitExceeded, RayActorError, RpcError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_NAMESPACE = "aiaic"
_PROGRESS_EVERY_S = 0.5
_ASK_EVERY_S = 1.0
_ANSWER_WITHIN_S = 5.0
_PENDING_CALLS = 100
"""Of one process to an actor that does not answer; further ones are dropped."""
_WARNINGS = 20
_UNREACHABLE = (
    RayActorError,
    RpcError,
    ObjectLostError,
    PendingCallsLimitExceeded,
    TimeoutError,
)
"""Raised while the actor does not answer, or an answer is lost with it: no reason to end a
training."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What rank 0 has reported up to now."""

    progress: tuple[int, int, int, float] | None = None
    """Stage, step, steps in all, loss."""
    commits: int = 0
    """Checkpoints committed in this attempt."""
    warnings: tuple[str, ...] = ()
    """The newest lines."""
    warned: int = 0
    """Lines in all."""


class Mailbox:
    """The actor's state."""

    def __init__(self) -> None:
        self._report: Report | None = None
        self._commit: Any = None
        self._stop = False

    def post(self, report: Report, commit: Any = None) -> None:
        """Take rank 0's report, and the newest commit where there is a new one."""
        self._report = report
        self._commit = self._commit if commit is None else commit

    def poll(self, commits: int) -> tuple[Report | None, Any]:
        """The report, None before the first one; and the newest commit of more than so many."""
        new = self._report is not None and self._report.commits > commits
        return self._report, self._commit if new else None

    def request_stop(self) -> None:
        """Ask the workers to stop."""
        self._stop = True

    def stop_requested(self) -> bool:
        """Whether the workers are to stop."""
        return self._stop


class ControlChannel:
    """One end of the channel: rank 0's or the driver's.

    Args:
        mailbox: handle of the actor.
        name: of the actor.
    """

    def __init__(self, mailbox: Any, name: str = "") -> None:
        self.name = name
        self._mailbox = mailbox
        self._report = Report()
        self._lock = threading.Lock()  # steps and checkpoints are reported by different threads
        self._posted_at = -_PROGRESS_EVERY_S
        self._posted: Future[Any] | None = None
        self._commit: Any = None  # the newest, until it has arrived
        self._commit_posted: Future[Any] | None = None
        self._asked_at = -_ASK_EVERY_S
        self._answer: Future[bool] | None = None
        self._stop_requested = False

    @classmethod
    def create(cls) -> Self:
        """The driver's end, with a new actor on its node."""
        name = f"control-{secrets.token_hex(8)}"
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mailbox = (
            cast(Any, ray.remote(Mailbox))
            .options(
                name=name,
                namespace=_NAMESPACE,
                num_cpus=0,
                max_restarts=-1,
                max_pending_calls=_PENDING_CALLS,
                scheduling_strategy=here,
            )
            .remote()
        )
        return cls(mailbox, name)

    @classmethod
    def connect(cls, name: str) -> Self:
        """A worker's end.

        Raises:
            ConnectionError: the driver has given this attempt up.
        """
        try:
            return cls(ray.get_actor(name, namespace=_NAMESPACE), name)
        except ValueError as error:
            raise ConnectionError(f"no control channel '{name}': the attempt is over") from error

    def started(self) -> None:
        """Report that the workers run, and listen for a request to stop."""
        with self._lock:
            self._post()

    def progress(self, stage: int, step: int, steps: int, loss: float) -> None:
        """Report rank 0's position; calls in quick succession are left to the next report."""
        with self._lock:
            self._report = dataclasses.replace(self._report, progress=(stage, step, steps, loss))
            if time.monotonic() - self._posted_at >= _PROGRESS_EVERY_S:
                self._post()

    def committed(self, commit: Any) -> None:
        """Report a new checkpoint."""
        with self._lock:
            self._report = dataclasses.replace(self._report, commits=self._report.commits + 1)
            self._commit, self._commit_posted = commit, None
            self._post()

    def warn(self, line: str) -> None:
        """Report a line for the driver's log."""
        with self._lock:
            self._report = dataclasses.replace(
                self._report,
                warnings=(*self._report.warnings, line)[-_WARNINGS:],
                warned=self._report.warned + 1,
            )
            self._post()

    def flush(self) -> None:
        """Wait a few seconds for the arrival of the last report, before this process ends."""
        with self._lock:
            self._post()
        if self._posted is not None:
            with contextlib.suppress(*_UNREACHABLE):
                self._posted.result(_ANSWER_WITHIN_S)

    def stop_requested(self) -> bool:
        """Whether the workers are to stop, as far as is known; asks now and then, never waits."""
        if self._answer is not None and self._answer.done():
            with contextlib.suppress(*_UNREACHABLE):
                self._stop_requested = self._stop_requested or self._answer.result()
            self._answer = None
        if self._answer is None and time.monotonic() - self._asked_at >= _ASK_EVERY_S:
            self._asked_at = time.monotonic()
            with contextlib.suppress(*_UNREACHABLE):
                self._answer = self._mailbox.stop_requested.remote().future()
        return self._stop_requested

    def request_stop(self) -> bool:
        """Ask the workers to save a checkpoint and stop; returns whether the request arrived."""
        with contextlib.suppress(*_UNREACHABLE):
            self._mailbox.request_stop.remote().future().result(_ANSWER_WITHIN_S)
            return True
        return False

    def poll(self, commits: int = 0) -> tuple[Report | None, Any]:
        """As :meth:`Mailbox.poll`; nothing while the actor does not answer."""
        with contextlib.suppress(*_UNREACHABLE):
            return self._mailbox.poll.remote(commits).future().result(_ANSWER_WITHIN_S)
        return None, None

    def close(self) -> None:
        """End the actor, in the driver."""
        ray.kill(self._mailbox)

    def _post(self) -> None:
        self._posted_at = time.monotonic()
        sent = self._commit_posted
        if sent is not None and sent.done() and sent.exception() is None:
            self._commit = self._commit_posted = None
        with contextlib.suppress(*_UNREACHABLE):
            self._posted = self._mailbox.post.remote(self._report, self._commit).future()
            self._commit_posted = None if self._commit is None else self._posted


class WarningForwarder(logging.Handler):
    """Forwards warnings to the driver: a worker's own log is not shown anywhere."""

    def __init__(self, channel: ControlChannel) -> None:
        super().__init__(logging.WARNING)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.warn(record.getMessage())


class Listener:
    """Passes the reports of one attempt on to callbacks, in the driver.

    ``committed`` is called in a separate thread, since it may wait for servers that do not answer;
    if several checkpoints arrive during one call, only the newest is passed on. Leaving the context
    waits for the last call and raises the first error of any of them.

    Args:
        channel: the driver's end.
        progress: called with (stage, step, steps in all, loss).
        committed: called with what was given to :meth:`ControlChannel.committed`.
    """

    def __init__(
        self,
        channel: ControlChannel,
        progress: Callable[[int, int, int, float], None],
        committed: Callable[[Any], None],
    ) -> None:
        self._channel, self._progress, self._committed = channel, progress, committed
        self._known: Report | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="committed")
        self._calls: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=error is not None)
        for call in () if error else self._calls:
            call.result()

    @property
    def started(self) -> bool:
        """Whether the workers run, as far as is known."""
        return self._known is not None

    @property
    def training(self) -> bool:
        """Whether steps were taken, as far as is known."""
        return self._known is not None and self._known.progress is not None

    def poll(self) -> None:
        """Pass on what is new."""
        known = self._known or Report()
        report, commit = self._channel.poll(known.commits)
        if report is None:
            return
        if report.progress is not None and report.progress != known.progress:
            self._progress(*report.progress)
        if commit is not None:
            if self._calls and self._calls[-1].cancel():
                self._calls.pop()
            self._calls.append(self._thread.submit(self._committed, commit))
        new_lines = report.warned - known.warned
        for line in report.warnings[-new_lines:] if new_lines > 0 else ():
            log.warning("%s", line)
        self._known = report
