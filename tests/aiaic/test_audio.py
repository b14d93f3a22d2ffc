import pytest
import torch

from aiaic import audio
from aiaic.audio import AudioConfig, LogMel


def tone(hertz: float, seconds: float = 1.0, level: float = 0.5) -> torch.Tensor:
    time_s = torch.arange(int(16_000 * seconds)) / 16_000
    return level * torch.sin(2 * torch.pi * hertz * time_s)


def test_log_mel_finds_the_pitch():
    log_mel = LogMel(AudioConfig())
    low, high = (log_mel(tone(hertz)[None])[0, 0].mean(1).argmax() for hertz in (300, 4000))
    assert low < high


def test_log_mel_follows_the_level_in_decibels():
    config = AudioConfig()
    log_mel = LogMel(config)
    loud, quiet = (log_mel(tone(1000, level=level)[None]).max() for level in (0.5, 0.05))
    assert float(loud - quiet) * config.deviation_db == pytest.approx(20, abs=0.1)


def test_log_mel_is_fp32_under_autocast():
    log_mel = LogMel(AudioConfig())
    plain = log_mel(tone(1000)[None])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(tone(1000)[None]), plain)


def test_silence_is_under_minus_60_dbfs():
    sounds = torch.stack((tone(500, level=0.0016), tone(500, level=0.0012), tone(500, level=0.0)))
    assert audio.is_silent(sounds).tolist() == [False, True, True]  # a sine's RMS is 3 dB lower


def test_short_sound_is_repeated_and_long_sound_cut_in_the_middle():
    assert audio.fit_length(torch.tensor([1.0, 2.0, 3.0]), 7).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert audio.fit_length(torch.arange(10.0), 4).tolist() == [3, 4, 5, 6]


def test_empty_sound_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        audio.fit_length(torch.empty(0), 4)
