"""What a colorizer's backbone offers, and how one is found by name."""

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from aiaic.networks.pretrained import State

Guide = Callable[[int, Tensor], Tensor]
"""Guidance as a backbone sees it: (level, features) -> features of the same shape."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which backbone, and how wide."""

    name: str = "compact"
    """``compact``, ``resnet34_unet``, ``convnext_tiny_unet``, or a custom one: ``module:Class``."""
    width: int = 24
    """Channels of the finest feature map (``compact``)."""
    weights: str | None = None
    """Pretrained weights: a path or URI of a state dict (.safetensors, .pth), or a torchvision enum
    such as ``ResNet34_Weights.IMAGENET1K_V1``; None: random. A run reads them once, at its start;
    its checkpoints do not need them."""


@dataclasses.dataclass(frozen=True)
class GuidedFeature:
    """A feature map that may be guided."""

    name: str
    channels: int


class Backbone(nn.Module, ABC):
    """Turns lightness into chroma; knows nothing of guidance but where it may be put.

    ``guided`` lists the feature maps that may be guided, the deepest first. :meth:`decode` calls
    ``guide(level, features)`` once for each of them, in that order, and goes on with the result.
    """

    guided: tuple[GuidedFeature, ...]

    def load_pretrained(self, state: State) -> None:
        """Take over pretrained weights.

        Raises:
            ValueError: they do not fit, or this backbone takes none.
        """
        del state
        raise ValueError("this backbone takes no pretrained weights: unset model.backbone.weights")

    @abstractmethod
    def encode(self, L: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        """Features of lightness normalized to [-1, 1], the finest first."""

    @abstractmethod
    def decode(self, features: list[Tensor], guide: Guide) -> Float[Tensor, "b 2 hh ww"]:
        """Chroma ``ab / 110`` from features, possibly at a lower resolution than ``L``."""


_BACKBONES: dict[str, Callable[[BackboneConfig], Backbone]] = {}


def register(
    name: str,
) -> Callable[[Callable[[BackboneConfig], Backbone]], Callable[[BackboneConfig], Backbone]]:
    """Decorator that makes a backbone known by ``name``.

    Raises:
        ValueError: the name is taken.
    """

    def add(build: Callable[[BackboneConfig], Backbone]) -> Callable[[BackboneConfig], Backbone]:
        if name in _BACKBONES:
            raise ValueError(f"a backbone named '{name}' is registered already")
        _BACKBONES[name] = build
        return build

    return add


def build(backbone: BackboneConfig) -> Backbone:
    """Build a registered backbone, or one's own by ``module:Class``.

    Raises:
        ValueError: no backbone has that name, or the class is no backbone.
    """
    if ":" in backbone.name:
        return _own(backbone.name)(backbone)
    if backbone.name not in _BACKBONES:
        known = ", ".join(sorted(_BACKBONES))
        raise ValueError(
            f"unknown backbone '{backbone.name}'; known: {known} "
            "(one's own: module:Class, with the module on PYTHONPATH)"
        )
    return _BACKBONES[backbone.name](backbone)


def _own(name: str) -> Callable[[BackboneConfig], Backbone]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"backbone '{name}': {error}; is it on PYTHONPATH?") from None
    # A name may come from a checkpoint's configuration: nothing but a backbone is ever called.
    if not (isinstance(found, type) and issubclass(found, Backbone)):
        raise ValueError(f"backbone '{name}' is no subclass of aiaic.networks.backbone.Backbone")
    return cast(Callable[[BackboneConfig], Backbone], found)
