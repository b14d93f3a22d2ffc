"""Stages 1 and 3: a colorizer guided by the colour picture's semantics, then by the sound's."""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from aiaic import losses
from aiaic.augmentation import AugmentationConfig
from aiaic.batch import Batch, Draw
from aiaic.color import AB_SCALE, rgb_to_lab
from aiaic.networks.model import Model
from aiaic.stages.base import HearingStage, Stage, StageOutput
from aiaic.stages.semantics import Assigned, assign


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorizationConfig:
    """What stages 1 and 3 have in common."""

    steps: int
    """Optimizer steps."""
    learning_rate: float
    """Peak learning rate."""
    beta: float = 2.0
    """Threshold of the Huber colour loss on ab / 110."""
    p_missing: float = 0.2
    """Share of samples whose semantics are dropped."""
    p_mismatch: float = 0.1
    """Share of samples that get another video's semantics."""
    relevance_weight: float = 0.05
    """Weight of the loss that teaches the relevance score."""
    smoothing: float = 0.05
    """Label smoothing of that loss."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage1Config(ColorizationConfig):
    """Stage 1: colorization with colour-image semantics."""

    steps: int = 1000
    learning_rate: float = 1e-3
    scene_view: Literal["same", "crop", "frame"] = "crop"
    """The picture that gives the semantics: the very one, another crop of it, or a crop of another
    frame of the clip (of the same one where there is one alone). The less it shares with the
    picture, the less can the code smuggle this picture's own colours, which no sound can tell."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage3Config(ColorizationConfig):
    """Stage 3: audio-infused colorization."""

    steps: int = 1000
    learning_rate: float = 5e-4
    audio_share: float = 0.2
    """Share of the learning rate for the audio encoder."""
    from_scratch: bool = False
    """Begin without stages 1 and 2, with random weights: to see what these are worth."""


class ColorizationStage(Stage):
    """The colour loss and the relevance loss, whatever the semantics come from."""

    settings: ColorizationConfig

    def losses(
        self, batch: Batch, assigned: Assigned, *, always_relevant: bool = False
    ) -> StageOutput:
        L, ab = rgb_to_lab(batch.picture)
        predicted, logits = self.model.colorizer(
            L,
            assigned.semantics,
            assigned.present,
            always_relevant=always_relevant,
        )
        colour = losses.colour(predicted.float(), ab / AB_SCALE, self.settings.beta)
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
        super().__init__(model, [(model.colorizer, 1.0), (model.scene, 1.0)])
        self.settings = settings
        self.scene_view = settings.scene_view
        # Fitting pairs alone teach the relevance nothing: it is held at 1 (recipe ``paper``).
        self.always_relevant = settings.p_mismatch == 0
        if self.always_relevant:
            model.colorizer.scores().requires_grad_(requires_grad=False)

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
        return random_view(shown.float() / 255, batch, self.model.scene.size_px)

    def validate(self, batch: Batch) -> StageOutput:
        semantics = self.model.scene(batch.picture.float() / 255)
        own = _own(semantics, _all(batch))
        return self.losses(batch, own, always_relevant=self.always_relevant)


class Stage3(ColorizationStage, HearingStage):
    """Sound takes the picture's place; the colour picture is no longer seen (arXiv 2401.13270)."""

    def __init__(
        self, model: Model, settings: Stage3Config, augmentation: AugmentationConfig
    ) -> None:
        super().__init__(model, [(model.colorizer, 1.0), (model.audio, settings.audio_share)])
        self.settings = settings
        self.augmentation = augmentation

    def forward(self, batch: Batch) -> StageOutput:
        assigned = assign(
            self.hear(batch, augmented=True),
            batch.has_sound,
            batch,
            p_missing=self.settings.p_missing,
            p_mismatch=self.settings.p_mismatch,
        )
        return self.losses(batch, assigned)

    def validate(self, batch: Batch) -> StageOutput:
        return self.losses(batch, _own(self.hear(batch, augmented=False), batch.has_sound))


def random_view(
    rgb: Float[Tensor, "b 3 h w"], batch: Batch, size_px: int
) -> Float[Tensor, "b 3 s s"]:
    """Another crop of each picture: 60 to 100 % of each side, perhaps mirrored."""
    scale = 0.6 + 0.4 * batch.draw(Draw.VIEW_SCALE)
    mirror = torch.where(batch.draw(Draw.VIEW_FLIP) < 0.5, -1.0, 1.0)
    theta = rgb.new_zeros(len(rgb), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale * mirror, scale
    theta[:, 0, 2] = (1 - scale) * (2 * batch.draw(Draw.VIEW_X) - 1)
    theta[:, 1, 2] = (1 - scale) * (2 * batch.draw(Draw.VIEW_Y) - 1)
    # Sampled at twice the size and averaged: grid_sample alone would alias.
    grid = F.affine_grid(theta, [len(rgb), 3, 2 * size_px, 2 * size_px], align_corners=False)
    views = F.grid_sample(rgb, grid, padding_mode="reflection", align_corners=False)
    return F.avg_pool2d(views, 2)


def _all(batch: Batch) -> Bool[Tensor, " b"]:
    return torch.ones_like(batch.has_sound)


def _own(semantics: Float[Tensor, "b d"], available: Bool[Tensor, " b"]) -> Assigned:
    return Assigned(
        semantics=semantics,
        present=available,
        relevant=torch.ones_like(available),
        partner_fits=None,
    )
