"""The probes find leaks, and nothing where there is no leak."""

import numpy as np
import pytest

from aiaic.evaluation.probes import colour_leak_r2, sibling_probe_accuracy

N, SIZE = 240, 32


def _greys(rng):
    """Smooth scenes with an edge, random exposure and grain; two appearances of two classes."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    phase, cut = rng.uniform(0, 6.3, (2, N, 1, 1))
    scene = np.sin(5 * x + phase) + (
        y + 0.1 * np.sin(4 * x + cut) > rng.uniform(0.3, 0.7, (N, 1, 1))
    )
    L = 50 + rng.uniform(5, 15, (N, 1, 1)) * scene
    L += rng.uniform(0.3, 1.5, (N, 1, 1)) * rng.standard_normal((N, SIZE, SIZE))
    number = np.arange(N)
    return L, number // 2 % 2, number % 4


def test_noise_gives_chance():
    L, appearance, class_ = _greys(np.random.default_rng(0))
    assert 0.40 <= sibling_probe_accuracy(L, appearance, class_) <= 0.58


def test_a_trace_at_edges_is_found():
    L, appearance, class_ = _greys(np.random.default_rng(1))
    sign = np.where(class_ % 2 == 0, 1, -1)[:, None, None]
    edges = np.abs(np.diff(L, axis=1, append=L[:, -1:]))
    assert sibling_probe_accuracy(L + 0.2 * sign * edges, appearance, class_) > 0.8


def test_another_grain_is_found():
    rng = np.random.default_rng(2)
    L, appearance, class_ = _greys(rng)
    noise = (class_ % 2)[:, None, None] * rng.standard_normal(L.shape)
    assert sibling_probe_accuracy(L + noise, appearance, class_) > 0.7


def test_another_brightness_is_found():
    L, appearance, class_ = _greys(np.random.default_rng(3))
    assert sibling_probe_accuracy(L + 5 * (class_ % 2)[:, None, None], appearance, class_) > 0.8


def test_same_seed_same_answer():
    L, appearance, class_ = _greys(np.random.default_rng(4))
    first, second = (sibling_probe_accuracy(L, appearance, class_) for _ in range(2))
    assert first == second


def test_names_may_be_strings():
    L, appearance, class_ = _greys(np.random.default_rng(5))
    same = sibling_probe_accuracy(L, appearance, class_)
    assert same == sibling_probe_accuracy(L, appearance.astype(str), class_.astype(str))


def test_too_few_pictures_are_rejected():
    L, appearance, class_ = _greys(np.random.default_rng(6))
    with pytest.raises(ValueError, match="at least 5 pictures"):
        sibling_probe_accuracy(L[:8], appearance[:8], class_[:8])
    with pytest.raises(ValueError, match="at least two classes"):
        sibling_probe_accuracy(L, class_, class_)


def _semantics(rng, count=200, rest=10):
    """Embeddings that carry a class and, in two of their directions, more; and what that is."""
    own = rng.standard_normal((count, 2)) * (3, 1)
    class_ = np.eye(4)[np.arange(count) % 4]
    return np.concatenate([class_, rng.standard_normal((count, rest))], axis=1), own


def test_leaked_colours_are_found():
    rng = np.random.default_rng(7)
    semantics, own = _semantics(rng)
    mixed = np.concatenate([semantics, own @ rng.standard_normal((2, 2))], axis=1)
    assert colour_leak_r2(mixed, own, np.arange(200)) > 0.95


def test_a_class_does_not_leak_a_pictures_own_colours():
    semantics, own = _semantics(np.random.default_rng(8))
    assert -0.3 < colour_leak_r2(semantics, own, np.arange(200)) < 0.05


def test_what_clips_of_one_video_share_is_not_a_leak():
    semantics, own = _semantics(np.random.default_rng(9), rest=40)
    video = np.arange(200) // 10
    semantics, own = semantics[video * 10], own[video * 10]
    assert colour_leak_r2(semantics, own, np.arange(200)) > 0.9
    assert colour_leak_r2(semantics, own, video) < 0.1


def test_a_leak_that_cannot_be_measured_is_rejected():
    semantics, own = _semantics(np.random.default_rng(10))
    with pytest.raises(ValueError, match="20 pictures"):
        colour_leak_r2(semantics[:19], own[:19], np.arange(19))
    with pytest.raises(ValueError, match="of 4"):
        colour_leak_r2(semantics, own, np.arange(200) % 4)
    with pytest.raises(ValueError, match="does not vary"):
        colour_leak_r2(semantics, 0 * own, np.arange(200))
