import dataclasses
import itertools

import pytest
import torch

from aiaic.loading.loader import Loader
from aiaic.loading.prefetch import prefetch_to_device
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples

CPU = torch.device("cpu")


def batches(samples, **changes):
    loader = Loader(read=samples.read, view=TINY.view, audio=TINY.model.audio, **changes)
    return loader.training(samples.train, TINY.sampling, 0, 1, 0)


def assert_equal(one, other):
    assert one.keys == other.keys
    assert one.ledger == other.ledger
    for field in dataclasses.fields(one):
        value = getattr(one, field.name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.cpu(), getattr(other, field.name).cpu()), field.name


def compare(device, count=12, **changes):
    samples = tiny_samples(16)
    moved = prefetch_to_device(batches(samples, **changes), device)
    plain = batches(samples)
    for one, other in itertools.islice(zip(moved, plain, strict=True), count):
        assert one.draws.device.type == device.type
        assert_equal(one, other)
    moved.close()
    plain.close()


def test_batches_pass_on_cpus():
    compare(CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pinned", [True, False])
def test_batches_arrive_whole_on_gpus(pinned):
    """While kernels of the steps before still run, and their memory is used again."""
    device = torch.device("cuda")
    samples = tiny_samples(16)
    moved = prefetch_to_device(batches(samples, pinned=pinned), device)
    sums, expected = [], []
    for batch, plain in itertools.islice(zip(moved, batches(samples), strict=True), 30):
        torch.cuda._sleep(2_000_000)  # the sum below is taken long after the next copy began
        sums.append(batch.picture.long().sum())
        expected.append(int(plain.picture.long().sum()))
        del batch
    moved.close()
    assert [int(total) for total in sums] == expected
    compare(device, pinned=pinned)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_finite_run_of_batches_ends(count):
    samples = tiny_samples(24)
    loader = Loader(read=samples.read, view=TINY.view, audio=None)
    evaluated = loader.evaluation(samples.train[: 8 * count], 8)
    assert len(list(prefetch_to_device(evaluated, CPU))) == count


def test_closing_it_closes_the_loader():
    closed = []

    def endless():
        try:
            yield from batches(tiny_samples(16))
        finally:
            closed.append(True)

    moved = prefetch_to_device(endless(), CPU)
    next(moved)
    moved.close()
    assert closed == [True]
