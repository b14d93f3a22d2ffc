"""The audio front end: log-mel spectrograms of sound."""

import dataclasses
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int16
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import MelSpectrogram

from aiaic.config import AtLeast1, Positive, Width

FULL_SCALE = 32768.0
SILENCE_DBFS = -60.0
"""A sound with a lower root mean square counts as missing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """The audio front end."""

    sample_rate_hz: AtLeast1 = 16_000
    """Sample rate of all sound."""
    clip_s: Positive = 2.0
    """Length of sound that the network sees; shorter sound is repeated, longer sound is cut."""
    mels: Width = 64
    """Number of mel bands."""
    window_ms: Positive = 32.0
    """Length of an analysis window."""
    hop_ms: Positive = 16.0
    """Distance between the starts of successive analysis windows."""

    @property
    def samples(self) -> int:
        """Number of samples that the network sees."""
        return round(self.clip_s * self.sample_rate_hz)


class LogMel(nn.Module):
    """Log-mel spectrogram in decibels, each mel band normalized by its mean and deviation.

    Like VGGSound's official front end, it uses log spectrograms of 16 kHz mono sound. Mel bands are
    ours, and so is normalizing by statistics of the training sounds instead of the clip's own,
    since loudness is information. :meth:`fit_normalization` computes these statistics; they are
    part of a checkpoint.
    """

    mean_db: Tensor
    deviation_db: Tensor
    measured: Tensor

    def __init__(self, audio: AudioConfig) -> None:
        super().__init__()
        self.audio = audio
        self.spectrogram = MelSpectrogram(
            sample_rate=audio.sample_rate_hz,
            n_fft=round(audio.window_ms * audio.sample_rate_hz / 1000),
            hop_length=round(audio.hop_ms * audio.sample_rate_hz / 1000),
            n_mels=audio.mels,
            f_min=40.0,
        )
        self.register_buffer("mean_db", torch.full((audio.mels,), -30.0))
        self.register_buffer("deviation_db", torch.full((audio.mels,), 20.0))
        self.register_buffer("measured", torch.tensor(data=False))

    def decibels(self, waveform: Float[Tensor, "b t"]) -> Float[Tensor, "b mels frames"]:
        """Power of each mel band in dB, at least -80.

        Args:
            waveform: mono sound in [-1, 1], of any length; sound shorter than an analysis window
                is padded with silence.
        """
        lacking = self.spectrogram.n_fft - waveform.shape[1]
        if lacking > 0:
            waveform = F.pad(waveform, (0, lacking))
        # Autocast would run the mel bands' matrix product in bf16.
        with torch.autocast(waveform.device.type, enabled=False):
            power = self.spectrogram(waveform.float())
        return 10 * torch.log10(power.clamp_min(1e-8))

    def forward(self, waveform: Float[Tensor, "b t"]) -> Float[Tensor, "b 1 mels frames"]:
        """Args:
        waveform: mono sound in [-1, 1].
        """
        mean, deviation = self.mean_db[:, None], self.deviation_db[:, None]
        return ((self.decibels(waveform) - mean) / deviation).unsqueeze(1)

    @torch.no_grad()
    def fit_normalization(self, waveforms: Iterable[Tensor]) -> None:
        """Set each band's mean and deviation to those of sounds [b t]; without any, change nothing.

        The deviation is at least 1 dB, so that a band without sound is not amplified.
        """
        totals = torch.zeros(3, len(self.mean_db), dtype=torch.float64)
        for waveform in waveforms:
            decibels = self.decibels(waveform).double().cpu()
            totals[0] += decibels.shape[0] * decibels.shape[2]
            totals[1] += decibels.sum((0, 2))
            totals[2] += decibels.square().sum((0, 2))
        count, first, second = totals
        if count[0] == 0:
            return
        mean = first / count
        self.mean_db.copy_(mean)
        self.deviation_db.copy_((second / count - mean**2).clamp_min(1.0).sqrt())
        self.measured.fill_(value=True)


def to_float(waveform: Int16[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """Convert 16-bit sound to floats in [-1, 1)."""
    return waveform.float() / FULL_SCALE


def is_silent(waveform: Float[Tensor, "b t"]) -> Bool[Tensor, " b"]:
    """Whether the root mean square of each sound is below -60 dBFS."""
    rms = waveform.float().square().mean(1).sqrt()
    return rms < 10 ** (SILENCE_DBFS / 20)


def fit_length(waveform: Float[Tensor, " t"], samples: int) -> Float[Tensor, " samples"]:
    """Repeat a short sound, or take the middle of a long one.

    Raises:
        ValueError: the sound is empty.
    """
    length = len(waveform)
    if length == 0:
        raise ValueError("the sound has no samples")
    if length < samples:
        return waveform.repeat(-(-samples // length))[:samples]
    start = (length - samples) // 2
    return waveform[start : start + samples]
