"""``compact``: a small U-Net for CPUs, tests and the demo.

Chroma of natural scenes is smooth, and most of a step's time is spent on the finest feature maps.
So lightness is folded into channels (pixel unshuffle), all convolutions run at a quarter of the
resolution or less, skips are added rather than concatenated, and chroma is unfolded to half the
resolution.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from aiaic.networks.backbone import Backbone, BackboneConfig, Guide, GuidedFeature, register
from aiaic.networks.blocks import ConvBlock, ResidualBlock

_FOLD = 4


@register("compact")
class Compact(Backbone):
    """U-Net with feature maps at 1/4, 1/8 and 1/16 of the picture."""

    def __init__(self, backbone: BackboneConfig) -> None:
        super().__init__()
        widths = (backbone.width, 2 * backbone.width, 3 * backbone.width)
        self.fold = nn.PixelUnshuffle(_FOLD)
        self.down = nn.ModuleList(
            nn.Sequential(ConvBlock(inputs, outputs, stride), ResidualBlock(outputs))
            for inputs, outputs, stride in zip(
                (_FOLD**2, *widths[:-1]), widths, (1, 2, 2), strict=True
            )
        )
        self.lateral = nn.ModuleList(
            nn.Conv2d(deep, fine, 1)
            for deep, fine in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.up = nn.ModuleList(ConvBlock(fine, fine) for fine in widths[-2::-1])
        self.head = nn.Conv2d(widths[0], 2 * 4, 3, padding=1)
        self.unfold = nn.PixelShuffle(2)
        self.guided = tuple(
            GuidedFeature(name, channels)
            for name, channels in zip(("1/16", "1/8", "1/4"), widths[::-1], strict=True)
        )

    def encode(self, L: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        features: list[Tensor] = []
        x = self.fold(L)
        for block in self.down:
            x = block(x)
            features.append(x)
        return features

    def decode(self, features: list[Tensor], guide: Guide) -> Float[Tensor, "b 2 hh ww"]:
        x = guide(0, features[-1])
        skips = features[-2::-1]
        for level, (lateral, up, skip) in enumerate(zip(self.lateral, self.up, skips, strict=True)):
            x = F.interpolate(lateral(x), size=skip.shape[-2:], mode="nearest")
            x = guide(level + 1, up(x + skip))
        return self.unfold(self.head(x).tanh())
