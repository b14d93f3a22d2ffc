"""Encoders of scene semantics, from a colour picture and from sound."""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet

from aiaic.audio import AudioConfig, LogMel
from aiaic.config import Width
from aiaic.networks import residual
from aiaic.networks.blocks import ConvBlock, ResidualBlock
from aiaic.networks.pretrained import State


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """An encoder of scene semantics."""

    name: Literal["compact", "resnet18"] = "compact"
    """Architecture."""
    width: Width = 24
    """Channels of the finest feature map (``compact``)."""
    weights: str | None = None
    """Pretrained weights (``resnet18``), given like those of the backbone."""


class SceneEncoder(nn.Module):
    """``Es``: colour picture -> unit vector of scene semantics (arXiv 2401.13270)."""

    def __init__(self, encoder: EncoderConfig, semantics: int, size_px: int) -> None:
        super().__init__()
        self.size_px = size_px
        self.trunk = _trunk(encoder, channels=3, semantics=semantics)

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Args:
        rgb: sRGB in [0, 1]; resized to the encoder's size.
        """
        size = (self.size_px, self.size_px)
        if rgb.shape[-2:] != size:
            rgb = F.interpolate(rgb, size, mode="bilinear", antialias=True, align_corners=False)
        return _unit(self.trunk(2 * rgb - 1))

    def load_pretrained(self, state: State) -> None:
        """Load pretrained weights of the trunk; see :func:`_load`."""
        _load(self.trunk, state)


class AudioEncoder(nn.Module):
    """``Ea``: sound -> unit vector in the space of scene semantics."""

    def __init__(self, encoder: EncoderConfig, audio: AudioConfig, semantics: int) -> None:
        super().__init__()
        self.log_mel = LogMel(audio)
        self.trunk = _trunk(encoder, channels=1, semantics=semantics)

    def forward(self, waveform: Float[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Args:
        waveform: mono sound in [-1, 1].
        """
        return self.embed(self.log_mel(waveform))

    def embed(self, log_mel: Float[Tensor, "b 1 mels frames"]) -> Float[Tensor, "b d"]:
        """Scene semantics of normalized log-mel spectrograms of any length."""
        return _unit(self.trunk(log_mel))

    def load_pretrained(self, state: State) -> None:
        """Load pretrained weights of the trunk; see :func:`_load`."""
        _load(self.trunk, state)


def _load(trunk: nn.Module, state: State) -> None:
    """Load torchvision's weights into a ResNet; its last layer stays random.

    Raises:
        ValueError: the encoder is not a ResNet, or the weights are of another architecture.
    """
    if not isinstance(trunk, ResNet):
        raise ValueError("the encoder 'compact' accepts no pretrained weights: use 'resnet18'")
    last, trunk.fc = trunk.fc, nn.Identity()  # type: ignore[assignment]
    residual.load(trunk, state)
    trunk.fc = last


def _trunk(encoder: EncoderConfig, *, channels: int, semantics: int) -> nn.Module:
    if encoder.name == "resnet18":
        frozen = encoder.weights is not None
        model = residual.resnet("resnet18", frozen_norm=frozen, channels=channels)
        model.fc = nn.Linear(512, semantics)  # type: ignore[assignment]
        return model
    width = encoder.width
    widths = (width, 2 * width, 3 * width, 4 * width)
    blocks = [
        ConvBlock(inputs, outputs, stride=2)
        for inputs, outputs in zip((channels, *widths[:-1]), widths, strict=True)
    ]
    return nn.Sequential(
        *blocks, ResidualBlock(widths[-1]), _Pool(), nn.Linear(2 * widths[-1], semantics)
    )


class _Pool(nn.Module):
    """Mean and maximum over space."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1)


def _unit(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    return F.normalize(x.float(), dim=1)
