"""Sound -> log-mel spectrograms."""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int16
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

FULL_SCALE = 32768.0
SILENCE_DBFS = -60.0
"""A sound whose root mean square lies under this counts as missing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """The audio front end."""

    sample_rate_hz: int = 16_000
    """Sample rate of all sound."""
    clip_s: float = 2.0
    """Length of sound the network sees; shorter sound is repeated, longer sound cut."""
    mels: int = 64
    """Number of mel bands."""
    window_ms: float = 32.0
    """Length of an analysis window."""
    hop_ms: float = 16.0
    """Distance of analysis windows."""
    mean_db: float = -30.0
    """Level that is mapped to 0."""
    deviation_db: float = 20.0
    """Distance from ``mean_db`` that is mapped to 1."""

    @property
    def samples(self) -> int:
        """Number of samples the network sees."""
        return round(self.clip_s * self.sample_rate_hz)


class LogMel(nn.Module):
    """Log-mel spectrogram in decibels, shifted and scaled by the front end's constants.

    VGGSound's official front end works on log spectrograms of 16 kHz mono sound as well; mel bands
    and fixed constants instead of a normalization per clip (loudness is information) are ours.
    """

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

    def forward(self, waveform: Float[Tensor, "b t"]) -> Float[Tensor, "b 1 mels frames"]:
        """Args:
        waveform: mono sound in [-1, 1].
        """
        # The mel product is a matrix product, which autocast would run in bf16.
        with torch.autocast(waveform.device.type, enabled=False):
            power = self.spectrogram(waveform.float())
        decibels = 10 * torch.log10(power.clamp_min(1e-8))
        return ((decibels - self.audio.mean_db) / self.audio.deviation_db).unsqueeze(1)


def to_float(waveform: Int16[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """16-bit sound as float in [-1, 1)."""
    return waveform.float() / FULL_SCALE


def is_silent(waveform: Float[Tensor, "b t"]) -> Bool[Tensor, " b"]:
    """Whether the root mean square of each sound lies under -60 dBFS."""
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
