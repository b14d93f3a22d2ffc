"""Stages made fast: workers that exchange gradients, and compiled parts."""

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from aiaic import config
from aiaic.training import acceleration
from aiaic.training.optim import adamw
from tests.aiaic.recipes import TINY
from tests.aiaic.training.two_devices import batches, gradients, stage_of, worker

ASKED = [
    *((stage, accumulate, None) for stage in (1, 2, 3) for accumulate in (1, 3)),
    (3, 3, "aot_eager"),
]


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> Path:
    """What two processes found; they check no types, which compilation would trip over."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(worker, (folder, ASKED), nprocs=2)
    return folder


def test_two_workers_have_one_workers_gradients_at_each_step(processes):
    """With micro-batches, compiled, and without: an exchange may fail to happen silently."""
    both = [torch.load(processes / f"gradients{rank}.pt", weights_only=True) for rank in (0, 1)]
    for (stage, accumulate, backend), *together in zip(ASKED, *both, strict=True):
        alone = gradients(stage, accumulate)
        assert len(alone) == 6 // accumulate
        for step, expected in enumerate(alone):
            for ours in together:
                for got, wanted in zip(ours[step], expected, strict=True):
                    torch.testing.assert_close(
                        got, wanted, atol=1e-5, rtol=0,
                        msg=f"stage {stage}, {accumulate} micro-batches, {backend}, step {step}",
                    )  # fmt: skip
        assert max(g.abs().max() for g in alone[0]) > 1e-2


def test_compiled_parts_change_no_loss_and_no_name(processes):
    for found in torch.load(processes / "compiled.pt", weights_only=True):
        ours, theirs = found["names"]
        assert ours == theirs
        assert len(found["losses"]) == 7
        for compiled, plain in found["losses"]:
            torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)


def test_nothing_is_compiled_after_the_first_step(processes):
    """Not even after a validation in between, whose batch has another size."""
    for found in torch.load(processes / "compiled.pt", weights_only=True):
        frames = found["frames"]
        assert frames[0] > 0
        assert frames == [frames[0]] * 6


def test_cpus_compile_only_if_asked(monkeypatch):
    compiled = []
    monkeypatch.setattr(acceleration, "compile_parts", compiled.append)
    stage = stage_of(3)
    for choice, expected in {"auto": [], "no": [], "yes": [stage]}.items():
        training = config.override(TINY, {"training.compile": choice}).training
        acceleration.accelerate(stage, training, torch.device("cpu"), precision="bf16")
        assert compiled == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_step_on_a_gpu_never_waits_for_it(number):
    device = torch.device("cuda")
    stage = stage_of(number).to(device)
    shares = stage.parameter_shares()
    optimizer, parameters = adamw(shares, 0.01), [p for _, p, _ in shares]
    try:
        for i, batch in enumerate([batch.to(device) for batch in batches(number)]):
            torch.cuda.set_sync_debug_mode("error" if i > 0 else "default")
            with torch.autocast("cuda", torch.bfloat16):
                loss = stage(batch).loss
            loss.mean().backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_step_draws_from_no_global_random_state(number):
    """Or a resumed run would differ; everything is drawn with the samples."""
    stage, before = stage_of(number), torch.get_rng_state()
    stage(next(batches(number))).loss.mean().backward()
    assert torch.equal(torch.get_rng_state(), before)
