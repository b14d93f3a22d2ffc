"""``convnext_tiny_unet``: a ConvNeXt-Tiny encoder with a U-Net decoder (256-128-64-32-16)."""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import ConvNeXt, convnext_tiny

from aiaic.networks import pretrained
from aiaic.networks.backbone import Backbone, BackboneConfig, Guide, register
from aiaic.networks.pretrained import State
from aiaic.networks.unet import UNetDecoder

_STAGES = ((0, 1), (2, 3), (4, 5), (6, 7))  # torchvision's blocks: downsampling, then the stage


@register("convnext_tiny_unet")
class ConvNeXtTinyUNet(Backbone):
    """Torchvision's ConvNeXt-Tiny (Liu et al. 2022), one input channel.

    Its LayerNorm sees one sample at a time, so that the network is the same with and without loaded
    weights. Stochastic depth is off: it would draw from a random state that depends on the worker.
    """

    def __init__(self, backbone: BackboneConfig) -> None:
        super().__init__()
        del backbone  # one size
        trunk = cast(ConvNeXt, convnext_tiny(weights=None, stochastic_depth_prob=0.0))
        self.trunk = cast(nn.Sequential, trunk.features)
        self.trunk[0][0] = nn.Conv2d(1, 96, 4, stride=4)  # pyright: ignore[reportIndexIssue]
        self.decoder = UNetDecoder(768, skips=(384, 192, 96, 0, 0))
        self.guided = self.decoder.guided

    def load_pretrained(self, state: State) -> None:
        named = {name.removeprefix("features."): value for name, value in state.items()}
        pretrained.load_trunk(self.trunk, named, first="0.0.weight", classifier="classifier.")

    def encode(self, L: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        features = [L, L[..., ::2, ::2]]
        x = L
        for blocks in _STAGES:
            for block in blocks:
                x = self.trunk[block](x)
            features.append(x)
        return features

    def decode(self, features: list[Tensor], guide: Guide) -> Float[Tensor, "b 2 hh ww"]:
        return self.decoder(features, guide)
