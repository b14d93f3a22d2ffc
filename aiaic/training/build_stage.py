"""Stages by number."""

import dataclasses

from aiaic.networks.model import Model
from aiaic.stages.audio_semantics import Stage2
from aiaic.stages.base import Stage
from aiaic.stages.colorization import Stage1, Stage3
from aiaic.training.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """What a stage's batches carry beside the picture to colour."""

    sound: bool
    other_frame: bool


def needs(number: int, recipe: Recipe) -> Needs:
    """What has to be read for a stage."""
    return Needs(sound=number > 1, other_frame=number == 1 and recipe.stage1.scene_view == "frame")


def build(number: int, model: Model, recipe: Recipe) -> Stage:
    """Build a stage around a model, with all that it does not train frozen."""
    if number == 1:
        return Stage1(model, recipe.stage1)
    if number == 2:
        return Stage2(model, recipe.stage2, recipe.augmentation)
    return Stage3(model, recipe.stage3, recipe.augmentation)
