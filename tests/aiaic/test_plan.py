import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiaic import plan
from aiaic.plan import SampleRef, SamplingConfig


def refs(count: int, shards: int) -> list[SampleRef]:
    return [
        SampleRef(
            key=f"{i}",
            youtube_id=f"v{i}",
            label="",
            shard=f"s{i % shards}",
            pictures=(),
            sound=None,
        )
        for i in range(count)
    ]


def global_steps(samples, sampling, world_size, count, start=0):
    """Per step the samples in the order of the global batch, joined over workers."""
    workers = [plan.steps(samples, sampling, rank, world_size, start) for rank in range(world_size)]
    joined = []
    for parts in itertools.islice(zip(*workers, strict=True), count):
        batch = np.full(parts[0].global_size, -1)
        for part in parts:
            assert (batch[part.positions] == -1).all(), "two workers own one position"
            batch[part.positions] = part.indices
        joined.append(batch.tolist())
    return joined


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_partners_are_other_samples_and_do_not_depend_on_the_number_of_workers(world_size):
    sampling = SamplingConfig(batch_size=13, streams=8)
    samples = refs(100, 7)
    alone = next(plan.steps(samples, sampling, 0, 1, 3))
    assert (alone.partners != alone.indices).all()
    for rank in range(world_size):
        part = next(plan.steps(samples, sampling, rank, world_size, 3))
        assert part.partners.tolist() == alone.partners[part.positions].tolist()


def test_in_an_epoch_each_sample_of_a_full_stream_is_a_partner_once():
    sampling = SamplingConfig(batch_size=8, streams=4)
    steps = list(itertools.islice(plan.steps(refs(24, 5), sampling, 0, 1, 0), 3))
    partners = np.concatenate([step.partners for step in steps])
    assert sorted(partners) == sorted(np.concatenate([step.indices for step in steps]))


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 90),
    shards=st.integers(1, 12),
    batch_size=st.integers(1, 24),
    streams=st.integers(1, 12),
    block_shards=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)
def test_an_epoch_shows_each_sample_at_most_once(
    count, shards, batch_size, streams, block_shards, seed
):
    sampling = SamplingConfig(
        seed=seed, batch_size=batch_size, streams=streams, block_shards=block_shards
    )
    samples = refs(count, shards)
    size = min(batch_size, count)
    per_epoch = count // size
    seen = [i for step in global_steps(samples, sampling, 1, per_epoch) for i in step]
    assert len(seen) == len(set(seen)) == per_epoch * size
    assert set(seen) <= set(range(count))


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
@pytest.mark.parametrize("batch_size", [8, 13, 32])
def test_steps_do_not_depend_on_the_number_of_workers(world_size, batch_size):
    sampling = SamplingConfig(batch_size=batch_size, streams=8)
    samples = refs(100, 7)
    alone = global_steps(samples, sampling, 1, 25)
    assert global_steps(samples, sampling, world_size, 25) == alone


@pytest.mark.parametrize("start", [1, 5, 6, 7, 20])
def test_a_restart_goes_on_where_it_was(start):
    sampling = SamplingConfig(batch_size=8, streams=4)
    samples = refs(50, 5)
    whole = global_steps(samples, sampling, 2, 24)
    assert global_steps(samples, sampling, 2, 24 - start, start) == whole[start:]


def test_epochs_and_seeds_differ():
    shards = [f"s{i % 5}" for i in range(60)]
    orders = [plan.epoch_order(shards, s, e, 2).tolist() for s, e in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(60)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_a_stream_reads_few_shards():
    shards = [f"s{i % 32:02d}" for i in range(640)]
    order = plan.epoch_order(shards, 0, 0, 2)
    quotas = plan.stream_quotas(32, 8)
    begin, _ = plan.stream_slice(quotas, 20, 3, 0)
    _, end = plan.stream_slice(quotas, 20, 3, 19)
    touched = {shards[i] for i in order[begin:end]}
    assert len(touched) <= 32 / 8 + 2


def test_draws_depend_on_seed_epoch_and_key():
    base = plan.draws(0, 0, "a", 12)
    assert np.array_equal(base, plan.draws(0, 0, "a", 12))
    assert ((base >= 0) & (base < 1)).all()
    for other in (plan.draws(1, 0, "a", 12), plan.draws(0, 1, "a", 12), plan.draws(0, 0, "b", 12)):
        assert not np.array_equal(base, other)


def test_too_many_workers_are_refused():
    with pytest.raises(ValueError, match=r"9 workers are more than sampling\.streams = 8"):
        next(plan.steps(refs(50, 2), SamplingConfig(), 0, 9, 0))


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        next(plan.steps([], SamplingConfig(), 0, 1, 0))
