"""The whole configuration of a training run."""

import dataclasses

from aiaic.loading.augmentation import AugmentationConfig
from aiaic.loading.loader import ViewConfig
from aiaic.loading.sampler import SamplingConfig
from aiaic.networks.model import ModelConfig
from aiaic.stages.audio_semantics import Stage2Config
from aiaic.stages.colorization import Stage1Config, Stage3Config
from aiaic.training.optim import TrainingConfig

_EVALUATED_AT_ONCE = 64  # enough to keep a GPU busy, and few enough that many share a small set


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a run computes; checkpoints carry it as plain JSON."""

    name: str
    """The recipe's name."""
    model: ModelConfig = ModelConfig()
    """All networks."""
    sampling: SamplingConfig = SamplingConfig()
    """Which samples at which step."""
    view: ViewConfig = ViewConfig()
    """What is shown of a picture."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """What training does to sounds."""
    stage1: Stage1Config = Stage1Config()
    """Colorization with colour-image semantics."""
    stage2: Stage2Config = Stage2Config()
    """Audio scene semantics."""
    stage3: Stage3Config = Stage3Config()
    """Audio-infused colorization."""
    training: TrainingConfig = TrainingConfig()
    """The loop."""

    def __post_init__(self) -> None:
        for name in ("stage1", "stage2", "stage3"):
            if getattr(self, name).steps < 1:
                raise ValueError(f"{name}.steps counts: give 1 or more")

    @property
    def evaluated_at_once(self) -> int:
        """Samples of a batch that is not learned from: all workers' micro-batch at most."""
        at_once = self.sampling.batch_size // self.training.accumulate
        return max(1, min(_EVALUATED_AT_ONCE, at_once))
