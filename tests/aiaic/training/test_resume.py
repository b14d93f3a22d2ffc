"""What a stage may start from, and with which settings it may resume."""

import dataclasses

import pytest
import torch

from aiaic import config
from aiaic.checkpointing import checkpoint
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples
from tests.aiaic.training.tiny_training import train


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


def test_stage_3_may_start_from_scratch_if_its_recipe_says_so(stages, tmp_path):
    """Then it takes no checkpoint, and measures the sounds that stage 2 would have measured."""
    scratch = config.override(TINY, {"stage3.from_scratch": True, "stage3.steps": 2})
    folder = train(tmp_path / "stage3", 3, None, recipe=scratch)
    record = checkpoint.read_record(folder)
    assert (record.stage, record.init) == (3, None)
    assert checkpoint.read_model(folder)["audio.log_mel.measured"]
    with pytest.raises(ValueError, match="starts from scratch"):
        train(tmp_path / "other", 3, stages[2], recipe=scratch)


def test_the_sounds_statistics_are_found_once_and_kept(stages):
    """By stage 2; stage 1 uses no sound, and stage 3 keeps what it finds."""
    models = {number: checkpoint.read_model(folder) for number, folder in stages.items()}
    assert not models[1]["audio.log_mel.measured"]
    assert models[2]["audio.log_mel.measured"]
    assert models[2]["audio.log_mel.mean_db"].std() > 1
    assert torch.equal(*(models[n]["audio.log_mel.mean_db"] for n in (2, 3)))


def test_stage_2_needs_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="a checkpoint of stage 1: pass one by --init"):
        train(tmp_path, 2)


def test_another_architecture_is_refused_by_name(stages, tmp_path):
    wider = config.override(TINY, {"model.backbone.width": 12})
    with pytest.raises(ValueError, match=r"model\.backbone\.width is 8 there and 12"):
        train(tmp_path, 2, stages[1], recipe=wider)


def test_sound_of_another_rate_is_refused_by_name_where_it_is_used(tmp_path):
    other = config.override(TINY, {"model.audio.sample_rate_hz": 8000, "stage1.steps": 1})
    train(tmp_path, 1, recipe=other)
    with_sound = config.override(other, {"stage3.from_scratch": True})
    with pytest.raises(ValueError, match=r"16000 Hz.*model\.audio\.sample_rate_hz is 8000"):
        train(tmp_path, 3, recipe=with_sound)


def test_searched_settings_are_no_architecture(stages, tmp_path):
    searched = config.override(
        TINY, {"model.guidance.tau": 0.5, "model.guidance.bias": 0.0, "stage2.steps": 1}
    )
    train(tmp_path, 2, stages[1], recipe=searched)


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"stage1.learning_rate": 0.5}, r"stage1\.learning_rate"), ({}, "manifest")],
)
def test_a_run_with_different_settings_is_not_resumed(stages, changes, named):
    samples = tiny_samples(32, validation=8)
    if not changes:
        samples = dataclasses.replace(samples, manifest_digest="1" * 64)
    with pytest.raises(ValueError, match=f"started with different settings: .*{named}.*is now"):
        train(stages[1].parent, 1, recipe=config.override(TINY, changes), samples=samples)


def test_another_precision_is_refused_by_name(tmp_path):
    train(tmp_path, 1, recipe=config.override(TINY, {"stage1.steps": 1}))
    other = config.override(TINY, {"stage1.steps": 1, "training.precision": "bf16"})
    with pytest.raises(
        ValueError, match=r"started in fp32, and would be bf16.*training\.precision=fp32"
    ):
        train(tmp_path, 1, recipe=other)
