"""Decodes clips in a separate process, which a hostile file may hang or kill without harm.

The process is killed if a clip takes too long, has limited memory, and exits with its parent. A
clip over which it dies is retried once in a fresh process and then rejected. If something else
killed the process, the clip is retried more often, since that is not its fault.
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

from data_prep.media.clip import out_of_memory, read_clip_in_memory
from data_prep.media.container import read_file
from data_prep.media.sample import Excerpt, MediaSettings, RejectedError, Rejection, Sample
from data_prep.media.worker_process import CallTimeoutError, WorkerDiedError, WorkerProcess

ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 23),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 26),
    "OPENBLAS_NUM_THREADS": "1",
}
"""Default environment variables of the process. They make glibc's allocator keep memory for the
next clip; otherwise it returns most of it to the kernel, which clears and maps it again page by
page: a quarter of a clip's time."""

Source: TypeAlias = bytes | Path
_AHEAD = 2  # clips queued at the process, so that it does not wait for the next one
_ATTEMPTS = 2
_KILLS = 5  # by something else during one clip; they do not count as attempts
_COPIES = 2.25  # of a file's content in memory while it is transferred
_RAISED = (MemoryError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError)
"""What a library may still raise over a file; a bug of ours would reject every clip."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """The outcome of one clip's file."""

    outcome: Sample | Rejection
    source_bytes: int = 0
    source_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class _Excerpt:
    """A clip as sent to the process: a catalog's ``Clip`` would import object stores there."""

    key: str
    event_start_s: float
    event_end_s: float | None


_Pending: TypeAlias = "tuple[_Excerpt, Source] | Decoded"


class Decoder:
    """The process: a context manager that starts it with the first clip and ends it on exit."""

    def __init__(self, settings: MediaSettings) -> None:
        self.lock = threading.Lock()
        """To hold while decoding a shard: one at a time, while others read or upload."""
        self._settings = settings
        self._child: WorkerProcess | None = None
        self._stopped = False

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
        """Makes ``decode`` fail soon where it runs in another thread, and in every later call."""
        self._stopped = True
        if (child := self._child) is not None:
            child.kill()

    def _end(self) -> None:
        """Ends the process and its current call."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def decode(self, clips: Iterable[tuple[Excerpt, Source | Decoded]]) -> Iterator[Decoded]:
        """Outcomes in the order of the clips; a ``Decoded`` given as a source is kept."""
        if self._child is not None and self._child.pending:
            self._end()  # the previous caller stopped halfway
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
        """Sends the last of the waiting clips, or all of them if there is no process yet.

        Raises:
            InterruptedError: see :meth:`stop`.
        """
        self._check_stopped()
        unsent = [waiting[-1]] if self._child else waiting
        if self._child is None:
            limit = functools.partial(_limit_memory, self._settings.max_memory_bytes)
            decode = functools.partial(decode_clip, settings=self._settings)
            self._child = WorkerProcess(decode, limit, ENVIRONMENT)
            self._check_stopped()  # it may have happened before there was a process to kill
        for pending in unsent:
            if not isinstance(pending, Decoded):
                excerpt, source = pending
                self._child.call(source, excerpt)
        return self._child

    def _check_stopped(self) -> None:
        if self._stopped:
            raise InterruptedError("decoding was stopped")

    def _finish(self, waiting: "deque[_Pending]") -> Decoded:
        """Removes the first waiting clip and returns its outcome."""
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
                    raise OSError(f"the decoding process does not start: {error}") from error
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
    """Reads, hashes and decodes a clip in the current process."""
    if isinstance(source, Path):
        try:
            source = read_file(source, settings.max_bytes)
        except RejectedError as rejected:
            size = source.stat().st_size if rejected.reason == "too_large" else 0
            outcome = Rejection(key=clip.key, reason=rejected.reason, detail=rejected.detail)
            return Decoded(outcome=outcome, source_bytes=size)
    return _decoded(read_clip_in_memory(source, clip, settings), source)


def _lost(failure: Rejection, source: Source, max_bytes: int) -> Decoded:
    """The failure of a clip that ended the process, with its file's size and hash if readable."""
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
    """Limits this process to ``max_bytes`` more memory than it has now."""
    importlib.import_module("av.subtitles.stream")  # otherwise loaded with the first file
    status = Path("/proc/self/status").read_text(encoding="ascii")
    has_kib = int(status.partition("VmData:")[2].split()[0])
    limit = (has_kib << 10) + max_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
