"""Batches to the device, one step ahead of the one that is computed."""

import contextlib
import dataclasses
from collections.abc import Generator

import torch
from torch import Tensor

from aiaic.loading.batch import Batch


def ahead(
    batches: Generator[Batch, None, None], device: torch.device
) -> Generator[Batch, None, None]:
    """The same batches on ``device``; closing this closes ``batches``.

    On CUDA the next batch is copied on a stream of its own while the one before is computed: for
    that it must lie in page-locked memory (``Loader.pinned``), otherwise copying waits. Elsewhere
    batches pass one by one.
    """
    with contextlib.closing(batches):
        if device.type == "cuda":
            yield from _copied_ahead(batches, device)
        else:
            for batch in batches:
                yield batch.to(device)


def _copied_ahead(
    batches: Generator[Batch, None, None], device: torch.device
) -> Generator[Batch, None, None]:
    copies = torch.cuda.Stream(device)
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        copied = torch.cuda.Event()
        with torch.cuda.stream(copies):
            following = batch.to(device), copied
            copied.record()
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = following
    if waiting is not None:
        yield _arrived(*waiting)


def _arrived(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """A batch for the current stream, which waits for its copy; the host does not."""
    stream = torch.cuda.current_stream(batch.draws.device)
    stream.wait_event(copied)
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            value.record_stream(stream)  # or its memory would be given to the next copy too early
    return batch
