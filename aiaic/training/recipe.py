"""The whole configuration of a training run."""

import dataclasses

from aiaic.loading.augmentation import AugmentationConfig
from aiaic.loading.sample_reader import ViewConfig
from aiaic.loading.sampler import SamplingConfig
from aiaic.networks.model import ModelConfig
from aiaic.stages.audio_semantics import Stage2Config
from aiaic.stages.colorization import Stage1Config, Stage3Config
from aiaic.training.optim import TrainingConfig

_EVALUATED_AT_ONCE = 64  # keeps a GPU busy, and still splits a small set among many workers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines what a run computes; checkpoints store it as plain JSON."""

    name: str
    """The recipe's name."""
    model: ModelConfig = ModelConfig()
    """All networks."""
    sampling: SamplingConfig = SamplingConfig()
    """Which samples are used at which step."""
    view: ViewConfig = ViewConfig()
    """Which part of a picture the networks see."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Augmentation of sounds in training."""
    stage1: Stage1Config = Stage1Config()
    """Colorization with colour-image semantics."""
    stage2: Stage2Config = Stage2Config()
    """Audio scene semantics."""
    stage3: Stage3Config = Stage3Config()
    """Audio-infused colorization."""
    training: TrainingConfig = TrainingConfig()
    """The training loop."""

    def stage_config(self, number: int) -> Stage1Config | Stage2Config | Stage3Config:
        """The settings of a stage."""
        return (self.stage1, self.stage2, self.stage3)[number - 1]

    @property
    def evaluated_at_once(self) -> int:
        """Samples in a batch of validation: at most the global micro-batch of training."""
        at_once = self.sampling.batch_size // self.training.accumulate
        return max(1, min(_EVALUATED_AT_ONCE, at_once))
