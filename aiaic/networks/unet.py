"""The decoder shared by the larger backbones (widths 256-128-64-32-16)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from aiaic.networks.backbone import Guide, GuidedFeature
from aiaic.networks.blocks import ConvBlock

_WIDTHS = (256, 128, 64, 32, 16)


class UNetDecoder(nn.Module):
    """Upsamples five times, from 1/32 of the picture's size to all of it, with skip connections.

    Args:
        deepest: channels of the features at 1/32.
        skips: channels of the features at 1/16, 1/8, 1/4, 1/2 and 1/1; 0 for no skip connection.
    """

    def __init__(self, deepest: int, skips: Sequence[int]) -> None:
        super().__init__()
        self.skips = tuple(skips)
        self.up = nn.ModuleList(
            nn.Sequential(ConvBlock(deep + skip, width), ConvBlock(width, width))
            for deep, skip, width in zip((deepest, *_WIDTHS[:-1]), skips, _WIDTHS, strict=True)
        )
        self.head = nn.Conv2d(_WIDTHS[-1], 2, 3, padding=1)
        self.guided = tuple(
            GuidedFeature(f"1/{2 ** (5 - level)}", width)
            for level, width in enumerate((deepest, *_WIDTHS[:3]))
        )

    def forward(self, features: Sequence[Tensor], guide: Guide) -> Float[Tensor, "b 2 h w"]:
        """Chroma from six feature maps, finest first; without a skip, only a map's size is used."""
        x = guide(0, features[-1])
        skips = zip(self.up, self.skips, features[-2::-1], strict=True)
        for level, (up, channels, skip) in enumerate(skips, start=1):
            x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = up(torch.cat((x, skip), 1) if channels else x)
            if level < len(self.guided):
                x = guide(level, x)
        return torch.tanh(self.head(x))
