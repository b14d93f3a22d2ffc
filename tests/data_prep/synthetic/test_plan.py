"""The plan of a world, and the sounds of its classes."""

from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_prep.synthetic import HARD, PLAIN, plan_world, sounds
from data_prep.synthetic.scenes import SCENES

PLANS = {kind: plan_world(kind, 1440, 7) for kind in (PLAIN, HARD)}
PLAN = PLANS[PLAIN]
KINDS = pytest.mark.parametrize("kind", PLANS, ids=lambda kind: kind.name)


def test_the_demo_world_is_large_enough_and_balanced():
    counts = Counter((c.split, c.class_name) for c in PLAN)
    for own in PLAIN.classes:
        assert counts["train", own.name] == 150
        assert counts["test", own.name] == 30


@KINDS
@pytest.mark.parametrize("clips", [1, 7, 8, 20, 100])
def test_siblings_differ_in_number_by_at_most_one(kind, clips):
    counts = Counter(c.class_name for c in plan_world(kind, clips, 0))
    for own in kind.classes:
        frequencies = [counts[c.name] for c in kind.siblings(own.name)]
        assert max(frequencies) - min(frequencies) <= 1


@KINDS
def test_every_scene_has_equally_many_siblings_and_every_class_its_own_sound(kind):
    assert Counter(c.appearance for c in kind.classes) == dict.fromkeys(
        SCENES, len(kind.classes) // len(SCENES)
    )
    assert set(kind.chroma) == set(SCENES)
    heard = [c.sound for c in kind.classes]
    assert len(set(heard)) == len(heard) == len(kind.by_name)
    assert set(heard) <= set(sounds.SOUNDS)


def test_keys_and_videos_are_unique():
    assert len({c.key for c in PLAN}) == len({c.youtube_id for c in PLAN}) == len(PLAN)


def test_a_clip_does_not_depend_on_others():
    assert plan_world(PLAIN, 10, 7) == PLAN[:10]


@KINDS
@pytest.mark.parametrize("split", ["train", "test"])
def test_some_sounds_are_unrelated_and_some_missing(kind, split):
    chosen = [c for c in PLANS[kind] if c.split == split]
    unrelated = [c for c in chosen if c.sound_class is not None and not c.fits]
    soundless = [c for c in chosen if c.sound_class is None]
    many = kind == HARD and split == "train"
    expected = (0.2, 0.2) if many else (0.06, 0.04)
    found = (len(unrelated) / len(chosen), len(soundless) / len(chosen))
    assert found == pytest.approx(expected, abs=0.04)
    assert {c.has_stream for c in soundless} == {True, False}
    for c in unrelated:
        shown, heard = kind.by_name[c.class_name], kind.by_name[c.sound_class]
        assert heard.appearance != shown.appearance


@pytest.mark.parametrize("name", sorted(sounds.SOUNDS))
def test_sounds_are_usable_and_vary(name):
    first, second = (
        sounds.synthesize_sound(name, np.random.default_rng(k), PLAIN.snr_db) for k in (1, 2)
    )
    for waveform in (first, second):
        assert waveform.dtype == np.float32
        assert waveform.shape == (64_000,)
        assert np.abs(waveform).max() <= 1
        assert -30 < 20 * np.log10(np.sqrt(np.mean(waveform**2))) < -10
    assert np.abs(np.corrcoef(first, second)[0, 1]) < 0.5


def test_the_noise_has_the_requested_level(monkeypatch):
    """A tone occupies one bin of the spectrum; everything else is noise."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(sounds.SAMPLES) / sounds.SAMPLE_RATE_HZ)
    monkeypatch.setitem(sounds.SOUNDS, "tone", lambda rng: tone)
    for snr_db in (5, 20):
        waveform = sounds.synthesize_sound("tone", np.random.default_rng(0), (snr_db, snr_db))
        power = np.abs(np.fft.rfft(waveform)) ** 2
        signal = power[2000]
        assert 10 * np.log10(signal / (power.sum() - signal)) == pytest.approx(snr_db, abs=0.5)


@KINDS
def test_sounds_are_distinguishable(kind):
    """A linear classifier on statistics of the spectrum recognizes the class."""

    def features(name, k):
        """Mean, deviation and peaks of 40 logarithmic bands, relative to the loudness."""
        rng = np.random.default_rng([k])
        waveform = sounds.synthesize_sound(name, rng, kind.snr_db)
        power = np.abs(np.fft.rfft(waveform[:63_488].reshape(62, 1024) * np.hanning(1024))) ** 2
        edges = np.unique(np.geomspace(3, power.shape[1] - 1, 41).astype(int))
        bands = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-9)
        loudness = bands.mean()
        peaks = np.quantile(bands, 0.95, axis=0) - loudness
        return np.concatenate([bands.mean(0) - loudness, bands.std(0), peaks])

    heard = np.array([[features(c.sound, k) for k in range(10)] for c in kind.classes])
    learn, test = heard[:, :6], heard[:, 6:]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    names = np.arange(len(kind.classes))
    classifier.fit(np.concatenate(learn), np.repeat(names, 6))
    assert (classifier.predict(np.concatenate(test)) == np.repeat(names, 4)).mean() >= 0.85
