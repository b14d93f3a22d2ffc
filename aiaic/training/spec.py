"""One stage to train, as plain parameters."""

import dataclasses

import torch

from aiaic.loading.loader import Samples
from aiaic.networks import pretrained
from aiaic.networks.pretrained import ReadWeights
from aiaic.training.recipe import Recipe
from aiaic.training.resume import Init


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage to train: its settings, what it learns from, and where."""

    stage: int
    """1, 2 or 3."""
    recipe: Recipe
    samples: Samples
    init: Init | None = None
    """The previous stage's checkpoint; stages 2 and 3 need one unless they start from scratch."""
    device: torch.device
    read_weights: ReadWeights = pretrained.read
    """Returns the pretrained weights that the recipe names, when a run starts."""
    started_unix_s: float | None = None
    """When the stage was first started; None: now."""
