"""Which samples at which step: pure functions of (samples, seed, epoch, streams).

An epoch's order is cut into a fixed number of streams. A global step takes the next samples of
every stream; of W workers, worker w owns the streams s with s mod W = w. So the samples of a global
step are the same for every W, and a worker reads few shards.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Range = tuple[int, int]
"""(offset, size) in bytes."""

LEDGER_MASK = (1 << 63) - 1
"""Ledgers are summed modulo 2**63: they fit a signed 64-bit integer."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SampleRef:
    """Where one sample lies; slots, because a worker holds all 200,000 of a data set."""

    key: str
    """Sample id, unique in the shard set."""
    youtube_id: str
    label: str
    shard: str
    """Name of the shard without suffix."""
    pictures: tuple[Range, ...]
    """Byte range of each picture in ``<shard>.picture.tar``."""
    sound: Range | None
    """Byte range in ``<shard>.sound.tar`` of its samples: 16 bit, mono, little endian; None where
    the clip has no usable sound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How samples are drawn."""

    seed: int = 0
    """Seed of every random draw of a run, and of the initial weights."""
    batch_size: int = 32
    """Samples of a global step, over all workers."""
    streams: int = 8
    """Number of streams an epoch is cut into; also the largest possible number of workers."""
    block_shards: int = 8
    """Shards per shuffle block: shards are shuffled, then samples within each block."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """The samples of one global step that one worker owns."""

    number: int
    """Of the global step, from 0; micro-batches of one step share it."""
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
    batch_size = check(len(samples), sampling, world_size)
    per_epoch = len(samples) // batch_size
    share = _Share.of(stream_quotas(batch_size, sampling.streams), per_epoch, rank, world_size)
    shard_of = number_shards([sample.shard for sample in samples])
    number = start
    while True:
        epoch = number // per_epoch
        order = epoch_order(shard_of, sampling.seed, epoch, sampling.block_shards)
        for within in range(number % per_epoch, per_epoch):
            places, following = share.places(within)
            yield Step(
                number=epoch * per_epoch + within,
                epoch=epoch,
                indices=order[places],
                positions=share.positions,
                partners=order[following],
                global_size=batch_size,
            )
        number = (epoch + 1) * per_epoch


def check(count: int, sampling: SamplingConfig, world_size: int, parts: int = 1) -> int:
    """The size of a global batch of ``count`` samples, where the workers can train on it.

    Raises:
        ValueError: there are no samples, more workers than streams or samples of a step, or a batch
            that cannot be cut into ``parts`` of equal size in which every worker has samples.
    """
    batch_size = min(sampling.batch_size, count)
    if batch_size == 0:
        raise ValueError("there are no samples to train on")
    if world_size > min(sampling.streams, batch_size):
        raise ValueError(
            f"{world_size} workers are more than sampling.streams = {sampling.streams} or the "
            f"batch of {batch_size}: fewer workers, or more streams and a larger batch"
        )
    quotas = stream_quotas(batch_size, sampling.streams)
    owned = [_Share.of(quotas, 1, rank, world_size).positions for rank in range(world_size)]
    if batch_size % parts or any(len(np.unique(_part(own, parts))) < parts for own in owned):
        raise ValueError(
            f"training.accumulate = {parts} cannot cut the batch (sampling.batch_size = "
            f"{sampling.batch_size}, {count} samples) into equal parts with samples for each of "
            f"{world_size} workers: choose a batch size that is a multiple, or fewer of the others"
        )
    return batch_size


def split(step: Step, parts: int) -> list[Step]:
    """One worker's step in micro-batches, for the accumulation of gradients.

    Each takes one of every ``parts`` samples that follow each other in the global batch, at place
    p // ``parts`` of its own: so a micro-batch, over all workers, is the same for any number.

    Raises:
        ValueError: the global batch is not divisible by ``parts``, or a part would be empty here.
    """
    owners = _part(step.positions, parts)
    if step.global_size % parts or len(np.unique(owners)) < parts:
        raise ValueError(
            f"training.accumulate = {parts} cannot cut a worker's {len(owners)} samples of the "
            f"batch of sampling.batch_size = {step.global_size} into equal parts with samples: "
            "choose a batch size that is a multiple, fewer parts, or fewer workers"
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
    """Which micro-batch the samples at global positions belong to.

    Dealt in turn, beginning elsewhere each time: by the sum of the turn's digits in base ``parts``,
    which does not fall into step with streams that are dealt to workers in turn as well.
    """
    if parts == 1:
        return np.zeros_like(positions)
    begin, turn = np.zeros_like(positions), positions // parts
    while turn.any():
        begin, turn = begin + turn % parts, turn // parts
    return (positions + begin) % parts


def number_shards(shards: Sequence[str]) -> NDArray[np.int64]:
    """For each sample the number of its shard among the sorted names."""
    names = {name: number for number, name in enumerate(sorted(set(shards)))}
    return np.array([names[shard] for shard in shards], np.int64)


def epoch_order(
    shard_of: NDArray[np.int64], seed: int, epoch: int, block_shards: int
) -> NDArray[np.int64]:
    """A permutation of all samples: shards shuffled, samples shuffled in blocks of shards."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    rank_of_shard = generator.permutation(int(shard_of.max()) + 1)
    blocks = rank_of_shard[shard_of] // block_shards
    shuffled = generator.permutation(len(shard_of))
    return shuffled[np.argsort(blocks[shuffled], kind="stable")]


def stream_quotas(batch_size: int, streams: int) -> NDArray[np.int64]:
    """How many samples of each step come from each stream; they differ by at most one."""
    return batch_size // streams + (np.arange(streams) < batch_size % streams).astype(np.int64)


def draws(seed: int, epoch: int, keys: Sequence[str], count: int) -> NDArray[np.float32]:
    """``count`` uniform numbers in [0, 1) for each sample in one epoch, [samples count].

    24 bits each of an extendable hash; to set up a generator for each takes four times as long.
    """
    digests = (hashlib.shake_128(f"{seed}/{epoch}/{key}".encode()) for key in keys)
    bits = np.frombuffer(b"".join(digest.digest(4 * count) for digest in digests), "<u4") >> 8
    return (bits.astype(np.float32) * np.float32(2**-24)).reshape(len(keys), count)


def ledger_entry(number: int, key: str) -> int:
    """A 63-bit hash of a sample at a global step.

    The sum of these over any set of steps, modulo 2**63, does not depend on their order or on who
    adds them up: so workers that each sum what they trained on can prove together that no sample
    was lost or seen twice, see :func:`ledger`.
    """
    digest = hashlib.blake2b(f"{number}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def ledger(samples: Sequence[SampleRef], sampling: SamplingConfig, first: int, stop: int) -> int:
    """What the ledgers of all workers must add up to over the global steps [first, stop)."""
    total = 0
    for step in itertools.islice(steps(samples, sampling, 0, 1, first), stop - first):
        total += sum(ledger_entry(step.number, samples[i].key) for i in step.indices)
    return total & LEDGER_MASK


@dataclasses.dataclass(frozen=True)
class _Share:
    """Where one worker's samples of a step lie: one row for each, so that a step costs no loop.

    A stream's part of an epoch's order begins at ``begin`` and is ``length`` long; of it every step
    takes the next ``quota``.
    """

    positions: NDArray[np.int64]
    begin: NDArray[np.int64]
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
            begin=firsts[stream] * per_epoch,
            length=quotas[stream] * per_epoch,
            quota=quotas[stream],
            offset=positions - firsts[stream],
        )

    def places(self, within: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places in an epoch's order of the samples of step ``within``, and of their partners.

        A partner is the next sample in the circle of the stream. A stream's own: so partners are
        the same for any number of workers, who read no other shards.
        """
        at = within * self.quota + self.offset
        return self.begin + at, self.begin + (at + 1) % self.length
