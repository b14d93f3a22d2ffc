"""The interface of a colorizer's backbone, and the registry of backbones."""

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from aiaic.config import Width
from aiaic.networks.pretrained import State

Guide = Callable[[int, Tensor], Tensor]
"""Guidance as a backbone sees it: (level, features) -> features of the same shape."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which backbone, and how wide."""

    name: str = "compact"
    """``compact``, ``resnet34_unet``, ``convnext_tiny_unet``, or a custom one: ``module:Class``."""
    width: Width = 24
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
    """Turns lightness into chroma; knows only where guidance may be applied.

    ``guided`` lists the feature maps that may be guided, deepest first. :meth:`decode` calls
    ``guide(level, features)`` once for each of them, in that order, and continues with the result.
    """

    guided: tuple[GuidedFeature, ...]

    def load_pretrained(self, state: State) -> None:
        """Load pretrained weights.

        Raises:
            ValueError: they do not fit, or this backbone accepts none.
        """
        del state
        raise ValueError(
            "this backbone accepts no pretrained weights: unset model.backbone.weights"
        )

    @abstractmethod
    def encode(self, L: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        """Features of lightness normalized to [-1, 1], finest first."""

    @abstractmethod
    def decode(self, features: list[Tensor], guide: Guide) -> Float[Tensor, "b 2 hh ww"]:
        """Chroma ``ab / 110`` from features, possibly at a lower resolution than ``L``."""


_BACKBONES: dict[str, Callable[[BackboneConfig], Backbone]] = {}


def register(
    name: str,
) -> Callable[[Callable[[BackboneConfig], Backbone]], Callable[[BackboneConfig], Backbone]]:
    """Decorator that registers a backbone under ``name``.

    Raises:
        ValueError: the name is already registered.
    """

    def add(build: Callable[[BackboneConfig], Backbone]) -> Callable[[BackboneConfig], Backbone]:
        if name in _BACKBONES:
            raise ValueError(f"a backbone named '{name}' is already registered")
        _BACKBONES[name] = build
        return build

    return add


def build(backbone: BackboneConfig) -> Backbone:
    """Build a registered backbone, or a custom one given as ``module:Class``.

    Raises:
        ValueError: no backbone has that name, or the class is not a backbone.
    """
    if ":" in backbone.name:
        return _custom(backbone.name)(backbone)
    if backbone.name not in _BACKBONES:
        known = ", ".join(sorted(_BACKBONES))
        raise ValueError(
            f"unknown backbone '{backbone.name}'; known: {known} "
            "(or module:Class for a custom one, with the module on PYTHONPATH)"
        )
    return _BACKBONES[backbone.name](backbone)


def _custom(name: str) -> Callable[[BackboneConfig], Backbone]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"backbone '{name}': {error}; is it on PYTHONPATH?") from None
    # The name may come from a checkpoint's configuration: only backbones are ever called.
    if not (isinstance(found, type) and issubclass(found, Backbone)):
        raise ValueError(f"backbone '{name}' is not a subclass of aiaic.networks.backbone.Backbone")
    return cast(Callable[[BackboneConfig], Backbone], found)
