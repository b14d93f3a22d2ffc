import dataclasses

import numpy as np
import pytest
import torch

from aiaic import config
from aiaic.loading.augmentation import AugmentationConfig, mask_spectrogram, mix
from aiaic.loading.batch import Draw
from aiaic.loading.loader import Loader
from aiaic.networks.model import build_model
from aiaic.training import build_stage
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples

NOISE = np.random.default_rng(0).normal(0, 3000, (2, 8000)).astype(np.int16)


def level(sound):
    return np.sqrt(np.mean(np.square(sound.astype(np.float64))))


@pytest.mark.parametrize("snr_db", [0, 6, 20])
def test_a_sound_is_mixed_in_at_the_level_that_is_asked_for(snr_db):
    own, other = NOISE
    added = mix(own, (other // 7).astype(np.int16), float(snr_db)).astype(np.float64) - own
    assert 20 * np.log10(level(own) / level(added)) == pytest.approx(snr_db, abs=0.2)


def test_a_loud_mix_is_clipped_and_silence_changes_nothing():
    loud = np.full(100, 30_000, np.int16)
    assert mix(loud, loud, 0.0).max() == 32_767
    silence = np.zeros_like(loud)
    assert (mix(loud, silence, 0.0) == loud).all()
    assert (mix(silence, loud, 0.0) == silence).all()


def masked(augmentation, draws=(0.999, 0.5)):
    width, place = (torch.tensor([draw, 0.0]) for draw in draws)
    log_mel = torch.ones(2, 1, 20, 40)
    spans = {"time": (width, place), "mel": (width, place)}
    return mask_spectrogram(log_mel, augmentation=augmentation, **spans)


def test_masks_are_as_wide_as_drawn_and_leave_other_samples_alone():
    log_mel = masked(AugmentationConfig(mask_time_share=0.25))
    assert (log_mel[0, 0] == 0).sum(1).tolist() == [10] * 20  # 25 % of 40 frames
    assert log_mel[0, 0, 0].tolist() == [1] * 15 + [0] * 10 + [1] * 15
    assert (log_mel[1] == 1).all()
    bands = masked(AugmentationConfig(mask_mel_share=0.5))
    assert (bands[0, 0] == 0).all(1).sum() == 10
    assert (masked(AugmentationConfig()) == 1).all()


def test_training_hears_what_its_draws_say_and_evaluation_the_sound_itself():
    samples = tiny_samples(16)
    augmentation = AugmentationConfig(p_mix=0.5, mix_snr_low_db=0.0, mix_snr_high_db=3.0)
    plain = Loader(read=samples.read, view=TINY.view, audio=TINY.model.audio)
    mixing = dataclasses.replace(plain, augmentation=augmentation)
    first = {
        name: next(loader.training(samples.train, TINY.sampling, 0, 1, 0))
        for name, loader in (("plain", plain), ("mixing", mixing))
    }
    changed = (first["plain"].waveform != first["mixing"].waveform).any(1)
    assert changed.tolist() == (first["plain"].draw(Draw.MIX) < 0.5).tolist()
    assert 0 < changed.sum() < 8
    still = [next(loader.evaluation(samples.train, 8)).waveform for loader in (plain, mixing)]
    assert torch.equal(*still)


def test_without_a_shift_training_hears_the_middle():
    samples = tiny_samples(8)
    audio = dataclasses.replace(TINY.model.audio, clip_s=0.25)
    loader = Loader(
        read=samples.read,
        view=TINY.view,
        audio=audio,
        augmentation=AugmentationConfig(shift=False),
    )
    trained = next(loader.training(samples.train, TINY.sampling, 0, 1, 0))
    middle = next(loader.evaluation(samples.train, 8))
    rows = [middle.keys.index(key) for key in trained.keys]
    assert torch.equal(trained.waveform, middle.waveform[rows])


@pytest.mark.parametrize("number", [2, 3])
def test_stages_mask_in_training_alone(number):
    samples = tiny_samples(8)
    recipe = config.override(TINY, {
        "augmentation.mask_time_share": 0.5, "augmentation.mask_mel_share": 0.5,
        "stage3.p_missing": 0.0,
    })  # fmt: skip
    stage = build_stage.build(number, build_model(recipe.model, 0), recipe)
    loader = Loader(read=samples.read, view=recipe.view, audio=recipe.model.audio)
    batch = next(loader.training(samples.train, recipe.sampling, 0, 1, 0))
    hidden = stage.encode_sound(batch, augmented=True)
    bare = dataclasses.replace(batch, draws=batch.draws.clone())
    bare.draws[:, [Draw.MASK_TIME_WIDTH, Draw.MASK_MEL_WIDTH]] = 0.0
    assert torch.equal(
        stage.encode_sound(bare, augmented=True), stage.encode_sound(batch, augmented=False)
    )
    assert not torch.allclose(hidden, stage.encode_sound(batch, augmented=False), atol=1e-4)


@pytest.mark.parametrize("name", ["p_mix", "mask_time_share", "mask_mel_share"])
def test_a_share_is_a_share(name):
    with pytest.raises(ValueError, match=name):
        config.check(AugmentationConfig(**{name: 1.5}))
