"""Options of the commands that use a trained model."""

import dataclasses
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from workflows.options.base import Command
from workflows.options.fields import Count, MaybeCount, MaybeFile, MaybePlace, Name, Place, Uri


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Measure a checkpoint under every sound condition, with 95 % intervals.

    Conditions: the clip's own sound, none, silence, noise, and sounds that do not fit.
    """

    shards: Place
    """Shard set to evaluate on."""
    checkpoint: Place
    """Checkpoint, export, or run folder (its last finished stage)."""
    split: Name = "test"
    """Split to evaluate."""
    truth: MaybePlace = None
    """Truth of a synthetic world: its file, or the folder that 'aiaic synthesize' wrote."""
    predictions: MaybePlace = None
    """Folder for predicted 'ab', input 'L' and true 'ab' per clip and condition; with several
    machines it must be shared storage."""
    out: MaybePlace = None
    """Folder for report.json and report.html."""
    limit: MaybeCount = None
    """Evaluate at most this many clips."""
    protocol: Literal["center_crop", "resize"] = "center_crop"
    """How pictures become square: crop the centre, or resize both sides."""
    size_px: MaybeCount = None
    """Side of the square, a multiple of 32. Default: the size trained on."""
    videos: MaybePlace = None
    """Colour video or folder of videos to recolour by their own sound: PSNR and flicker."""
    lpips_weights: MaybePlace = None
    """torchvision's AlexNet weights for LPIPS (.safetensors or .pth)."""
    inception_weights: MaybePlace = None
    """InceptionV3 weights of torch-fidelity or pytorch-fid for FID and KID (.safetensors or
    .pth)."""
    workers: Count = 0
    """Ray workers, each with a GPU where there are GPUs. 0: this process, without Ray. The result
    does not depend on the number of workers (given one kind of processor)."""
    tracking_uri: Uri = None
    """MLflow server or database of the run that made the checkpoint; 'none' disables tracking."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colorize(Command):
    """Colour a picture, a video by its own sound, or a folder of both."""

    input: Positional[Annotated[str, arg(metavar="INPUT")]]
    """Picture (PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF; grey or colour), video, or folder of
    them."""
    checkpoint: Place
    """Checkpoint, export, or run folder (its last finished stage)."""
    out: Place
    """Output picture, video (mp4, mov or mkv) or folder. With a video as INPUT, a picture's name
    selects its middle frame."""
    audio: MaybeFile = None
    """Sound that belongs to the picture. Without it, colours are predicted from the picture
    alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Export a model: weights, training record, model card, and ONNX files that need no PyTorch.

    Every command that takes a checkpoint also takes an export.
    """

    checkpoint: Place
    """Checkpoint or run folder (its last finished stage)."""
    out: Place
    """Output folder; an earlier export there is replaced."""
