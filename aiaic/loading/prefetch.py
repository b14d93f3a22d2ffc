"""Copies batches to the device, one step ahead of the one that is being computed."""

import contextlib
import dataclasses
from collections.abc import Generator

import torch
from torch import Tensor

from aiaic.loading.batch import Batch


def prefetch_to_device(
    batches: Generator[Batch, None, None], device: torch.device
) -> Generator[Batch, None, None]:
    """The same batches on ``device``; closing this generator closes ``batches``.

    On CUDA the next batch is copied on its own stream while the current one is computed. This
    needs batches in page-locked memory (``Loader.pinned``); otherwise the copy blocks. On other
    devices batches pass one by one.
    """
    with contextlib.closing(batches):
        if device.type == "cuda":
            yield from _prefetched(batches, device)
        else:
            for batch in batches:
                yield batch.to(device)


def _prefetched(
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
    """A batch whose copy the current stream waits for; the host does not wait."""
    stream = torch.cuda.current_stream(batch.draws.device)
    stream.wait_event(copied)
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            value.record_stream(stream)  # or the next copy could reuse its memory too early
    return batch
