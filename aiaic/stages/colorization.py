"""Stages 1 and 3: a colorizer guided by semantics of the colour picture, then of the sound."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from aiaic import losses
from aiaic.color import AB_SCALE, rgb_to_lab
from aiaic.config import AtLeast1, NonNegative, Positive, Share
from aiaic.loading.augmentation import AugmentationConfig
from aiaic.loading.batch import Batch, Draw
from aiaic.networks.model import Model
from aiaic.stages.base import Function, SoundStage, Stage, StageOutput, uncompiled
from aiaic.stages.condition_dropout import Assigned, assign


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorizationConfig:
    """Settings of stages 1 and 3."""

    steps: AtLeast1
    """Optimizer steps."""
    learning_rate: Positive
    """Peak learning rate."""
    beta: Positive = 2.0
    """Threshold of the Huber colour loss on ab / 110."""
    p_missing: Share = 0.2
    """Share of samples whose semantics are dropped."""
    p_mismatch: Share = 0.1
    """Share of samples that get another video's semantics."""
    relevance_weight: NonNegative = 0.05
    """Weight of the loss that teaches the relevance score."""
    smoothing: Share = 0.05
    """Label smoothing of that loss."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage1Config(ColorizationConfig):
    """Stage 1: colorization with colour-image semantics."""

    steps: AtLeast1 = 1000
    learning_rate: Positive = 1e-3
    scene_view: Literal["same", "crop", "frame"] = "crop"
    """The picture that gives the semantics. ``same``: the one that is coloured; ``crop``: another
    crop of it; ``frame``: a crop of another frame of the clip, where it has several. The less it
    shares with the picture, the less its own colours, which no sound can tell, leak."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage3Config(ColorizationConfig):
    """Stage 3: audio-infused colorization."""

    steps: AtLeast1 = 1000
    learning_rate: Positive = 5e-4
    audio_share: Share = 0.2
    """Share of the learning rate for the audio encoder."""
    from_scratch: bool = False
    """Start from random weights, without stages 1 and 2, to measure what these are worth."""


class ColorizationStage(Stage):
    """The colour loss and the relevance loss, for semantics from any source."""

    settings: ColorizationConfig

    def __init__(
        self,
        model: Model,
        settings: ColorizationConfig,
        trained: Sequence[tuple[nn.Module, float]],
    ) -> None:
        super().__init__(model, trained)
        self.settings = settings
        self.rgb_to_lab = Function(rgb_to_lab)
        self.colour_loss = Function(functools.partial(_colour_loss, beta=settings.beta))

    def tensor_parts(self) -> list[nn.Module]:
        return [self.rgb_to_lab, self.model.colorizer, self.colour_loss]

    def losses(
        self, batch: Batch, assigned: Assigned, *, always_relevant: bool = False
    ) -> StageOutput:
        L, ab = self.rgb_to_lab(batch.picture)
        predicted, logits = self.model.colorizer(
            L,
            assigned.semantics,
            assigned.present,
            always_relevant=always_relevant,
        )
        colour = self.colour_loss(predicted, ab)
        terms = {"colour": colour}
        loss = colour
        if not (always_relevant or self.model.colorizer.always_relevant):
            relevance = losses.relevance(
                logits, assigned.relevant, assigned.present, self.settings.smoothing
            )
            loss = loss + self.settings.relevance_weight * relevance
            terms["relevance"] = relevance
        if assigned.partner_fits is not None:
            terms["partner_fits"] = assigned.partner_fits
        return StageOutput(loss=loss, terms=terms)


class Stage1(ColorizationStage):
    """``E``, ``Es``, ``C`` and ``G`` learn together from colour pictures (arXiv 2401.13270)."""

    def __init__(self, model: Model, settings: Stage1Config) -> None:
        super().__init__(model, settings, [(model.colorizer, 1.0), (model.scene, 1.0)])
        self.scene_view = settings.scene_view
        self.random_view = Function(functools.partial(random_view, size_px=model.scene.size_px))
        # Without mismatched pairs the relevance cannot be learned: it is held at 1.
        self.always_relevant = settings.p_mismatch == 0
        if self.always_relevant:
            model.colorizer.scores().requires_grad_(requires_grad=False)

    def tensor_parts(self) -> list[nn.Module]:
        return [*super().tensor_parts(), self.random_view, self.model.scene.trunk]

    def forward(self, batch: Batch) -> StageOutput:
        assigned = assign(
            self.model.scene(self._scene_picture(batch)),
            _all(batch),
            batch,
            p_missing=self.settings.p_missing,
            p_mismatch=self.settings.p_mismatch,
        )
        return self.losses(batch, assigned, always_relevant=self.always_relevant)

    def _scene_picture(self, batch: Batch) -> Float[Tensor, "b 3 h w"]:
        if self.scene_view == "same":
            return batch.picture.float() / 255
        shown = batch.picture
        if self.scene_view == "frame":
            assert batch.other_picture is not None
            shown = batch.other_picture
        return self.random_view(shown, batch.draws)

    @uncompiled
    def validate(self, batch: Batch) -> StageOutput:
        semantics = self.model.scene(batch.picture.float() / 255)
        own = _own(semantics, _all(batch))
        return self.losses(batch, own, always_relevant=self.always_relevant)


class Stage3(ColorizationStage, SoundStage):
    """Semantics come from sound; the colour picture is no longer used (arXiv 2401.13270)."""

    def __init__(
        self, model: Model, settings: Stage3Config, augmentation: AugmentationConfig
    ) -> None:
        trained = [(model.colorizer, 1.0), (model.audio, settings.audio_share)]
        super().__init__(model, settings, trained)
        self.augmentation = augmentation

    def tensor_parts(self) -> list[nn.Module]:
        return [*super().tensor_parts(), self.model.audio.trunk]

    def forward(self, batch: Batch) -> StageOutput:
        assigned = assign(
            self.encode_sound(batch, augmented=True),
            batch.has_sound,
            batch,
            p_missing=self.settings.p_missing,
            p_mismatch=self.settings.p_mismatch,
        )
        return self.losses(batch, assigned)

    @uncompiled
    def validate(self, batch: Batch) -> StageOutput:
        return self.losses(batch, _own(self.encode_sound(batch, augmented=False), batch.has_sound))


def random_view(
    rgb: UInt8[Tensor, "b 3 h w"], draws: Float[Tensor, "b 19"], size_px: int
) -> Float[Tensor, "b 3 s s"]:
    """Another crop of each picture, in [0, 1]: 60 to 100 % of each side, half of them mirrored."""
    scale = 0.6 + 0.4 * draws[:, Draw.VIEW_SCALE]
    mirror = torch.where(draws[:, Draw.VIEW_FLIP] < 0.5, -1.0, 1.0)
    left = (1 - scale) * (2 * draws[:, Draw.VIEW_X] - 1)
    top = (1 - scale) * (2 * draws[:, Draw.VIEW_Y] - 1)
    # Sampled at twice the size and averaged, since grid_sample by itself would alias.
    count, side = len(rgb), 2 * size_px
    # Not by affine_grid, whose matrix product runs in bf16 under autocast and is off by a pixel.
    centres = torch.linspace(-1, 1, side, device=rgb.device) * (side - 1) / side
    x = (scale * mirror)[:, None] * centres + left[:, None]
    y = scale[:, None] * centres + top[:, None]
    grid = torch.stack(
        (x[:, None, :].expand(count, side, side), y[:, :, None].expand(count, side, side)), -1
    )
    views = F.grid_sample(rgb.float() / 255, grid, padding_mode="reflection", align_corners=False)
    return F.avg_pool2d(views, 2)


def _colour_loss(
    predicted: Float[Tensor, "b 2 h w"], ab: Float[Tensor, "b 2 h w"], *, beta: float
) -> Float[Tensor, " b"]:
    """The colour loss of predicted ``ab / 110``, which may be bf16, against true ``ab``."""
    return losses.colour(predicted.float(), ab / AB_SCALE, beta)


def _all(batch: Batch) -> Bool[Tensor, " b"]:
    return torch.ones_like(batch.has_sound)


def _own(semantics: Float[Tensor, "b d"], available: Bool[Tensor, " b"]) -> Assigned:
    return Assigned(
        semantics=semantics,
        present=available,
        relevant=torch.ones_like(available),
        partner_fits=None,
    )
