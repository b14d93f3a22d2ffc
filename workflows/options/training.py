"""Options of the commands that train and search, and that explain what can be set."""

import dataclasses
from typing import Literal

from tyro.conf import Positional

from workflows.options.base import Command
from workflows.options.fields import (
    Count,
    MaybeCount,
    MaybeFile,
    MaybeName,
    MaybePlace,
    Name,
    Place,
    Settings,
    Uri,
    WorkerRange,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipes(Command):
    """List the recipes, or explain every setting of one.

    Settings are overridden by their dotted keys: 'aiaic train --set KEY=VALUE'.
    """

    name: Positional[MaybeName] = None
    """NAME or NAME/VARIANT, such as 'compact/paper'; 'prepare' explains what 'aiaic prepare --set'
    takes. Default: list all recipes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train one stage or all three; rerunning the command resumes.

    Checkpoints are written to OUT/stage1, OUT/stage2 and OUT/stage3.
    """

    stage: Literal["1", "2", "3", "all"]
    """1: colorization with colour-image semantics. 2: audio scene semantics. 3: audio-infused
    colorization. all: each in turn, from the best checkpoint of the one before."""
    shards: Place
    """Shard set to train on."""
    out: Place
    """Run folder; with Ray on several machines it must be shared storage."""
    recipe: MaybeName = None
    """NAME or NAME/VARIANT, such as 'vggsound' or 'compact/paper'; 'aiaic recipes' lists them.
    Default: 'compact'."""
    config: MaybeFile = None
    """JSON file with settings that override the recipe, such as best.json from 'aiaic tune'."""
    overrides: Settings = ()
    """Override settings by dotted key: '--set stage1.steps=100 model.guidance.tau=0.2'.
    'aiaic recipes NAME' explains every key."""
    init: MaybePlace = None
    """Checkpoint of the previous stage. Default: the one in OUT."""
    split: Name = "train"
    """Split to train on; 5 % of its videos are held out to choose the best checkpoint."""
    workers: WorkerRange = "0"
    """Ray Train workers: a number, or a range such as 2:8 to use as many as the cluster has room
    for. 0: train in this process, without Ray."""
    gpu: Literal["auto", "yes", "no"] = "auto"
    """One GPU per Ray worker. auto: if the cluster has enough of them now. Use 'yes' where GPU
    machines are started on demand."""
    profile: bool = False
    """Write a trace of steps 8 to 10 of each stage to OUT/stageN/profile, for Perfetto
    (ui.perfetto.dev) or chrome://tracing."""
    tracking_uri: Uri = None
    """MLflow server or database; 'none' disables tracking. Default: mlflow.db in the current
    folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tune(Command):
    """Search hyperparameters of guidance and learning rates; the result is OUT/best.json.

    Each trial runs stages 2 and 3 from the same stage-1 checkpoint. Rerunning the command continues
    the search.
    """

    shards: Place
    """Shard set to train on."""
    out: Place
    """Search folder: trials, stage-1 checkpoint and best.json."""
    recipe: MaybeName = None
    """Recipe to vary. Default: 'compact'."""
    trials: Count = 16
    """Total number of trials."""
    search: Literal["random", "optuna"] = "random"
    """Search algorithm."""
    init: MaybePlace = None
    """Stage-1 checkpoint. Default: the one in OUT, trained first if there is none."""
    config: MaybeFile = None
    """JSON file with settings that override the recipe."""
    overrides: Settings = ()
    """Override settings in every trial, by dotted key."""
    space: MaybeFile = None
    """Search space: JSON object of dotted keys to {"low", "high", "log"} or {"choices"}. Default:
    guidance, mismatched and missing sounds, and learning rates."""
    steps: MaybeCount = None
    """Steps of stage 2 and of stage 3 per trial. Default: the recipe's."""
    seed: Count = 0
    """Seed of the search."""
    concurrent: MaybeCount = None
    """Trials to run in parallel. Default: one per GPU, or per CPU where there is none."""
    split: Name = "train"
    """Split to train on; the objective is measured on the 5 % of its videos that are held out."""
    tracking_uri: Uri = None
    """MLflow server or database; 'none' disables tracking. Default: mlflow.db in the current
    folder."""
