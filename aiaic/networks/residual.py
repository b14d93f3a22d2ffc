"""Torchvision's ResNets without statistics that cross samples, for any number of input channels."""

from pathlib import Path
from typing import Literal, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet, get_model, get_weight
from torchvision.ops import FrozenBatchNorm2d

from aiaic.networks.blocks import group_norm

ResNetName = Literal["resnet18", "resnet34"]


def resnet(name: ResNetName, *, weights: str | None, channels: int) -> ResNet:
    """A ResNet with its classifier removed.

    Args:
        name: torchvision's name.
        weights: a path of a safetensors file, or a torchvision enum; with weights BatchNorm keeps
            the loaded statistics for good, without it is replaced by GroupNorm.
        channels: input channels; loaded filters for colour are summed over colours for one.

    Raises:
        ValueError: the weights do not fit the architecture, or the enum is unknown.
        FileNotFoundError: there is no file of that name.
    """
    norm = group_norm if weights is None else FrozenBatchNorm2d
    model = cast(ResNet, get_model(name, weights=None, norm_layer=norm))
    model.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    if weights is not None:
        _load(model, weights)
    if channels != 3:
        model.conv1 = _with_channels(
            cast(nn.Conv2d, model.conv1), channels, loaded=weights is not None
        )
    return model


def _load(model: ResNet, weights: str) -> None:
    state = _read(weights)
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    state = {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"weights '{weights}' do not fit: {error}") from None


def _read(weights: str) -> dict[str, Tensor]:
    if weights.endswith(".safetensors"):
        if not Path(weights).is_file():
            raise FileNotFoundError(f"no weights at '{weights}'")
        return load_file(weights)
    return dict(get_weight(weights).get_state_dict(progress=False, check_hash=True))


def _with_channels(conv: nn.Conv2d, channels: int, *, loaded: bool) -> nn.Conv2d:
    first = nn.Conv2d(channels, conv.out_channels, 7, stride=2, padding=3, bias=False)
    if loaded:
        with torch.no_grad():
            first.weight.copy_(conv.weight.sum(1, keepdim=True).expand_as(first.weight) / channels)
    return first
