"""Building blocks. No statistic crosses samples: GroupNorm everywhere."""

import math

from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with up to 8 groups, as many as divide the channels."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class ConvBlock(nn.Sequential):
    """3x3 convolution, GroupNorm, SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), group_norm(outputs), nn.SiLU()
        )


class ResidualBlock(nn.Module):
    """A ConvBlock with a shortcut around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
