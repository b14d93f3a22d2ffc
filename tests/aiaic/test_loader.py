import dataclasses
import itertools

import pytest
import torch
from recipes import TINY
from samples import tiny_samples

from aiaic.batch import Draw
from aiaic.loader import Loader, ViewConfig


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
    mute = dataclasses.replace(samples.train[0], sound=None)
    batch = next(loader(samples).evaluation((mute,), 1))
    assert not batch.has_sound
    assert batch.waveform is not None
    assert (batch.waveform == 0).all()


def test_flip_mirrors_half_of_the_pictures(samples):
    plain = training(samples, 4, view=ViewConfig(size_px=32, flip=False))
    for still, mirrored in zip(plain, training(samples, 4), strict=True):
        for i in range(len(still)):
            flipped = bool(still.draws[i, Draw.FLIP] < 0.5)
            expected = still.picture[i].flip(-1) if flipped else still.picture[i]
            assert torch.equal(mirrored.picture[i], expected)


@pytest.mark.parametrize("size_px", [24, 32, 48])
def test_pictures_of_any_size_come_out_square(samples, size_px):
    view = ViewConfig(size_px=size_px)
    (batch,) = training(samples, 1, view=view)
    assert batch.picture.shape[2:] == (size_px, size_px)


def test_another_sample_rate_is_refused_by_name(samples):
    audio = dataclasses.replace(TINY.model.audio, sample_rate_hz=8000)
    with pytest.raises(ValueError, match=r"16000 Hz.*8000"):
        next(loader(samples, audio=audio).evaluation(samples.train, 8))


def test_a_read_that_fails_reaches_the_loop(samples):
    def read(shard, member, offset, size):
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        training(samples, 1, read=read)
