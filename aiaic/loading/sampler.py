"""The sampling plan, which samples are used at which step: pure functions, no state.

An epoch's order is cut into a fixed number of streams. A global step takes the next samples of
every stream; of W workers, worker w owns the streams s with s mod W = w. So the samples of a global
step are the same for every W, and each worker reads few shards.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from aiaic.config import AtLeast1, Seed

Range = tuple[int, int]
"""(offset, size) in bytes."""

LEDGER_MASK = (1 << 63) - 1
"""Ledgers are summed modulo 2**63, to fit a signed 64-bit integer."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SampleRef:
    """Where one sample is stored; with slots, as each worker holds all 200,000 of a data set."""

    key: str
    """Sample id, unique in the shard set."""
    youtube_id: str
    label: str
    shard: str
    """Name of the shard without suffix."""
    pictures: tuple[Range, ...]
    """Byte range of each picture in ``<shard>.picture.tar``."""
    sound: Range | None
    """Byte range of its 16-bit mono samples (little endian) in ``<shard>.sound.tar``; None if the
    clip has no usable sound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How samples are drawn."""

    seed: Seed = 0
    """Seed of every random draw of a run, and of the initial weights."""
    batch_size: AtLeast1 = 32
    """Samples of a global step, over all workers."""
    streams: AtLeast1 = 8
    """Number of streams an epoch is cut into; also the largest possible number of workers."""
    block_shards: AtLeast1 = 8
    """Shards per shuffle block: shards are shuffled, then samples within each block."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One worker's samples of a global step."""

    number: int
    """Number of the global step, from 0; shared by its micro-batches."""
    epoch: int
    indices: NDArray[np.int64]
    """Indices into the list of samples."""
    positions: NDArray[np.int64]
    """Position of each in the global batch."""
    partners: NDArray[np.int64]
    """For each, another sample whose sound may be mixed in: the next one of its stream."""
    global_size: int
    """Samples of the global (micro-)batch, over all workers."""


def steps(
    samples: Sequence[SampleRef], sampling: SamplingConfig, rank: int, world_size: int, start: int
) -> Iterator[Step]:
    """One worker's steps from global step ``start`` on, without end.

    Raises:
        ValueError: there are no samples, or more workers than streams or samples of a step.
    """
    batch_size = check(len(samples), sampling, world_size)
    per_epoch = len(samples) // batch_size
    share = _Share.of(stream_quotas(batch_size, sampling.streams), per_epoch, rank, world_size)
    shard_of = number_shards([sample.shard for sample in samples])
    number = start
    while True:
        epoch = number // per_epoch
        order = epoch_order(shard_of, sampling.seed, epoch, sampling.block_shards)
        for within in range(number % per_epoch, per_epoch):
            places, partners = share.places(within)
            yield Step(
                number=epoch * per_epoch + within,
                epoch=epoch,
                indices=order[places],
                positions=share.positions,
                partners=order[partners],
                global_size=batch_size,
            )
        number = (epoch + 1) * per_epoch


def check(count: int, sampling: SamplingConfig, world_size: int, parts: int = 1) -> int:
    """The size of a global batch, after checking that the workers can train on it.

    Args:
        count: samples in all.
        sampling: batch size and streams.
        world_size: number of workers.
        parts: micro-batches of a step.

    Raises:
        ValueError: there are no samples, more workers than streams or samples of a step, or the
            batch cannot be split into equal ``parts`` in each of which every worker has samples.
    """
    batch_size = min(sampling.batch_size, count)
    if batch_size == 0:
        raise ValueError("there are no samples to train on")
    if world_size > min(sampling.streams, batch_size):
        raise ValueError(
            f"{world_size} workers are more than sampling.streams = {sampling.streams} or the "
            f"batch of {batch_size}: use fewer workers, or raise streams and batch size"
        )
    quotas = stream_quotas(batch_size, sampling.streams)
    owned = [_Share.of(quotas, 1, rank, world_size).positions for rank in range(world_size)]
    if batch_size % parts or any(len(np.unique(_part(own, parts))) < parts for own in owned):
        raise ValueError(
            f"training.accumulate = {parts} cannot split the batch (sampling.batch_size = "
            f"{sampling.batch_size}, {count} samples) into equal parts with samples for each of "
            f"{world_size} workers: use a batch size that is a multiple, fewer parts, or fewer "
            "workers"
        )
    return batch_size


def split(step: Step, parts: int) -> list[Step]:
    """Split one worker's step into micro-batches, for gradient accumulation.

    Each micro-batch takes one of every ``parts`` consecutive samples of the global batch: the one
    at position p becomes number p // ``parts``. So the global micro-batch is the same for any
    number of workers.

    Raises:
        ValueError: the global batch is not divisible by ``parts``, or this worker would have no
            samples in some part.
    """
    owners = _part(step.positions, parts)
    if step.global_size % parts or len(np.unique(owners)) < parts:
        raise ValueError(
            f"training.accumulate = {parts} cannot split a worker's {len(owners)} samples of the "
            f"batch (sampling.batch_size = {step.global_size}) into equal parts with samples: "
            "use a batch size that is a multiple, fewer parts, or fewer workers"
        )
    return [
        dataclasses.replace(
            step,
            indices=step.indices[chosen],
            positions=step.positions[chosen] // parts,
            partners=step.partners[chosen],
            global_size=step.global_size // parts,
        )
        for chosen in (owners == part for part in range(parts))
    ]


def _part(positions: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """Which micro-batch each global position belongs to.

    Dealt round-robin, each round starting at another micro-batch: at the sum of the round's digits
    in base ``parts``, which does not synchronize with the round-robin of streams over workers.
    """
    if parts == 1:
        return np.zeros_like(positions)
    start, rounds = np.zeros_like(positions), positions // parts
    while rounds.any():
        start, rounds = start + rounds % parts, rounds // parts
    return (positions + start) % parts


def number_shards(shards: Sequence[str]) -> NDArray[np.int64]:
    """For each sample, the number of its shard in the order of names."""
    names = {name: number for number, name in enumerate(sorted(set(shards)))}
    return np.array([names[shard] for shard in shards], np.int64)


def epoch_order(
    shard_of: NDArray[np.int64], seed: int, epoch: int, block_shards: int
) -> NDArray[np.int64]:
    """A permutation of all samples: shards are shuffled, then samples within blocks of shards."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    rank_of_shard = generator.permutation(int(shard_of.max()) + 1)
    blocks = rank_of_shard[shard_of] // block_shards
    shuffled = generator.permutation(len(shard_of))
    return shuffled[np.argsort(blocks[shuffled], kind="stable")]


def stream_quotas(batch_size: int, streams: int) -> NDArray[np.int64]:
    """Samples per step from each stream; these numbers differ by at most one."""
    return batch_size // streams + (np.arange(streams) < batch_size % streams).astype(np.int64)


def draws(seed: int, epoch: int, keys: Sequence[str], count: int) -> NDArray[np.float32]:
    """``count`` uniform numbers in [0, 1) for each sample in one epoch, [samples count].

    24 bits each of an extendable-output hash, which is four times as fast as a generator for each.
    """
    digests = (hashlib.shake_128(f"{seed}/{epoch}/{key}".encode()) for key in keys)
    bits = np.frombuffer(b"".join(digest.digest(4 * count) for digest in digests), "<u4") >> 8
    return (bits.astype(np.float32) * np.float32(2**-24)).reshape(len(keys), count)


def ledger_entry(number: int, key: str) -> int:
    """A 63-bit hash of a sample at a global step.

    Their sum over any set of steps, modulo 2**63, depends neither on the order nor on how it is
    split among workers. So workers that each sum what they trained on prove together that no sample
    was lost or seen twice, see :func:`ledger`.
    """
    digest = hashlib.blake2b(f"{number}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def ledger(samples: Sequence[SampleRef], sampling: SamplingConfig, first: int, stop: int) -> int:
    """The required sum of all workers' ledgers over the global steps [first, stop)."""
    total = 0
    for step in itertools.islice(steps(samples, sampling, 0, 1, first), stop - first):
        total += sum(ledger_entry(step.number, samples[i].key) for i in step.indices)
    return total & LEDGER_MASK


@dataclasses.dataclass(frozen=True)
class _Share:
    """One worker's share of every step, as arrays with one row per sample of a step.

    A stream's part of an epoch's order starts at ``start`` and is ``length`` long; each step takes
    the next ``quota`` of it.
    """

    positions: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    quota: NDArray[np.int64]
    offset: NDArray[np.int64]

    @classmethod
    def of(cls, quotas: NDArray[np.int64], per_epoch: int, rank: int, world_size: int) -> "_Share":
        firsts = np.cumsum(quotas) - quotas
        owned = np.arange(rank, len(quotas), world_size)
        stream = np.repeat(owned, quotas[owned])
        positions = np.flatnonzero(np.repeat(np.arange(len(quotas)), quotas) % world_size == rank)
        return cls(
            positions=positions,
            start=firsts[stream] * per_epoch,
            length=quotas[stream] * per_epoch,
            quota=quotas[stream],
            offset=positions - firsts[stream],
        )

    def places(self, within: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in an epoch's order of the samples of step ``within``, and of their partners.

        A sample's partner is the next one of its stream, cyclically: so partners are the same for
        any number of workers, and need no other shards.
        """
        at = within * self.quota + self.offset
        return self.start + at, self.start + (at + 1) % self.length
