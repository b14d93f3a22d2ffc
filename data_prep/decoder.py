"""Clips are decoded in a process of its own, which a hostile file may hang or kill unharmed.

The process is killed when a clip takes too long, may take only so much memory, and goes with the
process that started it. A clip over which it dies is tried once more in a fresh one, and then
rejected. One that dies between two clips, of whatever, is replaced.
"""

import hashlib
import resource
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeAlias

from pebble import ProcessExpired, ProcessPool

from data_prep.media import read_clip, read_file
from data_prep.sample import Excerpt, MediaSettings, RejectedError, Rejection, Sample

Source: TypeAlias = bytes | Path
_AHEAD = 2  # clips that wait for the process, so that it need not wait for the next one
_ATTEMPTS = 2
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


class _LeanProcess(SpawnProcess):
    """A new process without the program's main module, which it would load for nothing.

    A forked one would be faster, and inherit the locks of the threads of whoever starts it.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 (multiprocessing's hook)
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            start: Any = vars(SpawnProcess)["_Popen"]
            return start(process_obj)
        finally:
            sys.modules["__main__"] = main


class _LeanContext(SpawnContext):
    Process = _LeanProcess


_Pending: TypeAlias = "tuple[_Excerpt, Source, Future[Decoded]] | Decoded"


class Decoder:
    """The process, started with the first clip; a context, at whose end it is gone."""

    def __init__(self, settings: MediaSettings) -> None:
        self.turn = threading.Lock()
        """Held by whoever decodes a shard: one at a time, while others read or upload."""
        self._settings = settings
        self._pool = self._new_pool()

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, and what it is at."""
        self._pool.stop()
        self._pool.join()

    def decode(self, clips: Iterable[tuple[Excerpt, Source | Rejection]]) -> Iterator[Decoded]:
        """Outcomes in the order of the clips; a rejection in place of a file is passed on."""
        waiting: deque[_Pending] = deque()
        for clip, source in clips:
            waiting.append(self._start(clip, source))
            if len(waiting) > _AHEAD:
                yield self._finish(waiting.popleft())
        while waiting:
            yield self._finish(waiting.popleft())

    def _start(self, clip: Excerpt, source: Source | Rejection) -> _Pending:
        if isinstance(source, Rejection):
            return Decoded(outcome=source)
        cap = self._settings.max_memory_bytes
        if isinstance(source, bytes) and len(source) * _COPIES > cap:
            return _decoded(self._failure(clip, MemoryError()), source)
        excerpt = _Excerpt(
            key=clip.key, event_start_s=clip.event_start_s, event_end_s=clip.event_end_s
        )
        return excerpt, source, self._submit(excerpt, source)

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=1,
            initializer=_limit_memory,
            initargs=(self._settings.max_memory_bytes,),
            context=_LeanContext(),
        )

    def _submit(self, excerpt: _Excerpt, source: Source) -> "Future[Decoded]":
        try:
            return self._schedule(excerpt, source)
        except RuntimeError:  # the process died while it had nothing to do
            self.close()
            self._pool = self._new_pool()
            return self._schedule(excerpt, source)

    def _schedule(self, excerpt: _Excerpt, source: Source) -> "Future[Decoded]":
        return self._pool.schedule(
            decode_clip,
            args=(source, excerpt, self._settings),
            timeout=self._settings.max_decode_s,
        )

    def _finish(self, pending: _Pending) -> Decoded:
        if isinstance(pending, Decoded):
            return pending
        excerpt, source, future = pending
        failures: list[Rejection] = []
        innocent = True
        while len(failures) < _ATTEMPTS:
            try:
                return future.result()
            except (TimeoutError, ProcessExpired, BrokenProcessPool, *_RAISED) as error:
                # The first time, it may have died over nothing, or over the clip before.
                if not (isinstance(error, BrokenProcessPool) and innocent):
                    failures.append(self._failure(excerpt, error))
            innocent = False
            if len(failures) < _ATTEMPTS:
                future = self._submit(excerpt, source)
        return _lost(failures[-1], source, self._settings.max_bytes)

    def _failure(self, clip: Excerpt, error: Exception) -> Rejection:
        if isinstance(error, TimeoutError):
            detail = f"decoding takes more than {self._settings.max_decode_s:g} s"
            return Rejection(key=clip.key, reason="timed_out", detail=detail)
        if isinstance(error, MemoryError):
            detail = f"needs more than {self._settings.max_memory_bytes >> 20} MiB of memory"
            return Rejection(key=clip.key, reason="too_large", detail=detail)
        detail = f"decoding ends with {type(error).__name__}: {error}"[:200]
        if isinstance(error, ProcessExpired):
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
    return _decoded(read_clip(source, clip, settings), source)


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
    status = Path("/proc/self/status").read_text(encoding="ascii")
    has_kib = int(status.partition("VmData:")[2].split()[0])
    limit = (has_kib << 10) + max_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
