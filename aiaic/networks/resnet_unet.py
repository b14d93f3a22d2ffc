"""``resnet34_unet``: a ResNet-34 encoder with a U-Net decoder (widths 256-128-64-32-16)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from aiaic.networks.backbone import Backbone, BackboneConfig, Guide, GuidedFeature, register
from aiaic.networks.blocks import ConvBlock
from aiaic.networks.residual import resnet

_DECODER_WIDTHS = (256, 128, 64, 32, 16)


@register("resnet34_unet")
class ResNet34UNet(Backbone):
    """Torchvision's ResNet-34, one input channel, with GroupNorm or frozen BatchNorm."""

    def __init__(self, backbone: BackboneConfig) -> None:
        super().__init__()
        trunk = resnet("resnet34", weights=backbone.weights, channels=1)
        self.stem = nn.Sequential(trunk.conv1, trunk.bn1, trunk.relu)
        self.pool = trunk.maxpool
        self.layers = nn.ModuleList((trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4))
        skips = (256, 128, 64, 64, 0)
        inputs = (512, *_DECODER_WIDTHS[:-1])
        self.up = nn.ModuleList(
            nn.Sequential(ConvBlock(deep + skip, width), ConvBlock(width, width))
            for deep, skip, width in zip(inputs, skips, _DECODER_WIDTHS, strict=True)
        )
        self.head = nn.Conv2d(_DECODER_WIDTHS[-1], 2, 3, padding=1)
        channels = (512, *_DECODER_WIDTHS[:3])
        self.guided = tuple(
            GuidedFeature(f"1/{2 ** (5 - level)}", width) for level, width in enumerate(channels)
        )

    def encode(self, L: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        features = [L, self.stem(L)]
        x = self.pool(features[-1])
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features

    def decode(self, features: list[Tensor], guide: Guide) -> Float[Tensor, "b 2 hh ww"]:
        x = guide(0, features[-1])
        for level, (up, skip) in enumerate(zip(self.up, features[-2::-1], strict=True), start=1):
            x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = up(torch.cat((x, skip), 1) if level < len(self.up) else x)
            if level < len(self.guided):
                x = guide(level, x)
        return torch.tanh(self.head(x))
