import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiaic.loading import sampler
from aiaic.loading.sampler import SampleRef, SamplingConfig


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
    workers = [
        sampler.steps(samples, sampling, rank, world_size, start) for rank in range(world_size)
    ]
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
    alone = next(sampler.steps(samples, sampling, 0, 1, 3))
    assert (alone.partners != alone.indices).all()
    for rank in range(world_size):
        part = next(sampler.steps(samples, sampling, rank, world_size, 3))
        assert part.partners.tolist() == alone.partners[part.positions].tolist()


def test_in_an_epoch_each_sample_of_a_full_stream_is_a_partner_once():
    sampling = SamplingConfig(batch_size=8, streams=4)
    steps = list(itertools.islice(sampler.steps(refs(24, 5), sampling, 0, 1, 0), 3))
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
    shards = sampler.number_shards([f"s{i % 5}" for i in range(60)])
    orders = [sampler.epoch_order(shards, s, e, 2).tolist() for s, e in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(60)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_a_worker_reads_few_shards():
    sampling = SamplingConfig(batch_size=32, streams=8, block_shards=2)
    samples = refs(640, 32)
    epoch = itertools.islice(sampler.steps(samples, sampling, 3, 8, 0), 20)
    touched = {samples[i].shard for step in epoch for i in step.indices}
    assert len(touched) <= 32 / 8 + 2


def test_draws_depend_on_seed_epoch_and_key_alone():
    base = sampler.draws(0, 0, ["a", "b"], 12)
    assert base.shape == (2, 12)
    assert ((base >= 0) & (base < 1)).all()
    assert np.array_equal(base[1:], sampler.draws(0, 0, ["b"], 12))
    first = sampler.draws(0, 0, ["a"], 12)
    for other in (sampler.draws(1, 0, ["a"], 12), sampler.draws(0, 1, ["a"], 12), base[1:]):
        assert not np.array_equal(first, other)


def test_draws_are_uniform_and_the_same_on_any_machine():
    drawn = sampler.draws(3, 5, [f"k{i}" for i in range(4000)], 8)
    assert np.abs(drawn.mean(0) - 0.5).max() < 0.02
    assert np.abs(np.histogram(drawn, 10, (0, 1))[0] / drawn.size - 0.1).max() < 0.005
    assert np.abs(np.corrcoef(drawn.T) - np.eye(8)).max() < 0.06
    golden = np.array([0.3577244281768799, 0.36113911867141724, 0.09987252950668335], np.float32)
    assert np.array_equal(sampler.draws(0, 0, ["a"], 3)[0], golden)


@pytest.mark.parametrize(("batch_size", "streams", "parts"), [(12, 5, 3), (16, 8, 4), (24, 8, 2)])
def test_micro_batches_do_not_depend_on_the_number_of_workers(batch_size, streams, parts):
    sampling = SamplingConfig(batch_size=batch_size, streams=streams)
    samples = refs(100, 7)
    alone = sampler.split(next(sampler.steps(samples, sampling, 0, 1, 9)), parts)
    indices = np.concatenate([part.indices for part in alone])
    assert sorted(indices) == sorted(next(sampler.steps(samples, sampling, 0, 1, 9)).indices)
    for world_size in range(2, streams + 1):
        try:
            sampler.check(100, sampling, world_size, parts)
        except ValueError:
            continue
        of_worker = [
            sampler.split(next(sampler.steps(samples, sampling, rank, world_size, 9)), parts)
            for rank in range(world_size)
        ]
        for number, whole in enumerate(alone):
            assert whole.global_size == batch_size // parts
            assert whole.number == 9
            joined = np.full((2, batch_size // parts), -1)
            for worker in of_worker:
                joined[0, worker[number].positions] = worker[number].indices
                joined[1, worker[number].positions] = worker[number].partners
            assert joined[0].tolist() == whole.indices.tolist()
            assert joined[1].tolist() == whole.partners.tolist()


@pytest.mark.parametrize(
    ("batch_size", "world_size", "parts"), [(8, 1, 3), (8, 8, 2), (8, 3, 4), (7, 1, 2)]
)
def test_a_batch_that_cannot_be_cut_is_refused_by_name(batch_size, world_size, parts):
    sampling = SamplingConfig(batch_size=batch_size, streams=8)
    with pytest.raises(ValueError, match=r"training\.accumulate.*sampling\.batch_size.*workers"):
        sampler.check(50, sampling, world_size, parts)
    steps = [
        next(sampler.steps(refs(50, 3), sampling, rank, world_size, 0))
        for rank in range(world_size)
    ]
    with pytest.raises(ValueError, match=r"training\.accumulate.*sampling\.batch_size.*workers"):
        [sampler.split(step, parts) for step in steps]


def test_a_world_may_shrink_and_grow_where_steps_are_cut():
    """As with the recipe for one GPU: streams and micro-batches do not fall into step."""
    sampling = SamplingConfig(batch_size=256, streams=128)
    for world_size in (*range(1, 9), 16, 32):
        assert sampler.check(1000, sampling, world_size, parts=4) == 256


def test_what_passes_the_check_can_be_cut():
    for batch_size, streams, world_size, parts in itertools.product(
        (4, 8, 12), (4, 7), (1, 2, 3, 4), (1, 2, 4)
    ):
        sampling = SamplingConfig(batch_size=batch_size, streams=streams)
        try:
            sampler.check(40, sampling, world_size, parts)
        except ValueError:
            continue
        for rank in range(world_size):
            cut = sampler.split(
                next(sampler.steps(refs(40, 3), sampling, rank, world_size, 0)), parts
            )
            assert [len(part.indices) > 0 for part in cut] == [True] * parts


def test_steps_are_numbered_over_epochs():
    numbered = sampler.steps(refs(20, 3), SamplingConfig(batch_size=8, streams=4), 1, 2, 5)
    assert [step.number for step in itertools.islice(numbered, 5)] == [5, 6, 7, 8, 9]


def test_a_ledger_adds_up_in_any_order_and_tells_steps_apart():
    samples, sampling = refs(30, 3), SamplingConfig(batch_size=8, streams=4)
    whole = sampler.ledger(samples, sampling, 0, 9)
    parts = sampler.ledger(samples, sampling, 4, 9) + sampler.ledger(samples, sampling, 0, 4)
    assert parts & sampler.LEDGER_MASK == whole
    assert sampler.ledger_entry(1, "a") != sampler.ledger_entry(2, "a")
    assert sampler.ledger(samples, sampling, 3, 3) == 0


def test_a_step_costs_no_look_at_all_samples():
    """Within an epoch, a step never makes an array of as many bytes as there are samples."""
    samples = refs(40_000, 200)
    steps = sampler.steps(samples, SamplingConfig(batch_size=256, streams=128), 1, 4, 0)
    next(steps)
    tracemalloc.start()
    try:
        for _ in range(50):
            next(steps)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(samples)


def test_too_many_workers_are_refused():
    with pytest.raises(ValueError, match=r"9 workers are more than sampling\.streams = 8"):
        next(sampler.steps(refs(50, 2), SamplingConfig(), 0, 9, 0))


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        next(sampler.steps([], SamplingConfig(), 0, 1, 0))
