"""The choice of the sound that a clip is evaluated with."""

import dataclasses
import itertools

import numpy as np
import pytest

from aiaic.evaluation.conditions import Clip, GroundTruth, choose, key_seed

CLASSES = {"sea": "rows", "field": "rows", "fire": "blobs", "snow": "blobs", "lone": "dots"}


def world(count: int = 60):
    names = itertools.islice(itertools.cycle(CLASSES), count)
    classes = {f"clip{i:03d}": name for i, name in enumerate(names)}
    clips = [Clip(key=key, video=i // 2, has_sound=i % 7 != 3) for i, key in enumerate(classes)]
    truth = GroundTruth(
        class_by_key=classes,
        appearance_by_key={key: CLASSES[name] for key, name in classes.items()},
        fits_by_key={key: i % 5 != 4 for i, key in enumerate(classes)},
        rendering=lambda key, name: np.zeros((2, 2, 3), np.uint8),
    )
    return clips, truth


def test_only_clips_with_a_fitting_sound_take_part():
    clips, truth = world()
    sounds = choose(clips, seed=0, truth=truth, labels=None)
    assert sounds.fitting == {c.key for c in clips if c.has_sound and truth.fits_by_key[c.key]}
    for partners in (sounds.mismatched, sounds.swapped):
        assert set(partners) | set(partners.values()) <= sounds.fitting
    assert choose(clips, seed=0, truth=None, labels=None).fitting == {
        c.key for c in clips if c.has_sound
    }


@pytest.mark.parametrize("seed", range(3))
def test_ground_truth_decides_what_is_mismatched_and_what_is_a_sibling(seed):
    clips, truth = world()
    sounds = choose(clips, seed=seed, truth=truth, labels=None)
    assert set(sounds.mismatched) == sounds.fitting
    for key, partner in sounds.mismatched.items():
        assert truth.appearance_by_key[key] != truth.appearance_by_key[partner]
    assert set(sounds.swapped) == {
        k for k in sounds.fitting if truth.appearance_by_key[k] in {"rows", "blobs"}
    }
    for key, partner in sounds.swapped.items():
        assert truth.appearance_by_key[key] == truth.appearance_by_key[partner]
        assert truth.class_by_key[key] != truth.class_by_key[partner]


def test_labels_and_videos_decide_without_ground_truth():
    clips, truth = world()
    labels = dict(truth.class_by_key)
    video = {clip.key: clip.video for clip in clips}
    by_label = choose(clips, seed=0, truth=None, labels=labels)
    by_video = choose(clips, seed=0, truth=None, labels=None)
    assert not by_label.swapped
    assert all(labels[key] != labels[partner] for key, partner in by_label.mismatched.items())
    for sounds in (by_label, by_video):
        assert all(video[key] != video[partner] for key, partner in sounds.mismatched.items())
    assert any(labels[key] == labels[partner] for key, partner in by_video.mismatched.items())


def test_the_choice_depends_on_the_seed_and_not_on_the_order():
    clips, truth = world()
    first = choose(clips, seed=1, truth=truth, labels=None)
    assert choose(clips[::-1], seed=1, truth=truth, labels=None) == first
    assert choose(clips, seed=2, truth=truth, labels=None).mismatched != first.mismatched
    assert len(set(first.mismatched.values())) > len(first.mismatched) / 3  # not always the same


def test_clips_without_a_partner_do_not_have_the_condition():
    clips, _ = world(1)
    assert not choose(clips, seed=0, truth=None, labels=None).mismatched
    silent = [dataclasses.replace(clip, has_sound=False) for clip in clips]
    assert not choose(silent, seed=0, truth=None, labels=None).fitting


def test_ground_truth_of_other_clips_is_rejected():
    _, truth = world()
    with pytest.raises(ValueError, match="does not know clip 'elsewhere'"):
        truth.require(["clip000", "elsewhere"])


def test_key_seeds_differ():
    assert len({key_seed(seed, key) for seed in range(5) for key in ("a", "b", "c")}) == 15
