import dataclasses
import itertools

import pytest
import torch

from aiaic.loading import sampler
from aiaic.loading.batch import Draw, mirrored
from aiaic.loading.batch_builder import BatchBuilder, BatchMemory
from aiaic.loading.loader import _AHEAD, Loader
from aiaic.loading.sample_reader import ViewConfig
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples


@pytest.fixture(scope="module")
def samples():
    return tiny_samples(20)


def loader(samples, **changes) -> Loader:
    return dataclasses.replace(
        Loader(read=samples.read, view=TINY.view, audio=TINY.model.audio), **changes
    )


def training(samples, count, start=0, rank=0, world_size=1, **changes):
    batches = loader(samples, **changes).training(
        samples.train, TINY.sampling, rank, world_size, start
    )
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def assert_equal(one, other):
    assert one.keys == other.keys
    for field in dataclasses.fields(one):
        value = getattr(one, field.name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(other, field.name)), field.name


def test_batches_are_the_same_each_time_and_after_a_restart(samples):
    whole = training(samples, 6)
    for one, other in zip(whole[3:], training(samples, 3, start=3, threads=5), strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("start", [0, 3, 11])
def test_what_a_restart_skips_is_not_read(samples, start):
    """A restart in a later epoch reads what any start does: the batches in flight, and no more."""
    seen = []

    def read(shard, member, offset, size):
        seen.append((shard, offset))
        return samples.read(shard, member, offset, size)

    training(samples, 1, start=start, read=read, audio=None)
    assert len(seen) <= 8 * (1 + _AHEAD)


def test_few_batches_are_in_memory_at_a_time(samples, monkeypatch):
    """However long the consumer takes."""
    started = []
    start = BatchBuilder.start
    monkeypatch.setattr(BatchBuilder, "start", lambda *of: started.append(1) or start(*of))
    batches = loader(samples).training(samples.train, TINY.sampling, 0, 1, 0)
    for taken in range(1, 8):
        next(batches)
        assert len(started) == taken + _AHEAD
    batches.close()


@pytest.mark.parametrize(
    "part", [lambda array: array[1:3], lambda array: torch.from_numpy(array).permute(1, 0)[2]]
)
def test_memory_is_reused_but_not_while_a_view_of_it_is_held(part):
    memory = BatchMemory(pinned=False)
    array = memory.allocate((4, 6), torch.int16)
    place, held = array.ctypes.data, part(array)
    (spare,) = memory._spare.values()
    del array
    assert spare == []
    assert memory.allocate((4, 6), torch.int16).ctypes.data != place
    spare.clear()
    del held
    assert [owner.ctypes.data for owner in spare] == [place]
    assert memory.allocate((4, 6), torch.int16).ctypes.data == place


def test_batches_reuse_released_memory(samples, monkeypatch):
    fresh = []
    monkeypatch.setattr(
        torch, "empty", lambda *of, real=torch.empty, **by: fresh.append(1) or real(*of, **by)
    )
    batches = loader(samples).training(samples.train, TINY.sampling, 0, 1, 0)
    for _ in range(3):
        next(batches)
    warm = len(fresh)
    for _ in range(40):
        next(batches)
    batches.close()
    # Hardly ever more: a thread may release a batch's memory a moment after filling it.
    assert 0 < warm <= len(fresh) < warm + 12


@pytest.mark.parametrize("world_size", [1, 3])
def test_ledgers_of_all_workers_prove_what_was_trained_on(samples, world_size):
    expected = sampler.ledger(samples.train, TINY.sampling, 2, 7)
    total = sum(
        batch.ledger
        for rank in range(world_size)
        for batch in training(samples, 5, start=2, rank=rank, world_size=world_size, audio=None)
    )
    assert total & sampler.LEDGER_MASK == expected
    first = training(samples, 1, start=2)[0]
    assert (total - first.ledger) & sampler.LEDGER_MASK != expected
    assert next(loader(samples).evaluation(samples.train, 8)).ledger == 0


def test_micro_batches_are_the_step_in_parts(samples):
    (whole,) = training(samples, 1)
    batches = loader(samples).training(samples.train, TINY.sampling, 0, 1, 0, parts=4)
    parts = list(itertools.islice(batches, 4))
    batches.close()
    for places, part in zip([[0, 7], [1, 4], [2, 5], [3, 6]], parts, strict=True):
        assert part.global_size == 2
        assert part.keys == tuple(whole.keys[place] for place in places)
        assert torch.equal(part.picture, whole.picture[places])
        assert torch.equal(part.waveform, whole.waveform[places])
        assert part.position.tolist() == [0, 1]
    assert sum(part.ledger for part in parts) & sampler.LEDGER_MASK == whole.ledger


def test_workers_share_the_global_batch(samples):
    (alone,) = training(samples, 1)
    parts = [training(samples, 1, rank=rank, world_size=3)[0] for rank in range(3)]
    keys = {int(p): k for part in parts for p, k in zip(part.position, part.keys, strict=True)}
    assert tuple(keys[i] for i in range(8)) == alone.keys
    rows = {k: part.picture[i] for part in parts for i, k in enumerate(part.keys)}
    assert all(torch.equal(rows[key], alone.picture[i]) for i, key in enumerate(alone.keys))


def test_another_frame_of_a_clip_is_shown_where_there_is_one(samples):
    """Of two clips, one has three pictures: those of other clips stand in for them here."""
    ranges = [sample.pictures[0] for sample in samples.train]
    several = dataclasses.replace(samples.train[0], pictures=tuple(ranges[:3]))
    chosen = [several, samples.train[3]]
    batches = loader(samples, other_frame=True).training(chosen, TINY.sampling, 0, 1, 0)
    pairs = {"same": 0, "other": 0}
    for batch in itertools.islice(batches, 12):
        flipped = batch.picture.flip(3)
        for row, key in enumerate(batch.keys):
            other = batch.other_picture[row]
            is_same = torch.equal(other, batch.picture[row]) or torch.equal(other, flipped[row])
            assert is_same == (key != several.key)
            pairs["same" if is_same else "other"] += 1
    batches.close()
    assert pairs == {"same": 12, "other": 12}
    assert training(samples, 1)[0].other_picture is None


def test_shapes_and_types(samples):
    (batch,) = training(samples, 1)
    assert batch.picture.shape == (8, 3, 32, 32)
    assert batch.picture.dtype == torch.uint8
    assert batch.waveform is not None
    assert batch.waveform.shape == (8, 8000)
    assert batch.waveform.dtype == torch.int16
    assert batch.draws.shape == (8, len(Draw))
    assert batch.global_size == 8


def test_stage_1_reads_no_byte_of_sound(samples):
    def read(shard, member, offset, size):
        assert member == "picture"
        return samples.read(shard, member, offset, size)

    (batch,) = training(samples, 1, read=read, audio=None)
    assert batch.waveform is None


def test_evaluation_shows_every_sample_once_in_order(samples):
    batches = list(loader(samples).evaluation(samples.train, 8))
    assert [len(batch) for batch in batches] == [8, 8, 4]
    keys = [key for batch in batches for key in batch.keys]
    assert keys == [ref.key for ref in samples.train]


def test_evaluation_draws_nothing(samples):
    one, other = (next(loader(samples).evaluation(samples.train, 8)) for _ in range(2))
    assert_equal(one, other)
    assert (one.draws == 0.5).all()


def test_missing_sound_is_zeros(samples):
    silent = dataclasses.replace(samples.train[0], sound=None)
    batch = next(loader(samples).evaluation((silent,), 1))
    assert not batch.has_sound
    assert batch.waveform is not None
    assert (batch.waveform == 0).all()


def test_half_of_the_pictures_are_mirrored_on_the_device(samples):
    (batch,) = training(samples, 1)
    assert mirrored(batch, flip=False) is batch
    flips = 0
    for batch in training(samples, 4):
        flipped = batch.draw(Draw.FLIP) < 0.5
        flips += int(flipped.sum())
        expected = [
            picture.flip(-1) if flip else picture
            for picture, flip in zip(batch.picture, flipped, strict=True)
        ]
        assert torch.equal(mirrored(batch, flip=True).picture, torch.stack(expected))
    assert 0 < flips < 32


def test_pictures_lie_as_they_were_decoded_and_in_order_on_cpus(samples):
    """No copy is made to transpose them; GroupNorm on CPUs is slow in this format."""
    (batch,) = training(samples, 1)
    assert batch.picture.is_contiguous(memory_format=torch.channels_last)
    moved = batch.to(torch.device("cpu"))
    assert moved.picture.is_contiguous()
    assert torch.equal(moved.picture, batch.picture)


@pytest.mark.parametrize("size_px", [24, 32, 48])
def test_pictures_of_any_size_come_out_square(samples, size_px):
    view = ViewConfig(size_px=size_px)
    (batch,) = training(samples, 1, view=view)
    assert batch.picture.shape[2:] == (size_px, size_px)


def test_a_read_that_fails_reaches_the_loop(samples):
    def read(shard, member, offset, size):
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        training(samples, 1, read=read)
