"""Augmentation of sounds in training: shifting, mixing with another clip's sound, masking.

What happens to a sample follows only from its uniform draws, so it is the same on any number of
workers. Sounds are shifted and mixed when they are loaded; spectrograms are masked on the device.
"""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from aiaic.config import Finite, Share

_FULL_SCALE = 32767


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Augmentation of sounds in training; evaluation uses none."""

    shift: bool = True
    """Use a random part of a long sound, and start a short sound at a random moment."""
    p_mix: Share = 0.0
    """Share of the sounds that are mixed with another video's sound."""
    mix_snr_low_db: Finite = 6.0
    """Lowest level of a sound above the one that is mixed in."""
    mix_snr_high_db: Finite = 20.0
    """Highest level of a sound above the one that is mixed in."""
    mask_time_share: Share = 0.0
    """Largest share of the time that is masked (SpecAugment, Park et al. 2019)."""
    mask_mel_share: Share = 0.0
    """Largest share of the mel bands that is masked."""

    def __post_init__(self) -> None:
        if self.mix_snr_low_db > self.mix_snr_high_db:
            raise ValueError("augmentation.mix_snr_low_db must not exceed mix_snr_high_db")


def mix(own: NDArray[np.int16], other: NDArray[np.int16], snr_db: float) -> NDArray[np.int16]:
    """Add ``other`` [t] to ``own`` [t] at ``snr_db`` below its level; clipped to 16 bits.

    Where either of them is all zeros, ``own`` is returned unchanged.
    """
    first, second = own.astype(np.float32), other.astype(np.float32)
    level, disturbance = (np.sqrt(np.mean(np.square(x))) for x in (first, second))
    if level == 0 or disturbance == 0:
        return own
    mixed = first + second * (level / disturbance * 10 ** (-snr_db / 20))
    return np.clip(np.rint(mixed), -_FULL_SCALE, _FULL_SCALE).astype(np.int16)


def mask_spectrogram(
    log_mel: Float[Tensor, "b 1 mels frames"],
    *,
    time: tuple[Float[Tensor, " b"], Float[Tensor, " b"]],
    mel: tuple[Float[Tensor, " b"], Float[Tensor, " b"]],
    augmentation: AugmentationConfig,
) -> Float[Tensor, "b 1 mels frames"]:
    """Set one span of time and one span of mel bands to the mean, 0.

    Args:
        log_mel: normalized.
        time: two uniform draws in [0, 1) for each sample: the span's width and position.
        mel: likewise for the span of mel bands.
        augmentation: the largest widths.
    """
    _, _, mels, frames = log_mel.shape
    hidden = _span(frames, augmentation.mask_time_share, *time)[:, None, None, :]
    hidden = hidden | _span(mels, augmentation.mask_mel_share, *mel)[:, None, :, None]
    return log_mel.masked_fill(hidden, 0.0)


def _span(length: int, share: float, width: Tensor, position: Tensor) -> Tensor:
    """Which of ``length`` positions a span covers, for each sample."""
    widths = width * share * length
    start = position * (length - widths)
    index = torch.arange(length, device=width.device)[None] + 0.5
    return (index >= start[:, None]) & (index < (start + widths)[:, None])
