"""Clips are decoded in a process of its own, which a hostile file may hang or kill unharmed.

The process is killed when a clip takes too long, may take only so much memory, and goes with the
process that started it. A clip over which it dies is tried once more in a fresh one, and then
rejected; one over which somebody else kills it is tried more often, since that is not its fault.
"""

import functools
import hashlib
import importlib
import resource
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from data_prep.media.clip import out_of_memory, read_clip_in_memory, read_file
from data_prep.media.sample import Excerpt, MediaSettings, RejectedError, Rejection, Sample
from data_prep.media.worker_process import CallTimeoutError, WorkerDiedError, WorkerProcess

ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 23),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 26),
    "OPENBLAS_NUM_THREADS": "1",
}
"""Of the process, where nothing else is set. glibc's allocator keeps what one clip has freed for
the next one: by default it returns most of it to the kernel, which clears and maps it again page by
page, a quarter of a clip's time."""

Source: TypeAlias = bytes | Path
_AHEAD = 2  # clips that wait for the process, so that it need not wait for the next one
_ATTEMPTS = 2
_KILLS = 5  # of the process by others over one clip, which are not counted as attempts
_COPIES = 2.25  # of a file's content while it is handed over
_RAISED = (MemoryError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError)
"""What a file may yet make a library raise; a program that is wrong rejects every clip so."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What became of a clip's file."""

    outcome: Sample | Rejection
    source_bytes: int = 0
    source_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class _Excerpt:
    """A clip as the process is told of it: a catalog's own would load object stores there."""

    key: str
    event_start_s: float
    event_end_s: float | None


_Pending: TypeAlias = "tuple[_Excerpt, Source] | Decoded"


class Decoder:
    """The process, started with the first clip; a context, at whose end it is gone."""

    def __init__(self, settings: MediaSettings) -> None:
        self.turn = threading.Lock()
        """Held by whoever decodes a shard: one at a time, while others read or upload."""
        self._settings = settings
        self._child: WorkerProcess | None = None
        self._over = False

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def stop(self) -> None:
        """Lets whoever decodes in another thread fail soon, and everyone who would after that."""
        self._over = True
        if (child := self._child) is not None:
            child.kill()

    def _end(self) -> None:
        """Ends the process, and what it is at."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def decode(self, clips: Iterable[tuple[Excerpt, Source | Decoded]]) -> Iterator[Decoded]:
        """Outcomes in the order of the clips; what stands in place of a file is passed on."""
        if self._child is not None and self._child.pending:
            self._end()  # whoever came before has left in the middle
        waiting: deque[_Pending] = deque()
        for clip, source in clips:
            waiting.append(self._pending(clip, source))
            self._send(waiting)
            if len(waiting) > _AHEAD:
                yield self._finish(waiting)
        while waiting:
            yield self._finish(waiting)

    def _pending(self, clip: Excerpt, source: Source | Decoded) -> _Pending:
        if isinstance(source, Decoded):
            return source
        cap = self._settings.max_memory_bytes
        if isinstance(source, bytes) and len(source) * _COPIES > cap:
            return _decoded(self._failure(clip, MemoryError()), source)
        excerpt = _Excerpt(
            key=clip.key, event_start_s=clip.event_start_s, event_end_s=clip.event_end_s
        )
        return excerpt, source

    def _send(self, waiting: Sequence[_Pending]) -> WorkerProcess:
        """Sends the last of those that wait; all of them where there is no process yet.

        Raises:
            InterruptedError: see :meth:`stop`.
        """
        self._heed_stop()
        unsent = [waiting[-1]] if self._child else waiting
        if self._child is None:
            limit = functools.partial(_limit_memory, self._settings.max_memory_bytes)
            decode = functools.partial(decode_clip, settings=self._settings)
            self._child = WorkerProcess(decode, limit, ENVIRONMENT)
            self._heed_stop()  # which may have come when there was no process to end
        for pending in unsent:
            if not isinstance(pending, Decoded):
                excerpt, source = pending
                self._child.call(source, excerpt)
        return self._child

    def _heed_stop(self) -> None:
        if self._over:
            raise InterruptedError("decoding was stopped")

    def _finish(self, waiting: "deque[_Pending]") -> Decoded:
        """The outcome of the first that waits, which waits no longer."""
        first = waiting[0]
        if isinstance(first, Decoded):
            waiting.popleft()
            return first
        failures: list[Rejection] = []
        kills = 0
        while len(failures) < _ATTEMPTS:
            child = self._child or self._send(waiting)
            try:
                decoded = child.answer(self._settings.max_decode_s)
            except (CallTimeoutError, WorkerDiedError, *_RAISED) as error:
                self._end()
                if isinstance(error, WorkerDiedError) and error.killed and kills < _KILLS:
                    kills += 1
                elif isinstance(error, WorkerDiedError) and not error.started:
                    raise OSError(f"the process that decodes does not start: {error}") from error
                else:
                    failures.append(self._failure(first[0], error))
            else:
                waiting.popleft()
                return decoded
        waiting.popleft()
        return _lost(failures[-1], first[1], self._settings.max_bytes)

    def _failure(self, clip: Excerpt, error: Exception) -> Rejection:
        if isinstance(error, CallTimeoutError):
            detail = f"decoding takes more than {self._settings.max_decode_s:g} s"
            return Rejection(key=clip.key, reason="timed_out", detail=detail)
        if isinstance(error, MemoryError):
            return out_of_memory(clip, self._settings)
        detail = f"decoding ends with {type(error).__name__}: {error}"[:200]
        if isinstance(error, WorkerDiedError):
            detail = f"decoding ends the process with code {error.exitcode}"
        return Rejection(key=clip.key, reason="crashed", detail=detail)


def decode_clip(source: Source, clip: Excerpt, settings: MediaSettings) -> Decoded:
    """Reads, hashes and decodes a clip in this very process."""
    if isinstance(source, Path):
        try:
            source = read_file(source, settings.max_bytes)
        except RejectedError as rejected:
            size = source.stat().st_size if rejected.reason == "too_large" else 0
            outcome = Rejection(key=clip.key, reason=rejected.reason, detail=rejected.detail)
            return Decoded(outcome=outcome, source_bytes=size)
    return _decoded(read_clip_in_memory(source, clip, settings), source)


def _lost(failure: Rejection, source: Source, max_bytes: int) -> Decoded:
    """What there is to tell of a clip that the process does not survive."""
    if isinstance(source, bytes):
        return _decoded(failure, source)
    try:
        return _decoded(failure, read_file(source, max_bytes))
    except (RejectedError, OSError):
        return Decoded(outcome=failure)


def _decoded(outcome: Sample | Rejection, content: bytes) -> Decoded:
    return Decoded(
        outcome=outcome,
        source_bytes=len(content),
        source_sha256=hashlib.sha256(content).hexdigest(),
    )


def _limit_memory(max_bytes: int) -> None:
    """Lets this process take ``max_bytes`` more than it has now."""
    importlib.import_module("av.subtitles.stream")  # which the first file would load otherwise
    status = Path("/proc/self/status").read_text(encoding="ascii")
    has_kib = int(status.partition("VmData:")[2].split()[0])
    limit = (has_kib << 10) + max_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
