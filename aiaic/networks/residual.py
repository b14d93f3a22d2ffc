"""Torchvision's ResNets without statistics that cross samples, for any number of input channels."""

from typing import Literal, cast

from torch import nn
from torchvision.models import ResNet, get_model
from torchvision.ops import FrozenBatchNorm2d

from aiaic.networks import pretrained
from aiaic.networks.blocks import group_norm
from aiaic.networks.pretrained import State

ResNetName = Literal["resnet18", "resnet34"]


def resnet(name: ResNetName, *, frozen_norm: bool, channels: int) -> ResNet:
    """A ResNet with random weights and without its classifier.

    Args:
        name: torchvision's name.
        frozen_norm: use BatchNorm with constant statistics, for pretrained weights that include
            them; otherwise GroupNorm.
        channels: input channels.
    """
    norm = FrozenBatchNorm2d if frozen_norm else group_norm
    model = cast(ResNet, get_model(name, weights=None, norm_layer=norm))
    model.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    if channels != 3:
        model.conv1 = nn.Conv2d(
            channels, model.conv1.out_channels, 7, stride=2, padding=3, bias=False
        )
    return model


def load(model: nn.Module, state: State) -> None:
    """Load torchvision's weights, including the constant statistics of their BatchNorm.

    Raises:
        ValueError: they are of another architecture.
    """
    pretrained.load_trunk(model, state, first="conv1.weight", classifier="fc.")
