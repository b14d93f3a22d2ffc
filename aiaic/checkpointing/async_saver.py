"""Checkpoints are written while training goes on."""

import logging
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch
from torch import Tensor

from aiaic.checkpointing import store as stores
from aiaic.checkpointing.store import Fill, Store

log = logging.getLogger(__name__)

_MISTAKES = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
"""What a person has to mend; other OSErrors may pass."""
_PAUSES_S = (1.0, 5.0, 20.0, 60.0, 120.0)


class OffDevice:
    """Tensors as they are now: copied on their device at once, and off it when they are asked for.

    A copy on the device takes a millisecond where one to the host would take a hundred. The second
    one happens on a stream of its own, beside the steps that follow.

    Args:
        tensors: by name.
        spare: copies of the same tensors, on the CPU, that nobody needs any more; these join them
            in time. To write into new pages takes five times as long as into used ones, so a CPU
            keeps as many copies as are needed at once: two, where one is still written.
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
        """The copies, on the CPU, while this lives; may be called in another thread."""
        if self._copied is None:
            return dict(self._copies)
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda.current_stream().wait_event(self._copied)
            return {name: copy.cpu() for name, copy in self._copies.items()}

    def _on_gpu(self) -> bool:
        return any(copy.is_cuda for copy in self._copies.values())


class Saver:
    """Commits checkpoints to a store in a thread of its own, one after the other.

    Storage that fails for a while costs no run: a checkpoint that cannot be stored is told, and the
    next one takes its place. Only the last one has to succeed, see :meth:`settle`.

    Args:
        store: where they go.
        keep: how many of the newest stay, beside the best.
        on_commit: called with the name of each new checkpoint, in a thread of its own: training
            waits for the last one alone.
    """

    def __init__(
        self, store: Store, keep: int, on_commit: Callable[[str], None] | None = None
    ) -> None:
        self._store, self._keep, self._on_commit = store, keep, on_commit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._news = ThreadPoolExecutor(1, thread_name_prefix="committed")
        self._told: list[Future[None]] = []
        self._last: tuple[str, Fill, Future[None]] | None = None

    def save(self, name: str, fill: Fill) -> None:
        """Commit a checkpoint soon; waits for the one before, if that is still under way.

        Raises:
            OSError: the one before could not be stored, and never will be.
        """
        try:
            self._wait()
        except _MISTAKES:
            raise
        except OSError as error:
            log.warning("a checkpoint could not be stored, training goes on: %s", error)
        self._begin(name, fill)

    def settle(self, *, patient: bool = True) -> None:
        """Wait until the last checkpoint is committed, and told of.

        Args:
            patient: try again for some minutes where storage fails.

        Raises:
            OSError: it could not be stored.
            Exception: what ``on_commit`` has raised first, now or before.
        """
        try:
            self._wait_patiently(_PAUSES_S if patient else ())
        finally:
            self._rest()
        for told in self._told:
            told.result()

    def _rest(self) -> None:
        """Wait for what is under way, so that nobody is told of anything after a failure either."""
        if self._last is not None:
            wait([self._last[2]])
        wait(self._told)

    def _wait_patiently(self, pauses_s: Sequence[float]) -> None:
        """Wait until the last checkpoint is committed; try again after each pause."""
        for pause_s in pauses_s:
            try:
                self._wait()
            except _MISTAKES:
                raise
            except OSError as error:
                log.warning("the last checkpoint is tried again in %g s: %s", pause_s, error)
                time.sleep(pause_s)
                assert self._last is not None  # it has just failed
                self._begin(*self._last[:2])
            else:
                break
        self._wait()

    def _begin(self, name: str, fill: Fill) -> None:
        self._last = name, fill, self._thread.submit(self._commit, name, fill)

    def _wait(self) -> None:
        if self._last is not None:
            self._last[2].result()
            self._last = None  # and with it, on a GPU, the copies of all weights

    def _commit(self, name: str, fill: Fill) -> None:
        self._store.publish(name, fill)
        if self._on_commit is not None:
            self._told = [told for told in self._told if not told.done() or told.exception()]
            self._told.append(self._news.submit(self._on_commit, name))
        try:
            stores.prune(self._store, self._keep)
        except OSError as error:
            log.warning("old checkpoints could not be deleted, the next one tries again: %s", error)
