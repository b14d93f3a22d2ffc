"""Which samples at which step: pure functions of (samples, seed, epoch, streams).

An epoch's order is cut into a fixed number of streams. A global step takes the next samples of
every stream; of W workers, worker w owns the streams s with s mod W = w. So the samples of a global
step are the same for every W, and a worker reads few shards.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

LEDGER_MASK = (1 << 63) - 1
Range = tuple[int, int]
"""(offset, size) in bytes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleRef:
    """Where one sample lies."""

    key: str
    """Sample id, unique in the shard set."""
    youtube_id: str
    label: str
    shard: str
    """Name of the shard without suffix."""
    pictures: tuple[Range, ...]
    """Byte range of each picture in ``<shard>.picture.tar``."""
    sound: Range | None
    """Byte range in ``<shard>.sound.tar``; None where the clip has no usable sound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How samples are drawn."""

    seed: int = 0
    """Seed of every random draw of a run, and of the initial weights."""
    batch_size: int = 32
    """Samples of a global step, over all workers."""
    streams: int = 8
    """Into how many streams an epoch is cut; at most so many workers can train."""
    block_shards: int = 8
    """Samples are shuffled within blocks of so many shards (and shards among each other)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """The samples of one global step that one worker owns."""

    epoch: int
    indices: NDArray[np.int64]
    """Into the list of samples."""
    positions: NDArray[np.int64]
    """Place of each in the global batch."""
    partners: NDArray[np.int64]
    """For each another sample, whose sound may be mixed in: the next one of its stream."""
    global_size: int


def steps(
    samples: Sequence[SampleRef], sampling: SamplingConfig, rank: int, world_size: int, start: int
) -> Iterator[Step]:
    """The steps of one worker, from global step ``start`` on, without end.

    Raises:
        ValueError: there are no samples, or more workers than streams or samples of a step.
    """
    batch_size = min(sampling.batch_size, len(samples))
    if batch_size == 0:
        raise ValueError("there are no samples to train on")
    if world_size > min(sampling.streams, batch_size):
        raise ValueError(
            f"{world_size} workers are more than sampling.streams = {sampling.streams} or the "
            f"batch of {batch_size}: fewer workers, or more streams and a larger batch"
        )
    per_epoch = len(samples) // batch_size
    quotas = stream_quotas(batch_size, sampling.streams)
    shards = [sample.shard for sample in samples]
    owned = range(rank, sampling.streams, world_size)
    step = start
    while True:
        epoch = step // per_epoch
        order = epoch_order(shards, sampling.seed, epoch, sampling.block_shards)
        for within in range(step % per_epoch, per_epoch):
            taken = [stream_slice(quotas, per_epoch, stream, within) for stream in owned]
            following = [_following(quotas, per_epoch, stream, within) for stream in owned]
            yield Step(
                epoch=epoch,
                indices=np.concatenate([order[start:stop] for start, stop in taken]),
                positions=np.concatenate([_positions(quotas, stream) for stream in owned]),
                partners=order[np.concatenate(following)],
                global_size=batch_size,
            )
        step = (epoch + 1) * per_epoch


def epoch_order(
    shards: Sequence[str], seed: int, epoch: int, block_shards: int
) -> NDArray[np.int64]:
    """A permutation of all samples: shards shuffled, samples shuffled in blocks of shards."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    names, inverse = np.unique(np.asarray(shards), return_inverse=True)
    rank_of_shard = generator.permutation(len(names))
    blocks = rank_of_shard[inverse] // block_shards
    shuffled = generator.permutation(len(shards))
    return shuffled[np.argsort(blocks[shuffled], kind="stable")]


def stream_quotas(batch_size: int, streams: int) -> NDArray[np.int64]:
    """How many samples of each step come from each stream; they differ by at most one."""
    return batch_size // streams + (np.arange(streams) < batch_size % streams).astype(np.int64)


def stream_slice(
    quotas: NDArray[np.int64], per_epoch: int, stream: int, within: int
) -> tuple[int, int]:
    """The part of an epoch's order that a stream gives to step ``within`` of the epoch."""
    begin = int(quotas[:stream].sum()) * per_epoch + within * int(quotas[stream])
    return begin, begin + int(quotas[stream])


def draws(seed: int, epoch: int, key: str, count: int) -> NDArray[np.float32]:
    """Uniform numbers in [0, 1) of one sample in one epoch."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{key}".encode(), digest_size=16).digest()
    bits = np.random.Philox(key=np.frombuffer(digest, np.uint64))
    return np.random.Generator(bits).random(count, dtype=np.float32)


def _following(
    quotas: NDArray[np.int64], per_epoch: int, stream: int, within: int
) -> NDArray[np.int64]:
    """Places in an epoch's order of the samples after those of a step, in the circle of a stream.

    A stream's own: so partners are the same for any number of workers, who read no other shards.
    """
    begin, stop = stream_slice(quotas, per_epoch, stream, within)
    first, length = int(quotas[:stream].sum()) * per_epoch, int(quotas[stream]) * per_epoch
    return first + (np.arange(begin, stop) + 1 - first) % max(1, length)


def _positions(quotas: NDArray[np.int64], stream: int) -> NDArray[np.int64]:
    first = int(quotas[:stream].sum())
    return np.arange(first, first + int(quotas[stream]))
