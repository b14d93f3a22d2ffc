"""Sounds as training hears them: shifted, mixed with another clip's, with parts masked.

What happens to a sample follows from its uniform draws alone, so it is the same on any number of
workers. Sounds are shifted and mixed as they are loaded, spectrograms are masked on the device.
"""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

_FULL_SCALE = 32767


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """What training does to sounds; evaluation does none of it."""

    shift: bool = True
    """Use a random part of a long sound, and start a short sound at a random moment."""
    p_mix: float = 0.0
    """Share of the sounds that are mixed with another video's sound."""
    mix_snr_low_db: float = 6.0
    """Lowest level of a sound above the one that is mixed in."""
    mix_snr_high_db: float = 20.0
    """Highest level of a sound above the one that is mixed in."""
    mask_time_share: float = 0.0
    """Largest share of the time that is masked (SpecAugment, Park et al. 2019)."""
    mask_mel_share: float = 0.0
    """Largest share of the mel bands that is masked."""

    def __post_init__(self) -> None:
        for name in ("p_mix", "mask_time_share", "mask_mel_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augmentation.{name} is a share: give 0 to 1")
        if self.mix_snr_low_db > self.mix_snr_high_db:
            raise ValueError("augmentation.mix_snr_low_db is over mix_snr_high_db: change one")


def mix(own: NDArray[np.int16], other: NDArray[np.int16], snr_db: float) -> NDArray[np.int16]:
    """``own`` [t] with ``other`` [t], whose level is ``snr_db`` below its own; clipped.

    A sound without level is left as it is.
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
    """Set one span of time and one of mel bands to the mean, 0.

    Args:
        log_mel: normalized.
        time: two uniform draws in [0, 1) for each sample: how wide the span is, and where.
        mel: the like.
        augmentation: the greatest widths.
    """
    _, _, mels, frames = log_mel.shape
    hidden = _span(frames, augmentation.mask_time_share, *time)[:, None, None, :]
    hidden = hidden | _span(mels, augmentation.mask_mel_share, *mel)[:, None, :, None]
    return log_mel.masked_fill(hidden, 0.0)


def _span(length: int, share: float, width: Tensor, place: Tensor) -> Tensor:
    """Which of ``length`` places a span covers, for each sample."""
    widths = width * share * length
    begin = place * (length - widths)
    index = torch.arange(length, device=width.device)[None] + 0.5
    return (index >= begin[:, None]) & (index < (begin + widths)[:, None])
