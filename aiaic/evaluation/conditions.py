"""Which sound each clip is evaluated with: pure functions of clips, truth, labels and a seed."""

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
class Truth:
    """What is known of a synthetic world, as plain values; only evaluation may see it."""

    class_by_key: Mapping[str, str]
    """Class of what each clip shows."""
    appearance_by_key: Mapping[str, str]
    """Its grey appearance; classes of one appearance are siblings."""
    fits_by_key: Mapping[str, bool]
    """Whether the clip's own sound is its class's."""
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
        """Raises ValueError where a clip is unknown."""
        for key in keys:
            if not all(
                key in column
                for column in (self.class_by_key, self.appearance_by_key, self.fits_by_key)
            ):
                raise ValueError(f"the truth does not know clip '{key}': it is of other clips")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """What the choice of sounds needs to know of a clip."""

    key: str
    video: int
    """A hash of its video's id."""
    has_sound: bool
    """Whether it has usable sound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sounds:
    """Whose sound each clip is evaluated with."""

    fitting: frozenset[str]
    """Clips whose own sound is usable and, where the truth says so, fits. Only these give sounds,
    and only these are evaluated with one; without truth a clip's own sound counts as fitting."""
    mismatched: Mapping[str, str]
    """For a fitting clip the clip whose sound does not fit; absent where there is none."""
    swapped: Mapping[str, str]
    """For a fitting clip a clip of a sibling class; absent where there is none, or no truth."""


def choose(
    clips: Sequence[Clip], *, seed: int, truth: Truth | None, labels: Mapping[str, str] | None
) -> Sounds:
    """Choose partners; each clip's choice depends on the seed and the set of clips, not the order.

    A mismatched sound is of another video, and with truth of another appearance (so that it is
    known to be wrong), else, where labels exist, of another label.
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
        # Of a clip without a label nobody knows what does not fit it.
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
    """A 63-bit seed of the random numbers of one clip."""
    digest = hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _partners(
    clips: Sequence[Clip],
    donors: Sequence[Clip],
    accept: Callable[[Clip, Clip], bool],
    seed: int,
) -> dict[str, str]:
    """For each clip the first acceptable donor from a place on that its key decides."""
    partners: dict[str, str] = {}
    for clip in clips:
        start = key_seed(seed, clip.key) % len(donors)
        for i in range(len(donors)):
            donor = donors[(start + i) % len(donors)]
            if accept(clip, donor):
                partners[clip.key] = donor.key
                break
    return partners
