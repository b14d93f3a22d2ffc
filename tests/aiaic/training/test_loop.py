"""The loop: golden curves, exact resume, finite losses, and workers that agree."""

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from aiaic import config
from aiaic.checkpointing import checkpoint
from aiaic.loading import sampler
from aiaic.training import loop
from aiaic.training.context import LocalContext
from aiaic.training.meter import NonFiniteLossError
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples
from tests.aiaic.training.store_curves import CURVES
from tests.aiaic.training.tiny_training import spec_of, train, trainer_of
from tests.aiaic.training.two_workers import gradients, worker


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_twenty_steps_follow_the_stored_curves(stages, stage):
    """To store new ones on purpose: ``python -m tests.aiaic.training.store_curves``."""
    expected = json.loads(CURVES.read_text())[str(stage)]
    curves = checkpoint.read_record(stages[stage]).curves
    assert len(curves) == len(expected) == 20
    for ours, theirs in zip(curves, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_recipe_made_in_python_is_checked_too(tmp_path):
    training = dataclasses.replace(TINY.training, threads=0)
    with pytest.raises(ValueError, match=r"training\.threads.*not 0"):
        trainer_of(tmp_path, 1, recipe=dataclasses.replace(TINY, training=training))


class KilledError(Exception):
    pass


class KilledContext(LocalContext):
    """Dies at a step, as a process would: nothing is saved on the way out."""

    def __init__(self, folder: Path, at: int) -> None:
        super().__init__(folder)
        self.at = at

    def report_progress(self, step: int, metrics: dict[str, float]) -> None:
        if step == self.at:
            raise KilledError


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_killed_run_ends_in_the_very_same_bytes(stages, stage, tmp_path):
    init = stages.get(stage - 1)
    for at in (13, 17):  # killed twice, both times after the checkpoint of step 10
        with pytest.raises(KilledError):
            loop.train(spec_of(stage, init), KilledContext(tmp_path, at))
    resumed = train(tmp_path, stage, init)
    for name in ("model.safetensors", "training.safetensors", "checkpoint.json"):
        digests = {
            hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for folder in (resumed, stages[stage])
        }
        assert len(digests) == 1, name


def test_a_non_finite_loss_names_its_step_and_batch_and_is_never_saved(tmp_path):
    recipe = config.override(TINY, {"training.report_every": 4, "training.save_every": 4})
    trainer = trainer_of(tmp_path, 1, recipe=recipe, samples=tiny_samples(8))
    with contextlib.closing(trainer.batches.training(0)) as batches:
        for step in range(4):
            batch = next(batches)
            if step == 2:
                named = batch.keys
                with torch.no_grad():
                    next(trainer.stage.model.colorizer.backbone.parameters()).fill_(torch.nan)
            loop.train_step(trainer, trainer.stage, [batch])
            trainer.step += 1
    with pytest.raises(NonFiniteLossError, match=f"step 3: the loss is nan.*{named[3]}"):
        loop.save(trainer, validate=False)
    assert not checkpoint.steps(tmp_path)


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path, monkeypatch):
    """Though the loss before it is finite: clipping turns it into weights that are not."""
    recipe = config.override(TINY, {"stage1.steps": 1})
    clip = nn.utils.clip_grad_norm_

    def overflow(parameters, *rest):
        parameters[0].grad.fill_(torch.inf)
        return clip(parameters, *rest)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", overflow)
    with pytest.raises(NonFiniteLossError, match="step 1: the gradient norm is inf"):
        train(tmp_path, 1, recipe=recipe)
    assert not checkpoint.steps(tmp_path)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_ledger_proves_that_each_sample_of_the_plan_was_trained_on_once(stages, stage):
    samples = tiny_samples(32, validation=8).train
    expected = sampler.ledger(samples, TINY.sampling, 0, 20)
    assert checkpoint.read_record(stages[stage]).ledger == expected != 0


def test_micro_batches_have_the_batchs_gradient_and_samples(tmp_path):
    """Without pairs of samples, which lie within a micro-batch."""
    unpaired = config.override(TINY, {"stage1.p_mismatch": 0.0, "stage1.steps": 1})
    found = {}
    for parts in (1, 4):
        recipe = config.override(unpaired, {"training.accumulate": parts})
        folder = tmp_path / str(parts)
        trainer = trainer_of(folder, 1, recipe=recipe, samples=tiny_samples(32))
        loop.fit(trainer)
        trainer.context.flush()
        record = checkpoint.read_record(checkpoint.steps(folder)[-1])
        found[parts] = record, [p.grad for p in trainer.state.parameters]
    (one, whole), (four, summed) = found.values()
    assert one.ledger == four.ledger
    assert one.curves[0]["loss"] == pytest.approx(four.curves[0]["loss"], rel=1e-5)
    for ours, theirs in zip(summed, whole, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_moments_come_back_in_the_layout_of_their_weights(tmp_path):
    """Fused kernels refuse another one; channels_last is that of GPUs."""

    def trainer():
        made = trainer_of(tmp_path, 1, samples=tiny_samples(8))
        made.stage.to(memory_format=torch.channels_last)
        return made, made.state

    first, state = trainer()
    with contextlib.closing(first.batches.training(0)) as batches:
        loop.train_step(first, first.stage, [next(batches)])
    first.step = 1
    loop.save(first, validate=False)
    first.context.flush()
    _, resumed = trainer()
    resumed.load(checkpoint.steps(tmp_path)[-1])
    strides = []
    for one, other in zip(state.parameters, resumed.parameters, strict=True):
        ours, theirs = resumed._optimizer.state[other], state._optimizer.state[one]
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(ours[moment], theirs[moment])
        assert ours["exp_avg"].stride() == other.stride()
        strides.append(other.is_contiguous())
    assert not all(strides)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("at", [20, 13])
def test_a_run_on_a_gpu_is_resumed_to_the_bit(tmp_path, at):
    """In fp32, which uses deterministic kernels there; stopped on request, then resumed."""
    shas = []
    for number, stop_at in enumerate((20, at)):
        folder = tmp_path / str(number)
        for last in (stop_at, 20):
            steps: list[int] = []
            context = LocalContext(
                folder,
                on_progress=lambda step, _, steps=steps: steps.append(step),
                stop=lambda steps=steps, last=last: last in steps,
            )
            loop.train(spec_of(1, device=torch.device("cuda")), context)
        shas.append(checkpoint.model_sha256(checkpoint.steps(folder)[-1]))
    assert shas[0] == shas[1]


def test_few_samples_make_small_batches_and_say_so(tmp_path, caplog):
    recipe = config.override(TINY, {"stage1.steps": 2})
    train(tmp_path, 1, recipe=recipe, samples=tiny_samples(3))
    assert "3 samples are fewer than a batch of 8" in caplog.text


@pytest.mark.parametrize("parts", [1, 4])
def test_validation_is_the_mean_over_all_its_samples(tmp_path, parts, monkeypatch):
    """In batches no larger than training's micro-batches, which fit the device."""
    recipe = config.override(TINY, {"training.accumulate": parts})
    samples = tiny_samples(8, validation=11)
    trainer = trainer_of(tmp_path, 1, recipe=recipe, samples=samples)
    sizes, validate = [], trainer.stage.validate
    monkeypatch.setattr(
        trainer.stage, "validate", lambda batch: sizes.append(len(batch)) or validate(batch)
    )
    metrics = trainer.validate()
    assert sizes == {1: [8, 3], 4: [2, 2, 2, 2, 2, 1]}[parts]
    losses = [
        trainer.stage.validate(batch).loss
        for batch in trainer.batches._loader.evaluation(samples.validation, 11)
    ]
    assert metrics["validation_loss"] == pytest.approx(float(losses[0].detach().mean()), abs=1e-6)


def test_two_workers_have_one_workers_gradients(stages, tmp_path):
    inits = {1: None, 2: stages[1], 3: stages[2]}
    mp.spawn(worker, (tmp_path, inits), nprocs=2)
    together = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for stage, init in inits.items():
        alone = gradients(tmp_path / f"alone{stage}", stage, init)
        assert alone.keys() == together[stage].keys()
        for name, expected in alone.items():
            torch.testing.assert_close(
                together[stage][name], expected, atol=1e-5, rtol=0, msg=f"stage {stage}: {name}"
            )
        assert max(g.abs().max() for g in alone.values()) > 1e-2
