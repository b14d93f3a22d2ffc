"""The loop: golden curves, exact resume, refusals, and workers that agree."""

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
from aiaic.training.loop import Init, Trainer
from aiaic.training.meter import NonFiniteLossError
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples
from tests.aiaic.training.two_workers import gradients, trainer_of, worker

CPU = torch.device("cpu")
CURVES = Path(__file__).with_name("curves.json")


def train(folder: Path, stage: int, init: Path | None = None, *, recipe=TINY, samples=None):
    run = LocalContext(folder)
    start = None if init is None else Init(folder=init, place=str(init))
    loop.train(
        stage=stage,
        recipe=recipe,
        samples=samples or tiny_samples(32, validation=8),
        run=run,
        init=start,
        device=CPU,
    )
    return checkpoint.steps(folder)[-1]


@pytest.fixture(scope="session")
def stages(tmp_path_factory) -> dict[int, Path]:
    """The last checkpoint of each stage, trained one after the other."""
    folder = tmp_path_factory.mktemp("run")
    last: dict[int, Path] = {}
    for stage in (1, 2, 3):
        last[stage] = train(folder / f"stage{stage}", stage, last.get(stage - 1))
    return last


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_twenty_steps_follow_the_stored_curves(stages, stage):
    """To store new ones on purpose: ``python tests/aiaic/store_curves.py``."""
    expected = json.loads(CURVES.read_text())[str(stage)]
    curves = checkpoint.read_record(stages[stage]).curves
    assert len(curves) == len(expected) == 20
    for ours, theirs in zip(curves, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


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
    start = None if init is None else Init(folder=init, place=str(init))
    for at in (13, 17):  # killed twice, both times after the checkpoint of step 10
        with pytest.raises(KilledError):
            loop.train(
                stage=stage,
                recipe=TINY,
                samples=tiny_samples(32, validation=8),
                run=KilledContext(tmp_path, at),
                init=start,
                device=CPU,
            )
    resumed = train(tmp_path, stage, init)
    for name in ("model.safetensors", "training.safetensors", "checkpoint.json"):
        digests = {
            hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for folder in (resumed, stages[stage])
        }
        assert len(digests) == 1, name


def test_stage_3_starts_from_stage_2_and_says_so(stages):
    origin = checkpoint.read_record(stages[3]).init
    assert origin is not None
    assert origin.stage == 2
    assert origin.model_sha256 == checkpoint.model_sha256(stages[2])


def test_frozen_parts_travel_through_all_stages(stages):
    weights = {stage: checkpoint.read_model(folder) for stage, folder in stages.items()}
    for name, value in weights[1].items():
        if name.startswith("scene."):
            assert torch.equal(weights[2][name], value), name
            assert torch.equal(weights[3][name], value), name
        if name.startswith("colorizer."):
            assert torch.equal(weights[2][name], value), name


@pytest.mark.parametrize(("stage", "given"), [(3, 1), (2, 2), (2, 3)])
def test_a_checkpoint_of_another_stage_is_refused(stages, tmp_path, stage, given):
    with pytest.raises(ValueError, match=f"stage {given}.*one of stage {stage - 1}"):
        train(tmp_path, stage, stages[given])


def test_stage_1_refuses_a_checkpoint(stages, tmp_path):
    with pytest.raises(ValueError, match="starts from scratch"):
        train(tmp_path, 1, stages[1])


def test_stage_3_may_begin_from_scratch_if_its_recipe_says_so(stages, tmp_path):
    """Then it takes no checkpoint, and measures the sounds that stage 2 would have measured."""
    scratch = config.override(TINY, {"stage3.from_scratch": True, "stage3.steps": 2})
    folder = train(tmp_path / "stage3", 3, None, recipe=scratch)
    record = checkpoint.read_record(folder)
    assert (record.stage, record.init) == (3, None)
    assert checkpoint.read_model(folder)["audio.log_mel.measured"]
    with pytest.raises(ValueError, match="starts from scratch"):
        train(tmp_path / "other", 3, stages[2], recipe=scratch)


def test_the_sounds_statistics_are_found_once_and_kept(stages):
    """By stage 2; stage 1 hears nothing, and stage 3 goes on with what it finds."""
    models = {number: checkpoint.read_model(folder) for number, folder in stages.items()}
    assert not models[1]["audio.log_mel.measured"]
    assert models[2]["audio.log_mel.measured"]
    assert models[2]["audio.log_mel.mean_db"].std() > 1
    assert torch.equal(*(models[n]["audio.log_mel.mean_db"] for n in (2, 3)))


def test_stage_2_wants_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="a checkpoint of stage 1"):
        train(tmp_path, 2)


def test_another_architecture_is_refused_by_name(stages, tmp_path):
    wider = config.override(TINY, {"model.backbone.width": 12})
    with pytest.raises(ValueError, match=r"model\.backbone\.width is 8 there and 12"):
        train(tmp_path, 2, stages[1], recipe=wider)


def test_sound_of_another_rate_is_refused_by_name_where_it_is_heard(tmp_path):
    other = config.override(TINY, {"model.audio.sample_rate_hz": 8000, "stage1.steps": 1})
    train(tmp_path, 1, recipe=other)
    heard = config.override(other, {"stage3.from_scratch": True})
    with pytest.raises(ValueError, match=r"16000 Hz.*model\.audio\.sample_rate_hz is 8000"):
        train(tmp_path, 3, recipe=heard)


def test_searched_settings_are_no_architecture(stages, tmp_path):
    searched = config.override(
        TINY, {"model.guidance.tau": 0.5, "model.guidance.bias": 0.0, "stage2.steps": 1}
    )
    train(tmp_path, 2, stages[1], recipe=searched)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"stage1.learning_rate": 0.5}, r"stage1\.learning_rate"), ({}, "manifest")],
)
def test_a_run_begun_otherwise_is_not_gone_on_with(stages, changes, named):
    samples = tiny_samples(32, validation=8)
    if not changes:
        samples = dataclasses.replace(samples, manifest_digest="1" * 64)
    with pytest.raises(ValueError, match=f"begun otherwise: .*{named}"):
        train(stages[1].parent, 1, recipe=config.override(TINY, changes), samples=samples)


def test_a_non_finite_loss_names_its_step_and_batch_and_is_never_saved(tmp_path):
    recipe = config.override(TINY, {"training.report_every": 4, "training.save_every": 4})
    trainer = Trainer(1, recipe, tiny_samples(8), LocalContext(tmp_path), None, CPU)
    with contextlib.closing(trainer._batches()) as batches:
        for step in range(4):
            batch = next(batches)
            if step == 2:
                named = batch.keys
                with torch.no_grad():
                    next(trainer.stage.model.colorizer.backbone.parameters()).fill_(torch.nan)
            loop.train_step(trainer, trainer.stage, [batch])
            trainer.step += 1
    with pytest.raises(NonFiniteLossError, match=f"step 3: the loss is nan.*{named[3]}"):
        trainer._save(validate=False)
    assert not checkpoint.steps(tmp_path)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_ledger_tells_that_each_sample_of_the_plan_was_trained_on_once(stages, stage):
    samples = tiny_samples(32, validation=8).train
    expected = sampler.ledger(samples, TINY.sampling, 0, 20)
    assert checkpoint.read_record(stages[stage]).ledger == expected != 0


def test_micro_batches_have_the_batchs_gradient_and_samples(tmp_path):
    """Without pairs of samples, which lie within a micro-batch."""
    settled = config.override(TINY, {"stage1.p_mismatch": 0.0, "stage1.steps": 1})
    recipes = {parts: config.override(settled, {"training.accumulate": parts}) for parts in (1, 4)}
    found = {}
    for parts, recipe in recipes.items():
        trainer = Trainer(
            1, recipe, tiny_samples(32), LocalContext(tmp_path / str(parts)), None, CPU
        )
        trainer.fit()
        trainer.run.flush()
        record = checkpoint.read_record(checkpoint.steps(tmp_path / str(parts))[-1])
        found[parts] = record, [p.grad for p in trainer.learner.parameters]
    (one, whole), (four, summed) = found.values()
    assert one.ledger == four.ledger
    assert one.curves[0]["loss"] == pytest.approx(four.curves[0]["loss"], rel=1e-5)
    for ours, theirs in zip(summed, whole, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path, monkeypatch):
    """Though the loss before it is finite: clipping turns it into weights that are not."""
    recipe = config.override(TINY, {"stage1.steps": 1})
    clip = nn.utils.clip_grad_norm_

    def overflow(parameters, *rest):
        parameters[0].grad.fill_(torch.inf)
        return clip(parameters, *rest)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", overflow)
    with pytest.raises(NonFiniteLossError, match="step 1: the norm of the gradient is inf"):
        train(tmp_path, 1, recipe=recipe)
    assert not checkpoint.steps(tmp_path)


def test_moments_come_back_in_the_layout_of_their_weights(tmp_path):
    """Fused kernels refuse another one; channels_last is that of GPUs."""

    def trainer():
        made = Trainer(1, TINY, tiny_samples(8), LocalContext(tmp_path), None, CPU)
        return made, made.learner

    first, learner = trainer()
    first.stage.to(memory_format=torch.channels_last)
    with contextlib.closing(first._batches()) as batches:
        loop.train_step(first, first.stage, [next(batches)])
    first.step = 1
    first._save(validate=False)
    first.run.flush()
    second, resumed = trainer()
    second.stage.to(memory_format=torch.channels_last)
    resumed.load(checkpoint.steps(tmp_path)[-1])
    strides = []
    for one, other in zip(learner.parameters, resumed.parameters, strict=True):
        ours, theirs = resumed._optimizer.state[other], learner._optimizer.state[one]
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(ours[moment], theirs[moment])
        assert ours["exp_avg"].stride() == other.stride()
        strides.append(other.is_contiguous())
    assert not all(strides)


def test_another_precision_is_refused_by_name(tmp_path):
    train(tmp_path, 1, recipe=config.override(TINY, {"stage1.steps": 1}))
    other = config.override(TINY, {"stage1.steps": 1, "training.precision": "bf16"})
    with pytest.raises(ValueError, match=r"begun in fp32, and is bf16.*training\.precision=fp32"):
        train(tmp_path, 1, recipe=other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("at", [20, 13])
def test_a_run_on_a_gpu_is_resumed_to_the_bit(tmp_path, at):
    """In fp32, which takes deterministic kernels there; told to leave, then given again."""
    shas = []
    for number, leave in enumerate((20, at)):
        folder = tmp_path / str(number)
        for stop in (leave, 20):
            steps: list[int] = []
            loop.train(
                stage=1,
                recipe=TINY,
                samples=tiny_samples(32, validation=8),
                run=LocalContext(
                    folder,
                    on_progress=lambda step, _, steps=steps: steps.append(step),
                    stop=lambda steps=steps, stop=stop: stop in steps,
                ),
                init=None,
                device=torch.device("cuda"),
            )
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
    trainer = Trainer(1, recipe, tiny_samples(8, validation=11), LocalContext(tmp_path), None, CPU)
    sizes, validate = [], trainer.stage.validate
    monkeypatch.setattr(
        trainer.stage, "validate", lambda batch: sizes.append(len(batch)) or validate(batch)
    )
    metrics = trainer.validate()
    assert sizes == {1: [8, 3], 4: [2, 2, 2, 2, 2, 1]}[parts]
    losses = [
        trainer.stage.validate(batch).loss
        for batch in trainer._loader().evaluation(trainer.samples.validation, 11)
    ]
    assert metrics["validation_loss"] == pytest.approx(float(losses[0].detach().mean()), abs=1e-6)


def test_two_workers_have_one_workers_gradients(stages, tmp_path):
    inits = {1: None, 2: str(stages[1]), 3: str(stages[2])}
    mp.spawn(worker, (tmp_path, inits), nprocs=2)
    together = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for stage, init in inits.items():
        alone = gradients(trainer_of(stage, init, tmp_path / f"alone{stage}"), 0, 1)
        assert alone.keys() == together[stage].keys()
        for name, expected in alone.items():
            torch.testing.assert_close(
                together[stage][name], expected, atol=1e-5, rtol=0, msg=f"stage {stage}: {name}"
            )
        assert max(g.abs().max() for g in alone.values()) > 1e-2
