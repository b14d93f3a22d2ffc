"""``resnet34_unet``: a ResNet-34 encoder with a U-Net decoder (widths 256-128-64-32-16)."""

from jaxtyping import Float
from torch import Tensor

from aiaic.networks import residual
from aiaic.networks.backbone import Backbone, BackboneConfig, Guide, register
from aiaic.networks.pretrained import State
from aiaic.networks.unet import UNetDecoder


@register("resnet34_unet")
class ResNet34UNet(Backbone):
    """Torchvision's ResNet-34, one input channel, with GroupNorm or frozen BatchNorm."""

    def __init__(self, backbone: BackboneConfig) -> None:
        super().__init__()
        self.trunk = residual.resnet(
            "resnet34", frozen_norm=backbone.weights is not None, channels=1
        )
        self.decoder = UNetDecoder(512, skips=(256, 128, 64, 64, 0))
        self.guided = self.decoder.guided

    def load_pretrained(self, state: State) -> None:
        residual.load(self.trunk, state)

    def encode(self, L: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        trunk = self.trunk
        features = [L, trunk.relu(trunk.bn1(trunk.conv1(L)))]
        x = trunk.maxpool(features[-1])
        for layer in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
            x = layer(x)
            features.append(x)
        return features

    def decode(self, features: list[Tensor], guide: Guide) -> Float[Tensor, "b 2 hh ww"]:
        return self.decoder(features, guide)
