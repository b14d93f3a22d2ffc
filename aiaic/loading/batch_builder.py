"""Builds batches: decoding threads write samples straight into the memory of a batch."""

import collections
import dataclasses
import hashlib
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aiaic.loading import sampler
from aiaic.loading.batch import Batch, Draw
from aiaic.loading.sample_reader import SampleReader
from aiaic.loading.sampler import SampleRef, Step

_SAMPLES_PER_JOB = 8  # enough to make a job's overhead of 30 us negligible


class BatchBuilder:
    """Starts batches in a thread pool, in memory that earlier batches have released.

    Args:
        reader: reads single samples.
        pool: decoding threads.
        pinned: whether batches are in page-locked memory, which a GPU copies from while computing.
    """

    def __init__(self, reader: SampleReader, pool: ThreadPoolExecutor, *, pinned: bool) -> None:
        self._reader, self._pool, self._pinned = reader, pool, pinned
        self._memory = BatchMemory(pinned=pinned)

    def start(self, step: Step, samples: Sequence[SampleRef], seed: int | None) -> "PendingBatch":
        """Start to read the samples of a step.

        Args:
            step: which samples.
            samples: the list that the step's indices refer to.
            seed: of the draws of training; None: evaluation, without draws.
        """
        reader, memory = self._reader, self._memory
        count, size = len(step.indices), reader.view.size_px
        with_other, audio = reader.other_frame and seed is not None, reader.audio
        batch = PendingBatch(
            step=step,
            seed=seed,
            refs=[samples[i] for i in step.indices.tolist()],
            partners=[samples[i] for i in step.partners.tolist()],
            picture=memory.allocate((count, size, size, 3), torch.uint8),
            other=memory.allocate((count, size, size, 3), torch.uint8) if with_other else None,
            waveform=memory.allocate((count, audio.samples), torch.int16) if audio else None,
            draws=memory.allocate((count, len(Draw)), torch.float32),
            pinned=self._pinned,
        )
        for first in range(0, count, _SAMPLES_PER_JOB):
            rows = range(first, min(first + _SAMPLES_PER_JOB, count))
            batch.jobs.append(self._pool.submit(batch.fill, reader, rows))
        return batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class PendingBatch:
    """A batch whose rows are being filled by jobs."""

    step: Step
    seed: int | None
    """None: evaluation, without draws."""
    refs: list[SampleRef]
    partners: list[SampleRef]
    picture: NDArray[np.uint8]
    """[b h w 3], as pictures are decoded."""
    other: NDArray[np.uint8] | None
    waveform: NDArray[np.int16] | None
    draws: NDArray[np.float32]
    pinned: bool
    jobs: list[Future[int]] = dataclasses.field(default_factory=list[Future[int]])

    def fill(self, reader: SampleReader, rows: range) -> int:
        """Decode some rows, and return their part of the ledger.

        Raises:
            ValueError: a sample cannot be decoded; it is named.
        """
        entries = self._draw(rows)
        for row in rows:
            ref, draws = self.refs[row], self.draws[row].tolist()
            try:
                self._fill_row(reader, row, draws)
            except ValueError as error:
                raise ValueError(f"sample {ref.key} of shard {ref.shard}: {error}") from error
        return entries

    def result(self) -> Batch:
        """The batch, once all its rows are filled.

        Raises:
            ValueError: a sample cannot be decoded; it is named.
            OSError: a sample cannot be read.
        """
        entries = sum(job.result() for job in self.jobs)
        pinned = self.pinned
        return Batch(
            keys=tuple(ref.key for ref in self.refs),
            video=torch.tensor([_video_hash(r.youtube_id) for r in self.refs], pin_memory=pinned),
            position=torch.tensor(self.step.positions, pin_memory=pinned),
            picture=_channels_last(self.picture),
            other_picture=None if self.other is None else _channels_last(self.other),
            waveform=None if self.waveform is None else torch.from_numpy(self.waveform),
            has_sound=torch.tensor([r.sound is not None for r in self.refs], pin_memory=pinned),
            draws=torch.from_numpy(self.draws),
            global_size=self.step.global_size,
            ledger=entries & sampler.LEDGER_MASK,
        )

    def _draw(self, rows: range) -> int:
        if self.seed is None:
            self.draws[rows.start : rows.stop] = 0.5
            return 0
        keys = [self.refs[row].key for row in rows]
        drawn = sampler.draws(self.seed, self.step.epoch, keys, len(Draw))
        self.draws[rows.start : rows.stop] = drawn
        return sum(sampler.ledger_entry(self.step.number, key) for key in keys)

    def _fill_row(self, reader: SampleReader, row: int, draws: list[float]) -> None:
        """Only the rows of the crop are copied out of a decoded picture."""
        ref, training = self.refs[row], self.seed is not None
        self.picture[row] = reader.picture(ref, draws, training=training)
        if self.other is not None:
            self.other[row] = reader.other_picture(ref, draws)
        if self.waveform is not None:
            partner = self.partners[row]
            self.waveform[row] = reader.waveform(ref, partner, draws, training=training)


class BatchMemory:
    """Memory of batches, reused once no view of it is left.

    The system clears and maps new pages at their first touch, one thread at a time, so threads that
    decode into new pages block each other. Page-locked memory is left to PyTorch's allocator, which
    knows what a GPU is still reading.
    """

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        self._spare: collections.defaultdict[Any, list[NDArray[Any]]] = collections.defaultdict(
            list
        )

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> NDArray[Any]:
        """An uninitialized array."""
        if self._pinned:
            return torch.empty(shape, dtype=dtype, pin_memory=True).numpy()
        spare = self._spare[shape, dtype]
        array = spare.pop() if spare else torch.empty(shape, dtype=dtype).numpy()
        # Views of ``lent`` keep it alive; views of ``array.view()`` would only keep ``array``.
        lent = np.asarray(memoryview(cast("Any", array)))
        weakref.finalize(lent, spare.append, array).atexit = False
        return lent


def _channels_last(pictures: NDArray[np.uint8]) -> Tensor:
    """The same memory as [b 3 h w]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def _video_hash(youtube_id: str) -> int:
    """A 63-bit hash of a video id."""
    digest = hashlib.blake2b(youtube_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
