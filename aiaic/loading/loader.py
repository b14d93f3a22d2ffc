"""Follows the sampling plan, and reads a few batches ahead of the one in use."""

import collections
import dataclasses
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from aiaic.loading import sampler
from aiaic.loading.batch import Batch
from aiaic.loading.batch_builder import BatchBuilder, PendingBatch
from aiaic.loading.sample_reader import Read, SampleReader
from aiaic.loading.sampler import SampleRef, SamplingConfig, Step

_AHEAD = 4  # batches that are read while one is in use, and so are in memory beside it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of a training run, and how to read them."""

    train: tuple[SampleRef, ...]
    validation: tuple[SampleRef, ...]
    """Samples held out from the split to select the best checkpoint; never used in evaluation."""
    read: Read
    sample_rate_hz: int
    """Of their sounds."""
    manifest_digest: str
    """SHA-256 of the shards' manifest."""
    split: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loader(SampleReader):
    """Turns samples into batches, in threads."""

    threads: int = 2
    """Threads that read and decode."""
    pinned: bool = False
    """Whether batches are in page-locked memory, which a GPU copies from while computing."""

    def training(
        self,
        samples: Sequence[SampleRef],
        sampling: SamplingConfig,
        rank: int,
        world_size: int,
        start: int,
        parts: int = 1,
    ) -> Generator[Batch, None, None]:
        """One worker's batches from global step ``start`` on, without end.

        A step comes as ``parts`` micro-batches in order, see :func:`aiaic.loading.sampler.split`.
        Pictures are not mirrored yet: see :func:`aiaic.loading.batch.mirrored`.

        Raises:
            ValueError: too many workers or parts for the samples; a sample cannot be decoded.
            OSError: a sample cannot be read.
        """
        steps = sampler.steps(samples, sampling, rank, world_size, start)
        micro_steps = (part for step in steps for part in sampler.split(step, parts))
        return self._follow(micro_steps, samples, sampling.seed)

    def evaluation(
        self, samples: Sequence[SampleRef], batch_size: int
    ) -> Generator[Batch, None, None]:
        """All samples once, in order, as :meth:`evaluated` shows them, without random draws.

        Raises: as :meth:`training`.
        """
        starts = range(0, len(samples), batch_size)
        indices = (np.arange(i, min(i + batch_size, len(samples))) for i in starts)
        steps = (
            Step(
                number=0,
                epoch=0,
                indices=part,
                positions=np.arange(len(part)),
                partners=part,
                global_size=len(part),
            )
            for part in indices
        )
        return self._follow(steps, samples, None)

    def _follow(
        self, steps: Iterable[Step], samples: Sequence[SampleRef], seed: int | None
    ) -> Generator[Batch, None, None]:
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            builder = BatchBuilder(self, pool, pinned=self.pinned)
            ahead: collections.deque[PendingBatch] = collections.deque()
            try:
                for step in steps:
                    if len(ahead) < _AHEAD:
                        ahead.append(builder.start(step, samples, seed))
                        continue
                    batch = ahead.popleft().result()
                    ahead.append(builder.start(step, samples, seed))
                    yield batch
                    del batch  # or its memory could not be reused while the next one is awaited
                while ahead:
                    yield ahead.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
