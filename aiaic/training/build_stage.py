"""What the loop needs to know of each stage by its number: how to build it, and what it reads."""

import dataclasses
from collections.abc import Sequence

from aiaic.loading.sampler import SampleRef
from aiaic.networks.model import Model
from aiaic.stages.audio_semantics import Stage2
from aiaic.stages.base import Stage
from aiaic.stages.colorization import Stage1, Stage3
from aiaic.training.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """What a stage reads besides the picture to colorize."""

    sound: bool
    """Whether batches contain sound."""
    sound_only: bool
    """Whether samples without sound are left out."""
    other_frame: bool
    """Whether batches contain another frame of each clip."""

    def usable(self, samples: Sequence[SampleRef]) -> tuple[SampleRef, ...]:
        """The samples that the stage can use."""
        return tuple(s for s in samples if s.sound is not None or not self.sound_only)


def needs(number: int, recipe: Recipe) -> Needs:
    """What a stage reads."""
    return Needs(
        sound=number > 1,
        sound_only=number == 2,
        other_frame=number == 1 and recipe.stage1.scene_view == "frame",
    )


def build(number: int, model: Model, recipe: Recipe) -> Stage:
    """Build a stage around a model; the parts that it does not train are frozen."""
    if number == 1:
        return Stage1(model, recipe.stage1)
    if number == 2:
        return Stage2(model, recipe.stage2, recipe.augmentation)
    return Stage3(model, recipe.stage3, recipe.augmentation)
