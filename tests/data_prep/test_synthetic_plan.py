"""Who is in the world, and what it sounds like."""

from collections import Counter

import numpy as np
import pytest

from data_prep.synthetic import CLASSES, plan_world, sounds
from data_prep.synthetic.world import BY_NAME

PLAN = plan_world(1440, 7)


def test_the_demo_world_is_large_enough_and_balanced():
    counts = Counter((c.split, c.class_name) for c in PLAN)
    for own in CLASSES:
        assert counts["train", own.name] == 150
        assert counts["test", own.name] == 30


@pytest.mark.parametrize("clips", [1, 7, 8, 20, 100])
def test_siblings_are_never_more_than_one_apart(clips):
    counts = Counter(c.class_name for c in plan_world(clips, 0))
    for first, second in zip(CLASSES[::2], CLASSES[1::2], strict=True):
        assert first.appearance == second.appearance
        assert abs(counts[first.name] - counts[second.name]) <= 1


def test_keys_and_videos_are_unique():
    assert len({c.key for c in PLAN}) == len({c.youtube_id for c in PLAN}) == len(PLAN)


def test_a_clip_depends_on_no_other():
    assert plan_world(10, 7) == PLAN[:10]


def test_some_sounds_are_unrelated_and_some_missing():
    for split in ("train", "test"):
        chosen = [c for c in PLAN if c.split == split]
        unrelated = [c for c in chosen if c.sound_class is not None and not c.fits]
        soundless = [c for c in chosen if c.sound_class is None]
        assert 0.02 < len(unrelated) / len(chosen) < 0.10
        assert 0.01 < len(soundless) / len(chosen) < 0.08
        assert {c.has_stream for c in soundless} == {True, False}
        for c in unrelated:
            assert BY_NAME[c.sound_class].appearance != BY_NAME[c.class_name].appearance


@pytest.mark.parametrize("name", sorted(sounds.SOUNDS))
def test_sounds_are_usable_and_vary(name):
    first, second = (sounds.synthesize_sound(name, np.random.default_rng(k)) for k in (1, 2))
    for waveform in (first, second):
        assert waveform.dtype == np.float32
        assert waveform.shape == (64_000,)
        assert np.abs(waveform).max() <= 1
        assert -30 < 20 * np.log10(np.sqrt(np.mean(waveform**2))) < -10
    assert np.abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_sounds_are_told_apart_by_their_spectra():
    """Nearest mean of log spectra in 40 bands: the sound says what the grey does not."""

    def bands(name, k):
        power = np.abs(np.fft.rfft(sounds.synthesize_sound(name, np.random.default_rng([k])))) ** 2
        edges = np.geomspace(100, power.size - 1, 41).astype(int)
        return np.log(np.add.reduceat(power, edges[:-1]) + 1e-9)

    names = list(sounds.SOUNDS)
    heard = np.array([[bands(name, k) for k in range(10)] for name in names])
    heard -= heard.mean(axis=2, keepdims=True)
    means = heard[:, :5].mean(axis=1)
    distance = ((heard[:, 5:, None] - means) ** 2).sum(-1)
    assert (distance.argmin(-1) == np.arange(len(names))[:, None]).mean() >= 0.95
