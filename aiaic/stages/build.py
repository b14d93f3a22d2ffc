"""Stages by number."""

from aiaic.networks.model import Model
from aiaic.recipe import Recipe
from aiaic.stages.audio_semantics import Stage2
from aiaic.stages.base import Stage
from aiaic.stages.colorization import Stage1, Stage3

NEEDS_SOUND = {1: False, 2: True, 3: True}
"""Whether a stage's batches carry sound."""


def build(number: int, model: Model, recipe: Recipe) -> Stage:
    """Build a stage around a model, with all that it does not train frozen."""
    if number == 1:
        return Stage1(model, recipe.stage1)
    if number == 2:
        return Stage2(model, recipe.stage2)
    return Stage3(model, recipe.stage3)
