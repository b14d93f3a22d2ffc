"""Training reads samples without the header, so all sounds must have the same one."""

import io

import numpy as np
import pytest
import soundfile

from data_prep.media.wav import check_wav, encode_wav, samples_within

RATE_HZ = 16_000
SOUND = np.random.default_rng(0).integers(-32768, 32768, 1000).astype(np.int16)


def wav(sound=SOUND, *, rate_hz=RATE_HZ, kind="WAV", subtype="PCM_16"):
    stream = io.BytesIO()
    soundfile.write(stream, sound, rate_hz, format=kind, subtype=subtype)
    return stream.getvalue()


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100])
def test_written_sounds_have_the_format_of_shards(rate_hz):
    content = encode_wav(SOUND / np.float32(32768), rate_hz)
    check_wav(content, rate_hz)
    offset, size = samples_within(100, len(content))
    stored = bytes(100) + content
    assert np.array_equal(np.frombuffer(stored[offset : offset + size], "<i2"), SOUND)


@pytest.mark.parametrize("rate_hz", [8000, 44100])
def test_the_file_equals_that_of_libsndfile(rate_hz):
    assert encode_wav(SOUND / np.float32(32768), rate_hz) == wav(rate_hz=rate_hz)


def test_full_scale_is_clipped_and_halves_go_to_even():
    waveform = np.array([1.0, -1.0, 0.5 / 32768, 1.5 / 32768], np.float32)
    content = encode_wav(waveform, RATE_HZ)
    assert np.frombuffer(content[44:], "<i2").tolist() == [32767, -32768, 0, 2]


@pytest.mark.parametrize(
    "content",
    [
        wav(np.stack([SOUND, SOUND], 1)),
        wav(subtype="PCM_24"),
        wav(kind="FLAC"),
        wav(rate_hz=8000),
        wav()[:-1],
        wav()[:44],
        wav()[:20],
        b"",
    ],
    ids=["stereo", "24 bits", "FLAC", "rate", "cut off", "no sample", "no header", "nothing"],
)
def test_anything_else_is_refused_by_name(content):
    with pytest.raises(ValueError, match="not 16-bit mono WAV of 16000 Hz"):
        check_wav(content, RATE_HZ)
