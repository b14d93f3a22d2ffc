"""The random choices of each clip of a world, and what they mean for its lightness and colours.

Classes of one appearance ("siblings") differ only in hue and sound. All random numbers of a clip
come from generators seeded with (seed, number of the clip, stream), so that a clip depends neither
on other clips nor on the worker that makes it.
"""

import base64
import hashlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from data_prep.synthetic.colors import Floats, weighted_sum
from data_prep.synthetic.kinds import WorldKind

REGION_SHARES = (1.0, 0.55, 0.75, 0.0)
"""Chroma of the regions MAIN, SKY, LAND and NEUTRAL, relative to that of MAIN."""

L_LIMITS = ((39.0, 11.0), (73.0, 93.0))
"""Lowest and highest lightness, each at the main region's full chroma and at zero chroma."""

TEST_EVERY = 6
"""Of each class, one clip in this many is a test clip."""

SATURATIONS = (0.86, 1.0)
"""A clip's chroma is drawn uniformly between these shares of its class's."""

HUE_SIGMA_DEG = 7.0
"""Standard deviation of a clip's hue before clipping to twice this (6.7 afterwards)."""


class RandomStream(IntEnum):
    """A clip's independent random streams."""

    FATE = 0
    SCENE = 1
    LOOK = 2
    SOUND = 3


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """A clip to be made."""

    number: int
    youtube_id: str
    start_s: int
    class_name: str
    split: str
    sound_class: str | None
    """The class of its sound; None: no usable sound."""
    has_stream: bool
    """Whether the file has an audio stream at all (silent if ``sound_class`` is None)."""

    @property
    def key(self) -> str:
        """The clip's name in VGGSound's format."""
        return f"{self.youtube_id}_{self.start_s:06d}"

    @property
    def fits(self) -> bool:
        """Whether its sound matches its class."""
        return self.sound_class == self.class_name


@dataclass(frozen=True, kw_only=True)
class Look:
    """Random properties of a clip's picture beside its scene, distributed alike for every class."""

    darkest: float
    """Black, within the range of lightness that a pixel's chroma allows, 0 to 1."""
    brightest: float
    """White, within the same range."""
    grain: float
    """Standard deviation of the fine noise, in units of L."""
    hue_deg: float
    """Rotation of every hue."""
    saturation: float
    """Share of the class's chroma."""
    drift_px: tuple[int, int]
    """The camera's position at the end, relative to the middle: even numbers (y, x)."""


MEAN_LOOK = {"hue_deg": 0.0, "saturation": sum(SATURATIONS) / 2}


def generator(seed: int, number: int, stream: RandomStream) -> Generator:
    """The generator of one stream of one clip."""
    return np.random.default_rng([seed, number, stream])


def plan_world(kind: WorldKind, clips: int, seed: int) -> list[PlannedClip]:
    """``clips`` clips that cycle through the classes; each class's test clips are evenly spread."""
    return [_plan_clip(kind, number, seed) for number in range(clips)]


def draw_look(rng: Generator) -> Look:
    """Exposure, contrast, grain, hue, saturation and camera drift of one clip."""
    hue_deg = max(-2.0, min(2.0, rng.normal())) * HUE_SIGMA_DEG
    dy, dx = (2 * int(k) for k in rng.integers(-4, 5, 2))
    return Look(
        darkest=rng.uniform(0, 0.2),
        brightest=rng.uniform(0.75, 1),
        grain=0.5 * 5 ** rng.random(),
        hue_deg=hue_deg,
        saturation=rng.uniform(*SATURATIONS),
        drift_px=(dy, dx),
    )


def lightness_range(regions: Floats) -> tuple[Floats, Floats]:
    """The lowest and highest ``L`` [h w] at which all siblings' colours of ``regions`` are in sRGB.

    The weaker the chroma, the wider the range. It is the same for all siblings, and as smooth as
    the regions.
    """
    share = weighted_sum(REGION_SHARES, regions)
    darkest, brightest = (full + (none - full) * (1 - share) for full, none in L_LIMITS)
    return darkest, brightest


def region_colors(
    kind: WorldKind, class_name: str, hue_deg: float, saturation: float
) -> NDArray[np.float32]:
    """The ``ab`` [region 2] of a class's regions MAIN, SKY, LAND and NEUTRAL."""
    own = kind.by_name[class_name]
    hues = (np.array([*own.hues_deg, 0.0]) + hue_deg) * np.pi / 180
    chroma = kind.chroma[own.appearance] * saturation * np.array(REGION_SHARES)
    return np.stack([chroma * np.cos(hues), chroma * np.sin(hues)], axis=1).astype(np.float32)


def _plan_clip(kind: WorldKind, number: int, seed: int) -> PlannedClip:
    rng = generator(seed, number, RandomStream.FATE)
    cycle, which = divmod(number, len(kind.classes))
    own = kind.classes[which]
    split = "test" if cycle % TEST_EVERY == 1 else "train"
    rates = kind.corruption[split]
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    fate = rng.random()
    sound: str | None = own.name
    if fate < rates.soundless:
        sound = None
    elif fate < rates.soundless + rates.unrelated:
        others = [c.name for c in kind.classes if c.appearance != own.appearance]
        sound = others[int(rng.integers(len(others)))]
    return PlannedClip(
        number=number,
        youtube_id=base64.urlsafe_b64encode(digest)[:11].decode(),
        start_s=int(rng.integers(0, 600)),
        class_name=own.name,
        split=split,
        sound_class=sound,
        has_stream=fate >= rates.soundless / 2,
    )
