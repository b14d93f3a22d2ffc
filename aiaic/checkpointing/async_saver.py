"""Writes checkpoints while training continues."""

import dataclasses
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_chain,
    wait_fixed,
)
from torch import Tensor

from aiaic.checkpointing import store
from aiaic.checkpointing.checkpoint import Record, Snapshot
from aiaic.checkpointing.store import Losses, Store
from aiaic.checkpointing.timings import Timings

log = logging.getLogger(__name__)

_PAUSES_S = (1.0, 5.0, 20.0, 60.0, 120.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Commit:
    """A checkpoint that has just been stored."""

    place: str
    """Where it is: a path or URI."""
    record: Record
    """As stored, except that the checksums of its ``files`` may be missing."""
    timings: Timings | None
    """None if unknown."""


OnCommit = Callable[[Commit], None]
"""Called with each new checkpoint, in a separate thread."""


class StagedTensors:
    """A copy of tensors, made on their device now and moved off it when it is needed.

    A copy on the device takes a millisecond where one to the host would take a hundred. The copy to
    the host runs on its own CUDA stream, beside the steps that follow.

    Args:
        tensors: by name.
        spare: copies of the same tensors on the CPU that are free for reuse; this copy joins them
            when it is garbage collected. Writing to new pages takes five times as long as writing
            to used ones, so a CPU keeps as many copies as are needed at once: two, while one is
            still being written.
    """

    def __init__(self, tensors: Mapping[str, Tensor], spare: list[dict[str, Tensor]]) -> None:
        if spare:
            self._copies = spare.pop()
            assert self._copies.keys() == tensors.keys()
            for name, tensor in tensors.items():
                self._copies[name].copy_(tensor.detach())
        else:
            self._copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        if not self._on_gpu():  # there the allocator keeps the memory
            weakref.finalize(self, spare.append, self._copies).atexit = False
        self._copied = torch.cuda.Event() if self._on_gpu() else None
        if self._copied is not None:
            self._copied.record()

    def tensors(self) -> dict[str, Tensor]:
        """The copies on the CPU, valid while this object lives; may be called in another thread."""
        if self._copied is None:
            return dict(self._copies)
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda.current_stream().wait_event(self._copied)
            return {name: copy.cpu() for name, copy in self._copies.items()}

    def _on_gpu(self) -> bool:
        return any(copy.is_cuda for copy in self._copies.values())


class Saver:
    """Commits checkpoints to a store in its own thread, one after the other.

    A temporary storage failure does not end a run: a checkpoint that cannot be stored is logged,
    and the next one replaces it. Only the last one has to succeed, see :meth:`flush`.

    Args:
        store: where checkpoints go.
        keep: how many of the newest to keep, beside the best.
        on_commit: called with each new checkpoint, in a second thread: only :meth:`flush` waits
            for it.
    """

    def __init__(self, store: Store, keep: int, on_commit: OnCommit | None = None) -> None:
        self._store, self._keep, self._on_commit = store, keep, on_commit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._callbacks = ThreadPoolExecutor(1, thread_name_prefix="on-commit")
        self._called: list[Future[None]] = []
        self._last: tuple[Snapshot, Future[None]] | None = None
        self._losses: Losses = {}

    def save(self, snapshot: Snapshot) -> None:
        """Commit a checkpoint soon; waits for the previous one if that is still being written.

        Raises:
            OSError: the previous one could not be stored, and retrying will not help.
        """
        try:
            self._wait()
        except OSError as error:
            if not self._store.may_pass(error):
                raise
            log.warning("a checkpoint could not be stored, training continues: %s", error)
        self._submit(snapshot)

    def flush(self, *, retry: bool = True) -> None:
        """Wait until the last checkpoint is committed and ``on_commit`` has returned.

        Args:
            retry: retry for some minutes where storage fails.

        Raises:
            OSError: it could not be stored.
            Exception: the first exception that ``on_commit`` raised, for whichever checkpoint.
        """
        try:
            self._wait_patiently(_PAUSES_S if retry else ())
        finally:
            self._drain()
        for called in self._called:
            called.result()

    def _drain(self) -> None:
        """Wait for running work, so that ``on_commit`` is never called after a failure either."""
        if self._last is not None:
            wait([self._last[1]])
        wait(self._called)

    def _wait_patiently(self, pauses_s: Sequence[float]) -> None:
        """Wait until the last checkpoint is committed; try again after each pause."""
        retrying = Retrying(
            retry=retry_if_exception(self._may_pass),
            wait=wait_chain(*map(wait_fixed, pauses_s or [0.0])),
            stop=stop_after_attempt(len(pauses_s) + 1),
            before_sleep=_log_retry,
            reraise=True,
        )
        for attempt in retrying:
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    assert self._last is not None  # it has just failed
                    self._submit(self._last[0])
                self._wait()

    def _may_pass(self, error: BaseException) -> bool:
        return isinstance(error, OSError) and self._store.may_pass(error)

    def _submit(self, snapshot: Snapshot) -> None:
        self._last = snapshot, self._thread.submit(self._commit, snapshot)

    def _wait(self) -> None:
        if self._last is not None:
            self._last[1].result()
            self._last = None  # and with it, on a GPU, the copies of all weights

    def _commit(self, snapshot: Snapshot) -> None:
        record = snapshot.record
        self._store.publish(snapshot.name, snapshot.write)
        self._losses[snapshot.name] = store.validation_loss(record)
        if self._on_commit is not None:
            place = self._store.place(snapshot.name)
            commit = Commit(place=place, record=record, timings=snapshot.timings)
            self._called = [c for c in self._called if not c.done() or c.exception()]
            self._called.append(self._callbacks.submit(self._on_commit, commit))
        try:
            store.prune(self._store, self._keep, self._losses)
        except OSError as error:
            log.warning("old checkpoints could not be deleted, the next one tries again: %s", error)


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    log.warning("retrying to store the last checkpoint in %g s: %s", state.upcoming_sleep, error)
