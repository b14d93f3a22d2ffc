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
    assert float(loud - quiet) * 20.0 == pytest.approx(20, abs=0.1)


def test_measured_statistics_normalize_each_band_and_travel_with_the_weights():
    generator = torch.Generator().manual_seed(0)
    low, high = tone(300, level=0.3), tone(3000, level=0.01)
    sounds = (low + high) * (0.5 + torch.rand(12, 1, generator=generator))
    sounds = sounds + 0.003 * torch.randn(12, 16_000, generator=generator)
    log_mel = LogMel(AudioConfig())
    assert not log_mel.measured
    log_mel.fit_normalization([sounds[:5], sounds[5:]])
    assert log_mel.measured
    decibels = log_mel.decibels(sounds)
    torch.testing.assert_close(log_mel.mean_db, decibels.mean((0, 2)), atol=1e-3, rtol=0)
    wide = decibels.std((0, 2), correction=0).clamp_min(1.0)
    torch.testing.assert_close(log_mel.deviation_db, wide, atol=1e-3, rtol=0)
    assert log_mel(sounds).mean((0, 1, 3)).abs().max() < 1e-3
    other = LogMel(AudioConfig())
    other.load_state_dict(log_mel.state_dict())
    assert torch.equal(other(sounds), log_mel(sounds))


def test_no_sound_measures_nothing():
    log_mel = LogMel(AudioConfig())
    log_mel.fit_normalization([])
    assert not log_mel.measured


@pytest.mark.parametrize("samples", [1, 100, 511, 512, 40_000])
def test_sound_of_any_length_has_a_spectrogram(samples):
    log_mel = LogMel(AudioConfig())
    assert torch.isfinite(log_mel(tone(500)[None].repeat(1, 3)[:, :samples])).all()


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
