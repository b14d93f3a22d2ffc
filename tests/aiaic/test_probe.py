"""The probe sees a leak and sees nothing where there is none."""

import numpy as np
import pytest

from aiaic.probe import sibling_probe_accuracy

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


def test_too_few_pictures_are_refused():
    L, appearance, class_ = _greys(np.random.default_rng(6))
    with pytest.raises(ValueError, match="at least 5 pictures"):
        sibling_probe_accuracy(L[:8], appearance[:8], class_[:8])
    with pytest.raises(ValueError, match="two or more classes"):
        sibling_probe_accuracy(L, class_, class_)
