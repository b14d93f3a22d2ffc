"""Stage 2: the audio encoder learns to predict the scene semantics of the picture."""

import dataclasses
import math

import torch
from torch import Tensor, nn

from aiaic import losses
from aiaic.config import AtLeast1, NonNegative, Positive
from aiaic.distributed import gather
from aiaic.loading.augmentation import AugmentationConfig
from aiaic.loading.batch import Batch
from aiaic.networks.model import Model
from aiaic.stages.base import SoundStage, StageOutput, uncompiled

_MAX_SCALE = 100.0  # as in CLIP: a lower temperature makes training unstable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage2Config:
    """Stage 2: audio scene semantics."""

    steps: AtLeast1 = 600
    """Optimizer steps."""
    learning_rate: Positive = 1e-3
    """Peak learning rate."""
    distillation_weight: NonNegative = 1.0
    """Weight of the cosine distance to the picture's semantics."""
    info_nce_weight: NonNegative = 0.2
    """Weight of the contrastive loss."""
    temperature: Positive = 0.1
    """Initial temperature of the contrastive loss; it is learned."""


class Stage2(SoundStage):
    """``Ea`` learns ``f_a -> f_v`` of the same clip, with ``Es`` frozen (arXiv 2401.13270).

    The losses, cosine distillation plus symmetric InfoNCE over the global batch, are ours.
    """

    def __init__(
        self, model: Model, settings: Stage2Config, augmentation: AugmentationConfig
    ) -> None:
        temperature = _InverseTemperature(settings.temperature)
        super().__init__(model, [(model.audio, 1.0), (temperature, 1.0)])
        self.inverse_temperature = temperature
        self.settings = settings
        self.augmentation = augmentation

    def tensor_parts(self) -> list[nn.Module]:
        return [self.model.scene.trunk, self.model.audio.trunk]

    def forward(self, batch: Batch) -> StageOutput:
        audio, scene = self._embed(batch, augmented=True)
        return self._losses(
            audio, scene, gather(audio, batch), gather(scene, batch),
            gather(batch.video, batch), batch.position,
        )  # fmt: skip

    @uncompiled
    def validate(self, batch: Batch) -> StageOutput:
        audio, scene = self._embed(batch, augmented=False)
        own = torch.arange(len(audio), device=audio.device)
        return self._losses(audio, scene, audio, scene, batch.video, own)

    def _embed(self, batch: Batch, *, augmented: bool) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            scene = self.model.scene(batch.picture.float() / 255)
        return self.encode_sound(batch, augmented=augmented), scene

    def _losses(
        self, audio: Tensor, scene: Tensor, all_audio: Tensor, all_scene: Tensor,
        all_video: Tensor, own: Tensor,
    ) -> StageOutput:  # fmt: skip
        distillation = losses.distillation(audio, scene)
        contrast = losses.info_nce(all_audio, all_scene, all_video, own, self.inverse_temperature())
        loss = (
            self.settings.distillation_weight * distillation
            + self.settings.info_nce_weight * contrast
        )
        return StageOutput(loss=loss, terms={"distillation": distillation, "info_nce": contrast})


class _InverseTemperature(nn.Module):
    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self) -> Tensor:
        return self.log_scale.exp().clamp_max(_MAX_SCALE)
