"""Chooses the sound that each clip is evaluated with, given the clips and a seed."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

MATCHED = "matched"
MISSING = "missing"
SILENT = "silent"
MISMATCHED = "mismatched"
SWAPPED = "swapped"
IMAGE = "image"
NOISY_SNR_DB: dict[str, float] = {"noisy_10db": 10.0, "noisy_0db": 0.0}
CONDITIONS = (MATCHED, MISSING, SILENT, MISMATCHED, SWAPPED, IMAGE, *NOISY_SNR_DB)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """What is known of the clips of a synthetic world; only evaluation may see it."""

    class_by_key: Mapping[str, str]
    """Class of each clip's scene."""
    appearance_by_key: Mapping[str, str]
    """Its grey appearance; classes of the same appearance are siblings."""
    fits_by_key: Mapping[str, bool]
    """Whether the clip's own sound belongs to its class."""
    rendering: Callable[[str, str], NDArray[np.uint8]]
    """(key, class) -> the clip's scene in the mean colours of a sibling class, sRGB [h w 3]."""

    @functools.cached_property
    def siblings(self) -> dict[str, tuple[str, ...]]:
        """All classes of each appearance, sorted."""
        classes: dict[str, set[str]] = {}
        for key, appearance in self.appearance_by_key.items():
            classes.setdefault(appearance, set()).add(self.class_by_key[key])
        return {appearance: tuple(sorted(found)) for appearance, found in classes.items()}

    def require(self, keys: Sequence[str]) -> None:
        """Check that the ground truth covers clips.

        Raises:
            ValueError: it does not know one of them.
        """
        for key in keys:
            if not all(
                key in column
                for column in (self.class_by_key, self.appearance_by_key, self.fits_by_key)
            ):
                raise ValueError(
                    f"the ground truth does not know clip '{key}': give that of the same world"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """What the choice of sounds depends on."""

    key: str
    video: int
    """Hash of its video's id."""
    has_sound: bool
    """Whether it has usable sound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sounds:
    """The clip whose sound each clip is evaluated with, by condition."""

    fitting: frozenset[str]
    """Clips whose own sound is usable and fits; without ground truth, every usable sound counts as
    fitting. Only these clips provide sounds, and only these are evaluated with a sound."""
    mismatched: Mapping[str, str]
    """For fitting clips, a clip whose sound does not fit, if there is one."""
    swapped: Mapping[str, str]
    """For fitting clips, a clip of a sibling class, if there is one. Needs ground truth."""


def choose(
    clips: Sequence[Clip], *, seed: int, truth: GroundTruth | None, labels: Mapping[str, str] | None
) -> Sounds:
    """Choose the sound partners of all clips.

    A clip's partners depend on the seed and the set of clips, not on their order. A mismatched
    sound is that of another video and, with ground truth, of another appearance (so that it is
    known to be wrong), or else, with labels, of another label.

    Args:
        clips: all evaluated clips.
        seed: seed of the choice.
        truth: ground truth of a synthetic world.
        labels: label of each clip by key.
    """
    fitting = [
        clip
        for clip in sorted(clips, key=lambda clip: clip.key)
        if clip.has_sound and (truth is None or truth.fits_by_key[clip.key])
    ]
    order = np.random.default_rng(seed).permutation(len(fitting))
    donors = [fitting[i] for i in order]

    def wrong(clip: Clip, donor: Clip) -> bool:
        if donor.video == clip.video:
            return False
        if truth is not None:
            return truth.appearance_by_key[donor.key] != truth.appearance_by_key[clip.key]
        if labels is None:
            return True
        # Without a label it is unknown what does not fit.
        return "" not in (labels[donor.key], labels[clip.key]) and (
            labels[donor.key] != labels[clip.key]
        )

    def sibling(clip: Clip, donor: Clip) -> bool:
        assert truth is not None
        same = truth.appearance_by_key[donor.key] == truth.appearance_by_key[clip.key]
        return same and truth.class_by_key[donor.key] != truth.class_by_key[clip.key]

    kinds = labels if truth is None else truth.appearance_by_key
    all_fit = kinds is not None and len({kinds[clip.key] for clip in fitting}) < 2
    return Sounds(
        fitting=frozenset(clip.key for clip in fitting),
        mismatched={} if all_fit else _partners(fitting, donors, wrong, seed),
        swapped={} if truth is None else _partners(fitting, donors, sibling, seed),
    )


def key_seed(seed: int, key: str) -> int:
    """A 63-bit seed for the random numbers of one clip."""
    digest = hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _partners(
    clips: Sequence[Clip],
    donors: Sequence[Clip],
    accept: Callable[[Clip, Clip], bool],
    seed: int,
) -> dict[str, str]:
    """For each clip the first acceptable donor, searched from a position given by its key."""
    partners: dict[str, str] = {}
    for clip in clips:
        start = key_seed(seed, clip.key) % len(donors)
        for i in range(len(donors)):
            donor = donors[(start + i) % len(donors)]
            if accept(clip, donor):
                partners[clip.key] = donor.key
                break
    return partners
