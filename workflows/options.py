"""The commands of ``aiaic`` as typed options; the command line and its help are made from them.

Command ``x`` is carried out by ``run`` of ``workflows/commands/x.py``, which takes the options
below and returns an :class:`Outcome`. This module loads nothing heavy, so that help appears at
once.
"""

import dataclasses
from typing import Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg

Place = Annotated[str, arg(metavar="PLACE")]
MaybePlace = Annotated[str | None, arg(metavar="PLACE", help_behavior_hint="")]
File = Annotated[str, arg(metavar="FILE")]
MaybeFile = Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[str, arg(metavar="DIR")]
MaybeFolder = Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")]
Count = Annotated[int, arg(metavar="N")]
MaybeCount = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
WorkerRange = Annotated[str, arg(metavar="N|MIN:MAX")]
Number = Annotated[float, arg(metavar="X")]
Name = Annotated[str, arg(metavar="NAME")]
MaybeName = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]
Uri = Annotated[str | None, arg(metavar="URI", help_behavior_hint="")]
Settings = Annotated[
    tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="KEY=VALUE ...", name="set")
]
Files = Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="FILE ...")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command found or made."""

    values: dict[str, Any]
    """The result as plain JSON values: what '--json' prints."""
    text: str
    """The same for a person."""
    exit_code: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Options of every command."""

    json: bool = False
    """Print the result as one JSON object on the last line of stdout; all else goes to stderr."""
    debug: bool = False
    """Show the traceback of an error, and what Ray logs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthesize(Command):
    """Make the world with a known answer: short MP4 clips whose colours only their sound tells."""

    out: Folder
    """Folder for the clips, their csv and the truth."""
    clips: Count = 1600
    """Number of clips, training and test together."""
    world: Literal["plain", "hard"] = "plain"
    """plain: 8 classes, two to a scene; hard: 16 classes, four to a scene, at 5 dB of noise, and of
    the training clips a fifth with a sound that does not fit, a fifth without sound."""
    seed: Count = 0
    """Seed of everything drawn; the same seed makes the same world."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(Command):
    """Build shards from clips: colour pictures and mono sound as webdataset tars with a manifest.

    The same command again builds only what is missing or has changed.
    """

    dataset: Literal["vggsound", "ave", "folder"]
    """Whose annotations these are; 'folder' needs none and takes every clip that it finds."""
    clips: Place
    """Where the clips lie: a path, file:// or s3:// URI."""
    out: Place
    """Where the shards go: a path, file:// or s3:// URI."""
    annotations: MaybeFile = None
    """VGGSound's csv or AVE's Annotations.txt."""
    splits: Files = ()
    """AVE's split files (trainSet.txt, valSet.txt, testSet.txt)."""
    size_px: Count = 256
    """Short side of the pictures in pixels; smaller frames are scaled up to it."""
    pictures: Count = 1
    """Pictures taken from each clip, evenly spread over it."""
    frames: Literal["exact", "keyframe"] = "exact"
    """'exact': the frame on screen at that time; 'keyframe': the key frame nearest to it, which is
    faster (where none is near, the exact one)."""
    sound_s: Annotated[float | None, arg(metavar="S", help_behavior_hint="")] = None
    """Seconds of sound, around the middle of the clip; all of it if absent."""
    cut_letterbox: bool = False
    """Cut black bars away."""
    require_sound: bool = False
    """Reject clips without usable sound instead of writing them as such."""
    min_colorfulness: Annotated[float | None, arg(metavar="X", help_behavior_hint="")] = None
    """Reject grey clips: those whose most colourful picture has less (10 is a good start)."""
    min_motion: Annotated[float | None, arg(metavar="X", help_behavior_hint="")] = None
    """Reject still clips: those that change by fewer levels of 255 (1 is a good start)."""
    exclude: Files = ()
    """Lists of clips to leave out, CSV with 'name,reason': a key, video id or file name each."""
    clips_per_shard: Count = 128
    """About how many clips lie in one shard; kept as it is when a data set is continued."""
    keep_leaks: bool = False
    """Keep clips whose video also stands in a more held-out split; dropped if absent."""
    max_rejected_share: Number = 0.2
    """Fail if a larger share of the clips is rejected."""
    overrides: Settings = ()
    """Settings that differ, as dotted keys: '--set media.max_s=1200 media.max_bytes=200000000'."""
    workers: MaybeCount = None
    """Shards that are decoded at the same time; all processors of the cluster if absent; 0: one
    after the other in this process, without Ray."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verify(Command):
    """Prove a shard set against its manifest, and name what is wrong."""

    shards: Place
    """Where the shards lie: a path, file:// or s3:// URI."""
    prune: bool = False
    """Delete the files of earlier builds, if the set is whole. Not while a run still reads them, or
    a build is under way."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect(Command):
    """Show a shard set as a page: counts, labels, times, rejections, and samples with sound."""

    shards: Place
    """Where the shards lie: a path, file:// or s3:// URI."""
    out: Folder
    """Folder for index.html and the sounds beside it."""
    samples: Count = 24
    """Samples on the contact sheet, spread over the labels."""
    seed: Count = 0
    """Seed by which they are drawn; the same seed shows the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duplicates(Command):
    """Find clips that repeat others, exactly or nearly, and list all but one of each to leave out.

    Of clips in several splits the one in test is kept, then the one in val.
    """

    shards: Place
    """Where the shards lie: a path, file:// or s3:// URI."""
    out: Place
    """Exclusion list, for 'aiaic prepare --exclude'; what it lists already stays."""
    max_distance: Count = 8
    """Bits, of 64, in which hashes of one picture may differ: 0 to 16."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train one stage, or all three; the same command again resumes.

    Checkpoints go to OUT/stage1, OUT/stage2 and OUT/stage3.
    """

    stage: Literal["1", "2", "3", "all"]
    """1: colorization with colour-image semantics; 2: audio scene semantics; 3: audio-infused
    colorization; all: one after the other, each from the last one's best checkpoint."""
    shards: Place
    """Where the shards lie: a path, file:// or s3:// URI."""
    out: Place
    """The run's folder: a path, file:// or s3:// URI (shared storage where Ray spans machines)."""
    recipe: MaybeName = None
    """Networks ('compact', the default, 'resnet34_unet', 'convnext_tiny_unet') or data ('vggsound',
    'ave'), alone or as NAME/VARIANT, such as 'compact/paper': see aiaic/recipes.py."""
    config: MaybeFile = None
    """JSON with settings that differ from the recipe's, such as best.json of 'aiaic tune'."""
    overrides: Settings = ()
    """Settings that differ, as dotted keys: '--set stage1.steps=100 model.guidance.tau=0.2'."""
    init: MaybePlace = None
    """Checkpoint of the stage before; OUT's own if absent."""
    split: Name = "train"
    """Split to train on; 5 % of it, by video, are held out to choose the best checkpoint."""
    workers: WorkerRange = "0"
    """Workers of Ray Train, a number or, as 2:8, between two and eight: as many as the cluster has
    room for, from time to time; 0: this process, no Ray."""
    gpu: Literal["auto", "yes", "no"] = "auto"
    """A GPU for each worker of Ray; auto: if the cluster has that many now. Say yes where machines
    with GPUs are started on demand."""
    profile: bool = False
    """Write a trace of steps 8 to 10 of each stage to OUT/stageN/profile, for Perfetto
    (ui.perfetto.dev) or chrome://tracing."""
    tracking_uri: Uri = None
    """MLflow: a server or database; mlflow.db in this folder if absent, 'none' for nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tune(Command):
    """Search hyperparameters of guidance and learning rates; ends in OUT/best.json.

    Each trial runs stages 2 and 3 from one stage-1 checkpoint. The same command again continues.
    """

    shards: Place
    """Where the shards lie: a path, file:// or s3:// URI."""
    out: Place
    """Folder of the search: its trials, its stage-1 checkpoint and best.json."""
    recipe: MaybeName = None
    """The recipe that is varied; 'compact' if absent."""
    trials: Count = 16
    """Number of trials in all."""
    search: Literal["random", "optuna"] = "random"
    """How settings are chosen."""
    init: MaybePlace = None
    """Stage-1 checkpoint; OUT's own if absent, trained first if there is none."""
    config: MaybeFile = None
    """JSON with settings that differ from the recipe's."""
    overrides: Settings = ()
    """Settings that differ in all trials, as dotted keys."""
    space: MaybeFile = None
    """JSON object of dotted keys to {"low", "high", "log"} or {"choices"}; ours if absent."""
    steps: MaybeCount = None
    """Steps of stage 2 and of stage 3 in a trial; the recipe's if absent."""
    seed: Count = 0
    """Seed of the search."""
    concurrent: MaybeCount = None
    """Trials at the same time; one per GPU, or per processor, if absent."""
    split: Name = "train"
    """Split to train on; the objective is measured on the 5 % of it that are held out."""
    tracking_uri: Uri = None
    """MLflow: a server or database; mlflow.db in this folder if absent, 'none' for nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Measure a checkpoint under all sound conditions."""

    shards: Place
    """Where the shards lie: a path, file:// or s3:// URI."""
    checkpoint: Place
    """A checkpoint; a run's folder means its last finished stage."""
    split: Name = "test"
    """Split to evaluate."""
    truth: MaybePlace = None
    """The truth of the synthetic world, or the folder that 'synthesize' wrote."""
    predictions: MaybePlace = None
    """Folder for the predicted 'ab' beside 'L' and the true 'ab', per clip and condition; one that
    all machines share where there are several."""
    out: MaybePlace = None
    """Folder for report.json and report.html."""
    limit: MaybeCount = None
    """Evaluate only so many clips."""
    protocol: Literal["center_crop", "resize"] = "center_crop"
    """How a picture is made square: its centre, or all of it with its sides squeezed."""
    size_px: MaybeCount = None
    """Side of the square, a multiple of 32; the one trained on if absent."""
    videos: MaybePlace = None
    """A colour video, or a folder of them, to colour anew by their own sound: PSNR and flicker."""
    lpips_weights: MaybePlace = None
    """torchvision's AlexNet for LPIPS, .safetensors or .pth."""
    inception_weights: MaybePlace = None
    """The InceptionV3 of torch-fidelity or pytorch-fid for FID and KID, .safetensors or .pth."""
    workers: Count = 0
    """Workers of Ray, with one GPU each where there are GPUs; 0: this process, without Ray. The
    result is the same on any number of them (of one kind of processor)."""
    tracking_uri: Uri = None
    """MLflow of the run that made the checkpoint; 'none' for nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorize(Command):
    """Colour a picture, a video by its own sound, or a folder of both."""

    input: Positional[Annotated[str, arg(metavar="INPUT")]]
    """A picture (PNG, JPEG, WebP, TIFF; grey or colour), a video, or a folder of them."""
    checkpoint: Place
    """A checkpoint; a run's folder means its last finished stage."""
    out: Place
    """The coloured picture or video (mp4, mov, mkv), or a folder. A picture's name for a video
    means its middle frame."""
    audio: MaybeFile = None
    """Sound that belongs to the picture; without it the colours follow from the grey alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Make a model to take away: weights, record and card, and ONNX files that need no PyTorch.

    Every command that takes a checkpoint takes what this one writes.
    """

    checkpoint: Place
    """A checkpoint; a run's folder means its last finished stage."""
    out: Place
    """Folder for it: a path, file:// or s3:// URI; an earlier export there is replaced."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submit(Command):
    """Run a command on a Ray cluster as a job, follow its log, and leave with its exit code.

    A token for the cluster is taken from RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or
    RAY_AUTH_TOKEN_PATH.
    """

    command: Positional[
        Annotated[tuple[str, ...], arg(metavar="-- COMMAND ...", help_behavior_hint="")]
    ] = ()
    """What to run, e.g. '-- aiaic train --stage all ...'."""
    address: Annotated[str | None, arg(metavar="URL", help_behavior_hint="")] = None
    """The cluster's dashboard; RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265, if absent."""
    working_dir: MaybeFolder = None
    """Folder that is sent along and in which the command runs; its modules, such as a backbone of
    your own, are found there and by Ray's workers. Nothing is sent if absent."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(Command):
    """A public data set from its clips to the report: prepare, train all stages, evaluate.

    Shards go to OUT/shards, the run to OUT/run, the report to OUT/run/evaluation. The same command
    again goes on where it stopped.
    """

    dataset: Literal["vggsound", "ave"]
    """Whose annotations these are, and the recipe's name."""
    clips: Place
    """Where the clips lie: a path, file:// or s3:// URI."""
    annotations: File
    """VGGSound's csv or AVE's Annotations.txt."""
    out: Place
    """Folder of everything that is made: a path, file:// or s3:// URI."""
    splits: Files = ()
    """AVE's split files (trainSet.txt, valSet.txt, testSet.txt)."""
    recipe: MaybeName = None
    """Another recipe than the data set's own, such as 'ave/paper'."""
    overrides: Settings = ()
    """Settings that differ, as dotted keys."""
    train_split: Name = "train"
    """Split to train on."""
    test_split: Name = "test"
    """Split to evaluate."""
    workers: WorkerRange = "1"
    """Workers of Ray Train, N or MIN:MAX; 0: everything in this process, without Ray."""
    tracking_uri: Uri = None
    """MLflow: a server or database; mlflow.db in this folder if absent, 'none' for nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """The whole chain on a world with a known answer; ends in a report to look at.

    The same command again continues where it stopped.
    """

    out: Folder = "outputs/demo"
    """Folder for everything that the demo makes."""
    seed: Count = 0
    """Seed of the world and of training."""
    clips: Count = 1600
    """Clips in the world, training and test together."""
    workers: Count = 1
    """Workers of Ray Train."""
    overrides: Settings = ()
    """Settings that differ from recipe compact, as dotted keys."""


COMMANDS: dict[str, type[Command]] = {
    "synthesize": Synthesize,
    "prepare": Prepare,
    "verify": Verify,
    "inspect": Inspect,
    "duplicates": Duplicates,
    "train": Train,
    "tune": Tune,
    "evaluate": Evaluate,
    "colorize": Colorize,
    "export": Export,
    "submit": Submit,
    "reproduce": Reproduce,
    "demo": Demo,
}


def flat(groups: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """The values of a flag that may take several and may be repeated."""
    return tuple(value for group in groups for value in group)
