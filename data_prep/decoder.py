"""Clips are decoded in a process of its own, which a hostile file may hang or kill unharmed.

The process is killed when a clip takes too long, may take only so much memory, and goes with the
process that started it. A clip over which it dies is tried once more in a fresh one, and then
rejected.
"""

import hashlib
import resource
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeAlias

from pebble import ProcessExpired, ProcessPool

from data_prep.media import read_clip
from data_prep.sample import Excerpt, MediaSettings, Rejection, Sample

Source: TypeAlias = bytes | Path
_AHEAD = 2  # clips that wait for the process, so that it need not wait for the next one
_ATTEMPTS = 2


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
        self._pool = ProcessPool(
            max_workers=1,
            initializer=_limit_memory,
            initargs=(settings.max_memory_bytes,),
            context=_LeanContext(),
        )

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
            if isinstance(source, Rejection):
                waiting.append(Decoded(outcome=source))
            else:
                excerpt = _Excerpt(
                    key=clip.key, event_start_s=clip.event_start_s, event_end_s=clip.event_end_s
                )
                waiting.append((excerpt, source, self._submit(excerpt, source)))
            if len(waiting) > _AHEAD:
                yield self._finish(waiting.popleft())
        while waiting:
            yield self._finish(waiting.popleft())

    def _submit(self, excerpt: _Excerpt, source: Source) -> "Future[Decoded]":
        return self._pool.schedule(
            decode_clip,
            args=(source, excerpt, self._settings),
            timeout=self._settings.max_decode_s,
        )

    def _finish(self, pending: _Pending) -> Decoded:
        if isinstance(pending, Decoded):
            return pending
        excerpt, source, future = pending
        failure: Rejection | None = None
        for attempt in range(_ATTEMPTS):
            try:
                return (future if attempt == 0 else self._submit(excerpt, source)).result()
            except (TimeoutError, ProcessExpired) as error:
                failure = self._failure(excerpt, error)
        assert failure is not None  # no attempt returned
        content = source if isinstance(source, bytes) else source.read_bytes()
        return _decoded(failure, content)

    def _failure(self, clip: Excerpt, error: OSError) -> Rejection:
        if isinstance(error, ProcessExpired):
            detail = f"decoding ends the process with code {error.exitcode}"
            return Rejection(key=clip.key, reason="crashed", detail=detail)
        detail = f"decoding takes more than {self._settings.max_decode_s:g} s"
        return Rejection(key=clip.key, reason="timed_out", detail=detail)


def decode_clip(source: Source, clip: Excerpt, settings: MediaSettings) -> Decoded:
    """Reads, hashes and decodes a clip in this very process."""
    if isinstance(source, Path):
        try:
            size = source.stat().st_size
            if size > settings.max_bytes:
                return Decoded(outcome=read_clip(source, clip, settings), source_bytes=size)
            source = source.read_bytes()
        except FileNotFoundError:
            return Decoded(outcome=read_clip(source, clip, settings))
    return _decoded(read_clip(source, clip, settings), source)


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
