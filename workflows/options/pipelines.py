"""Options of the commands that run other commands."""

import dataclasses
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from workflows.options.base import Command
from workflows.options.fields import (
    Count,
    File,
    Files,
    Folder,
    MaybeFolder,
    MaybeName,
    Name,
    Place,
    Settings,
    Uri,
    Url,
    WorkerRange,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submit(Command):
    """Run a command on a Ray cluster as a job, follow its log, and exit with its exit code.

    Cluster token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.
    """

    command: Positional[
        Annotated[tuple[str, ...], arg(metavar="-- COMMAND ...", help_behavior_hint="")]
    ] = ()
    """Command to run, such as '-- aiaic train --stage all ...'."""
    address: Url = None
    """Dashboard of the cluster. Default: RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265."""
    working_dir: MaybeFolder = None
    """Folder to upload and to run the command in. The job and Ray's workers can import its modules,
    such as a custom backbone. Default: upload nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(Command):
    """Take a public data set from clips to report: prepare, train all stages, evaluate.

    Shards are written to OUT/shards, the run to OUT/run, the report to OUT/run/evaluation.
    Rerunning the command continues where it stopped.
    """

    dataset: Literal["vggsound", "ave"]
    """Data set: the format of its annotations, and the recipe of that name."""
    clips: Place
    """Folder or bucket that contains the clips."""
    annotations: File
    """VGGSound's CSV or AVE's Annotations.txt."""
    out: Place
    """Output folder for shards, run and report."""
    splits: Files = ()
    """AVE's split files (trainSet.txt, valSet.txt, testSet.txt)."""
    recipe: MaybeName = None
    """Recipe to use instead of the data set's own, such as 'ave/paper'."""
    overrides: Settings = ()
    """Override settings by dotted key."""
    train_split: Name = "train"
    """Split to train on."""
    test_split: Name = "test"
    """Split to evaluate."""
    workers: WorkerRange = "1"
    """Ray Train workers: N or MIN:MAX. 0: everything in this process, without Ray."""
    tracking_uri: Uri = None
    """MLflow server or database; 'none' disables tracking. Default: mlflow.db in the current
    folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Run the whole pipeline on a synthetic world with known answers, and write a report.

    Rerunning the command continues where it stopped.
    """

    out: Folder = "outputs/demo"
    """Output folder."""
    seed: Count = 0
    """Seed of the world and of training."""
    clips: Count = 1600
    """Clips in the world, training and test together."""
    workers: Count = 1
    """Ray Train workers."""
    overrides: Settings = ()
    """Override settings of recipe 'compact' by dotted key."""
