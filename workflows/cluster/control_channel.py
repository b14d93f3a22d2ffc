"""What the driver and the workers of one attempt tell each other, through Ray's own store."""

import contextlib
import json
import logging
import secrets
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

from ray.exceptions import GetTimeoutError, RpcError
from ray.experimental import internal_kv

from workflows.training.local import Committed, Progress

_PROGRESS_EVERY_S = 0.5
_WARNINGS = 20
_AWAY = (RpcError, GetTimeoutError)
"""What Ray raises while its store does not answer: no news, and no reason to end a training."""

log = logging.getLogger(__name__)


class News:
    """Two entries of the store: what rank 0 tells, and whether the workers are to leave.

    Args:
        key: of the entries; a new one for each attempt, so that nothing of another one is heard.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._latest: dict[str, Any] = {}
        self._lines: list[str] = []
        self._warned = 0
        self._told_at = -_PROGRESS_EVERY_S
        self._lock = threading.Lock()  # the loop tells of steps, another thread of checkpoints

    def progress(self, stage: int, step: int, steps: int, loss: float) -> None:
        """Tell where rank 0 is; not more often than the driver looks."""
        news = {"stage": stage, "step": step, "steps": steps, "loss": loss}
        self._tell(news, now=time.monotonic() - self._told_at >= _PROGRESS_EVERY_S)

    def committed(self, place: str) -> None:
        """Tell of a new checkpoint."""
        self._tell({"committed": place})

    def warn(self, line: str) -> None:
        """Tell what a person should know."""
        with self._lock:
            self._lines = [*self._lines, line][-_WARNINGS:]
            self._warned += 1
            news = {"warnings": self._lines, "warned": self._warned}
        self._tell(news)

    def begin(self) -> None:
        """Tell that the workers are there, and will hear that they are to leave."""
        self._tell({"begun": True})

    def read(self) -> dict[str, Any]:
        """What rank 0 has told; empty before it has begun."""
        content = internal_kv._internal_kv_get(self.key)
        return json.loads(content) if content else {}

    def send_away(self) -> bool:
        """Tell the workers to leave with a checkpoint; says whether the store has taken that."""
        with contextlib.suppress(*_AWAY):
            internal_kv._internal_kv_put(self._leave_key, b"leave", overwrite=True)
            return True
        return False

    def sent_away(self) -> bool:
        """Whether the workers are to leave, as far as can be known."""
        with contextlib.suppress(*_AWAY):
            return internal_kv._internal_kv_get(self._leave_key) is not None
        return False

    def delete(self) -> None:
        """Delete both entries, after the attempt, unless the store is away: nobody minds them."""
        with contextlib.suppress(*_AWAY):
            internal_kv._internal_kv_del(self.key)
            internal_kv._internal_kv_del(self._leave_key)

    @property
    def _leave_key(self) -> str:
        return f"{self.key}/leave"

    def _tell(self, news: dict[str, Any], *, now: bool = True) -> None:
        with self._lock:
            self._latest |= news
            if now:
                self._told_at = time.monotonic()
                told = json.dumps(self._latest).encode()
                with contextlib.suppress(*_AWAY):  # the next time all of it is told again
                    internal_kv._internal_kv_put(self.key, told, overwrite=True)


class Warnings(logging.Handler):
    """Passes warnings on to the driver: what workers log is seen by nobody else."""

    def __init__(self, news: News) -> None:
        super().__init__(logging.WARNING)
        self._news = news

    def emit(self, record: logging.LogRecord) -> None:
        self._news.warn(record.getMessage())


class Reader:
    """Passes the news of one attempt on, in the driver.

    ``committed`` is called in a thread of its own, as it may wait for servers that do not answer;
    for the newest checkpoint alone, where several come meanwhile. The context's end waits for the
    last call, and raises what the first one to fail has raised.
    """

    def __init__(self, news: News, progress: Progress, committed: Committed) -> None:
        self._news, self._progress, self._committed = news, progress, committed
        self._known: dict[str, Any] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="committed")
        self._told: list[Future[None]] = []

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(cancel_futures=error is not None)
        for told in () if error else self._told:
            told.result()

    @property
    def begun(self) -> bool:
        """Whether the workers are there, as far as is known."""
        return "begun" in self._known

    @property
    def trains(self) -> bool:
        """Whether steps were taken, as far as is known."""
        return "step" in self._known

    def look(self) -> None:
        """Pass on what is new, as far as can be known."""
        try:
            new, known = self._news.read(), self._known
        except _AWAY:
            return
        position = new.get("stage"), new.get("step")
        if "step" in new and position != (known.get("stage"), known.get("step")):
            self._progress(new["stage"], new["step"], new["steps"], new["loss"])
        if "committed" in new and new["committed"] != known.get("committed"):
            if self._told and self._told[-1].cancel():
                self._told.pop()
            self._told.append(self._thread.submit(self._committed, new["committed"]))
        unheard = new.get("warned", 0) - known.get("warned", 0)
        for line in new.get("warnings", [])[-unheard:] if unheard else []:
            log.warning("%s", line)
        self._known = new


def new_key(run: str) -> str:
    """A key for the next attempt of a run."""
    return f"aiaic/{run}/{secrets.token_hex(8)}"
