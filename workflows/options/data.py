"""Options of the commands that make, check and show shards."""

import dataclasses
from typing import Literal

from workflows.options.base import Command
from workflows.options.fields import (
    Count,
    Files,
    Folder,
    MaybeCount,
    MaybeFile,
    MaybeNumber,
    MaybeSeconds,
    Number,
    Place,
    Settings,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthesize(Command):
    """Make a synthetic world with known answers: MP4 clips whose colours only their sound reveals.

    The true colours are written beside the clips, for 'aiaic evaluate --truth'.
    """

    out: Folder
    """Output folder for the clips, their CSV and the truth."""
    clips: Count = 1600
    """Number of clips, training and test together."""
    world: Literal["plain", "hard"] = "plain"
    """plain: 8 classes, two per scene. hard: 16 classes, four per scene, with noise at 5 dB; a
    fifth of the training clips have an unrelated sound, another fifth none."""
    seed: Count = 0
    """Random seed; the same seed gives the same world."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(Command):
    """Build shards from clips: colour pictures and mono sound as webdataset tars, with a manifest.

    Rerunning the command builds only what is missing or has changed.
    """

    dataset: Literal["vggsound", "ave", "folder"]
    """Format of the annotations; 'folder' needs none and takes every clip it finds."""
    clips: Place
    """Folder or bucket that contains the clips."""
    out: Place
    """Where to write the shards."""
    annotations: MaybeFile = None
    """VGGSound's CSV or AVE's Annotations.txt."""
    splits: Files = ()
    """AVE's split files (trainSet.txt, valSet.txt, testSet.txt)."""
    size_px: Count = 256
    """Short side of the pictures, in pixels; smaller frames are scaled up."""
    pictures: Count = 1
    """Pictures per clip, evenly spaced in time."""
    frames: Literal["exact", "keyframe"] = "exact"
    """exact: the frame shown at the requested time. keyframe: the nearest key frame, which is
    faster to decode (the exact frame where no key frame is near)."""
    sound_s: MaybeSeconds = None
    """Seconds of sound to keep, around the middle of the clip. Default: all of it."""
    cut_letterbox: bool = False
    """Crop black bars."""
    require_sound: bool = False
    """Reject clips without usable sound; otherwise they are written without it."""
    min_colorfulness: MaybeNumber = None
    """Reject grey clips, whose most colourful picture scores below this (try 10)."""
    min_motion: MaybeNumber = None
    """Reject still clips, which change by fewer than this many levels out of 255 (try 1)."""
    exclude: Files = ()
    """Clips to leave out: CSV files with columns 'name,reason', where a name is a key, a video id
    or a file name."""
    clips_per_shard: Count = 128
    """Approximate clips per shard. An existing shard set keeps its own value."""
    keep_leaks: bool = False
    """Keep clips whose video also appears in a more held-out split; by default they are dropped."""
    max_rejected_share: Number = 0.2
    """Fail if a larger share of the clips is rejected."""
    overrides: Settings = ()
    """Override settings by dotted key: '--set media.max_s=1200 media.max_bytes=200000000'."""
    workers: MaybeCount = None
    """Shards to build in parallel. Default: one per CPU of the cluster. 0: one at a time in this
    process, without Ray."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verify(Command):
    """Check every byte of a shard set against its manifest and report what is wrong."""

    shards: Place
    """Shard set to check."""
    prune: bool = False
    """If the set is intact, delete files of earlier builds. Do not use while a run still reads
    them or a build is in progress."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect(Command):
    """Show a shard set as a web page: counts, labels, times, rejections, samples with sound."""

    shards: Place
    """Shard set to show."""
    out: Folder
    """Output folder for index.html and its sounds."""
    samples: Count = 24
    """Samples on the contact sheet, spread over the labels."""
    seed: Count = 0
    """Seed for choosing the samples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duplicates(Command):
    """Find exact and near duplicates among the clips, and list all but one of each for exclusion.

    Of duplicates in several splits, the one in 'test' is kept, then the one in 'val'.
    """

    shards: Place
    """Shard set to search."""
    out: Place
    """Exclusion list for 'aiaic prepare --exclude'. Existing entries are kept."""
    max_distance: Count = 8
    """Largest number of differing bits (of 64) between hashes of the same picture: 0 to 16."""
