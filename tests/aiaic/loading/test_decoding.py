"""Squares of pictures and windows of sound, against the libraries that wrote them."""

import numpy as np
import pytest

from aiaic.loading.decoding import crop, resize, sound_range, window

SOUND = np.random.default_rng(0).integers(-32768, 32768, 1000).astype(np.int16)


def windowed(needed, at, *, roll, before=10):
    """What is read of a sound that lies behind other bytes, and what is made of it."""
    stored = bytes(before) + SOUND.astype("<i2").tobytes()
    offset, size = sound_range((before, 2 * len(SOUND)), needed, at)
    assert size <= 2 * needed
    return window(stored[offset : offset + size], needed, at, roll=roll)


@pytest.mark.parametrize(("at", "start"), [(0.0, 0), (0.5, 350), (0.9999, 700)])
def test_of_a_long_sound_the_window_alone_is_read(at, start):
    found = windowed(300, at, roll=True)
    assert found.dtype == np.int16
    assert np.array_equal(found, SOUND[start:][:300])


def test_a_sound_of_just_the_length_is_itself():
    assert np.array_equal(windowed(1000, 0.9, roll=True), SOUND)


def test_a_short_sound_is_repeated_and_rotated_for_training():
    assert np.array_equal(windowed(2500, 0.5, roll=False), np.tile(SOUND, 3)[:2500])
    rolled = np.tile(np.roll(SOUND, 500), 3)[:2500]
    assert np.array_equal(windowed(2500, 0.5, roll=True), rolled)


@pytest.mark.parametrize("size", [0, -44])
def test_a_sound_without_samples_is_refused(size):
    with pytest.raises(ValueError, match="no samples"):
        sound_range((100, size), 300, 0.5)


@pytest.mark.parametrize("pcm", [b"", bytes(301)])
def test_what_is_no_sound_is_refused(pcm):
    with pytest.raises(ValueError, match="bytes are not a sound of 16-bit samples"):
        window(pcm, 300, 0.0, roll=False)


def test_a_crop_is_a_view_where_nothing_is_resized():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    shown = crop(rgb, 40, 0.5, 0.5)
    assert np.shares_memory(shown, rgb)
    assert np.array_equal(shown, rgb[:, 10:50])


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (7, 90)])
def test_the_short_side_is_resized(shape):
    rgb = np.full((*shape, 3), 90, np.uint8)
    assert crop(rgb, 32, 0.99, 0.99).shape == (32, 32, 3)
    assert resize(rgb, 5, 6).shape == (6, 5, 3)
