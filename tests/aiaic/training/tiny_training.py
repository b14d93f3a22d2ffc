"""Trainings of a second, on the recipe and samples of this folder's neighbours."""

from pathlib import Path
from typing import Any

import torch

from aiaic.checkpointing import checkpoint
from aiaic.loading.loader import Samples
from aiaic.training import loop
from aiaic.training.context import LocalContext
from aiaic.training.recipe import Recipe
from aiaic.training.resume import Init
from aiaic.training.spec import StageSpec
from aiaic.training.trainer import Trainer
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples

CPU = torch.device("cpu")


def spec_of(
    stage: int,
    init: Path | None = None,
    *,
    recipe: Recipe = TINY,
    samples: Samples | None = None,
    device: torch.device = CPU,
) -> StageSpec:
    """A stage on tiny samples, from a checkpoint if it needs one."""
    return StageSpec(
        stage=stage,
        recipe=recipe,
        samples=samples or tiny_samples(32, validation=8),
        init=None if init is None else Init(folder=init, place=str(init)),
        device=device,
    )


def trainer_of(folder: Path, stage: int, init: Path | None = None, **named: Any) -> Trainer:
    """A trainer that saves to a folder; other arguments as of :func:`spec_of`."""
    return Trainer(spec_of(stage, init, **named), LocalContext(folder))


def train(folder: Path, stage: int, init: Path | None = None, **named: Any) -> Path:
    """Train a stage in a folder, and return its last checkpoint."""
    loop.train(spec_of(stage, init, **named), LocalContext(folder))
    return checkpoint.steps(folder)[-1]


def train_all(folder: Path) -> dict[int, Path]:
    """The last checkpoint of each stage, trained one after the other."""
    last: dict[int, Path] = {}
    for stage in (1, 2, 3):
        last[stage] = train(folder / f"stage{stage}", stage, last.get(stage - 1))
    return last
