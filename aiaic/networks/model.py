"""The colorizer with its guidance, and the whole model with all encoders."""

import dataclasses
from collections.abc import Iterable
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from aiaic import config
from aiaic.audio import AudioConfig, is_silent
from aiaic.config import Pixels, Width
from aiaic.networks import (  # noqa: F401  (backbones register)
    backbone,
    compact,
    convnext_unet,
    pretrained,
    resnet_unet,
)
from aiaic.networks.backbone import BackboneConfig
from aiaic.networks.encoders import AudioEncoder, EncoderConfig, SceneEncoder
from aiaic.networks.guidance import DynamicSemanticGuidance, GuidanceConfig
from aiaic.networks.pretrained import ReadWeights

_CONSTANT_LOGIT = 30.0  # its sigmoid is 1 in fp32
_NOT_ARCHITECTURE = ("guidance.tau", "guidance.bias", "guidance.eps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All networks of the three stages."""

    backbone: BackboneConfig = BackboneConfig()
    """The colorizer's backbone."""
    guidance: GuidanceConfig = GuidanceConfig()
    """AdaIN and Dynamic Semantic Guidance."""
    scene: EncoderConfig = EncoderConfig()
    """Scene encoder ``Es``."""
    sound: EncoderConfig = EncoderConfig()
    """Audio encoder ``Ea``."""
    audio: AudioConfig = AudioConfig()
    """Audio front end."""
    semantics: Width = 64
    """Dimension of the space of scene semantics."""
    scene_px: Pixels = 64
    """Side of the square picture that the scene encoder sees."""

    def architecture(self) -> dict[str, Any]:
        """The dotted keys that determine names and shapes of weights.

        Of pretrained weights only their presence counts: it decides between frozen BatchNorm and
        GroupNorm.
        """
        keys = config.dotted_keys(config.to_json(self))
        keys |= {key: v is not None for key, v in keys.items() if key.endswith(".weights")}
        return {key: v for key, v in keys.items() if not key.endswith(_NOT_ARCHITECTURE)}


class Colorizer(nn.Module):
    """A backbone with Dynamic Semantic Guidance at some of its levels."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.backbone = backbone.build(model.backbone)
        guidance = model.guidance
        available = len(self.backbone.guided)
        levels = range(available) if guidance.levels == "all" else guidance.levels
        if not levels or not set(levels) <= set(range(available)):
            raise ValueError(
                f"guidance.levels {guidance.levels} must be 'all' or among 0 to {available - 1} "
                f"for backbone '{model.backbone.name}'"
            )
        self.levels = tuple(sorted(set(levels)))
        self.always_relevant = guidance.always_relevant
        self.shared_score = guidance.shared_score
        self.guidance = nn.ModuleDict(
            {
                str(level): DynamicSemanticGuidance(
                    self.backbone.guided[level].channels,
                    model.semantics,
                    guidance,
                    scored=not guidance.always_relevant
                    and not (guidance.shared_score and level != self.levels[0]),
                )
                for level in self.levels
            }
        )

    def scores(self) -> nn.ModuleList:
        """The learned relevance scores of all levels that have their own."""
        guidance = cast(Iterable[DynamicSemanticGuidance], self.guidance.values())
        return nn.ModuleList(level.score for level in guidance if level.score is not None)

    def forward(
        self,
        L: Float[Tensor, "b 1 h w"],
        semantics: Float[Tensor, "b d"],
        present: Bool[Tensor, " b"],
        *,
        always_relevant: bool = False,
    ) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b levels"]]:
        """Predict chroma from lightness and scene semantics.

        Args:
            L: lightness in [0, 100].
            semantics: unit vectors of scene semantics; any values where not present.
            present: whether there are semantics.
            always_relevant: hold the relevance at 1, overriding the configuration.

        Returns:
            ``ab / 110``, and the relevance *logit* at each guided level.
        """
        logits: list[Tensor] = []

        def guide(level: int, x: Tensor) -> Tensor:
            if level not in self.levels:
                return x
            known = None
            if always_relevant or self.always_relevant:
                known = x.new_full(x.shape[:1], _CONSTANT_LOGIT)
            elif self.shared_score and logits:
                known = logits[0]
            x, logit = self.guidance[str(level)](x, semantics, present, known)
            logits.append(logit)
            return x

        ab = self.backbone.decode(self.backbone.encode(L / 50 - 1), guide)
        if ab.shape[-2:] != L.shape[-2:]:
            ab = F.interpolate(ab, size=L.shape[-2:], mode="bilinear", align_corners=False)
        return ab, torch.stack(logits, 1)


class Model(nn.Module):
    """Colorizer, scene encoder and audio encoder: everything that a checkpoint contains."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.config = model
        self.colorizer = Colorizer(model)
        self.scene = SceneEncoder(model.scene, model.semantics, model.scene_px)
        self.audio = AudioEncoder(model.sound, model.audio, model.semantics)

    def encode_sound(
        self, waveform: Float[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b d"], Bool[Tensor, " b"]]:
        """Scene semantics of sounds in [-1, 1], and whether each is loud enough to count."""
        return self.audio(waveform), ~is_silent(waveform)


def build_model(model: ModelConfig, seed: int) -> Model:
    """Build a model with random weights that depend only on ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(model)


def load_pretrained(model: Model, read: ReadWeights = pretrained.read) -> None:
    """Load all pretrained weights that the configuration names, when a run starts.

    Args:
        model: with random weights.
        read: returns the state dict that a name in the configuration stands for.

    Raises:
        ValueError, FileNotFoundError: the weights do not exist, or do not fit.
    """
    parts = {
        "backbone": (model.config.backbone.weights, model.colorizer.backbone),
        "scene": (model.config.scene.weights, model.scene),
        "sound": (model.config.sound.weights, model.audio),
    }
    for name, (weights, part) in parts.items():
        if weights is None:
            continue
        try:
            part.load_pretrained(read(weights))
        except ValueError as error:
            raise ValueError(f"model.{name}.weights = '{weights}': {error}") from None
