"""Squares of pictures and windows of sound, against the libraries that wrote them."""

import io

import numpy as np
import pytest
import soundfile

from aiaic.audio import AudioConfig
from aiaic.decoding import crop, cut, resize

RATE_HZ = 16_000
SOUND = np.random.default_rng(0).integers(-32768, 32768, 1000).astype(np.int16)


def wav(sound=SOUND, *, rate_hz=RATE_HZ, kind="WAV", subtype="PCM_16"):
    stream = io.BytesIO()
    soundfile.write(stream, sound, rate_hz, format=kind, subtype=subtype)
    return stream.getvalue()


def audio(samples: int) -> AudioConfig:
    return AudioConfig(clip_s=samples / RATE_HZ)


@pytest.mark.parametrize(("at", "start"), [(0.0, 0), (0.5, 350), (0.9999, 700)])
def test_a_window_of_a_long_sound_is_what_libsndfile_reads(at, start):
    window = cut(wav(), audio(300), at, roll=True)
    assert window.dtype == np.int16
    assert np.array_equal(window, soundfile.read(io.BytesIO(wav()), dtype="int16")[0][start:][:300])


def test_a_short_sound_is_repeated_and_rotated_for_training():
    assert np.array_equal(cut(wav(), audio(2500), 0.5, roll=False), np.tile(SOUND, 3)[:2500])
    rolled = np.tile(np.roll(SOUND, 500), 3)[:2500]
    assert np.array_equal(cut(wav(), audio(2500), 0.5, roll=True), rolled)


@pytest.mark.parametrize(
    "content",
    [
        wav(np.stack([SOUND, SOUND], 1)),
        wav(subtype="PCM_24"),
        wav(kind="FLAC"),
        wav()[:-1],
        wav()[:44],
        wav()[:20],
        b"",
    ],
    ids=["stereo", "24 bits", "FLAC", "cut off", "no sample", "no header", "nothing"],
)
def test_what_is_no_sound_of_shards_is_refused_by_name(content):
    with pytest.raises(ValueError, match="is not 16-bit mono WAV"):
        cut(content, audio(300), 0.0, roll=False)


def test_another_rate_is_refused_by_name():
    with pytest.raises(ValueError, match=r"8000 Hz.*16000"):
        cut(wav(rate_hz=8000), audio(300), 0.0, roll=False)


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
