"""What each clip of a world draws by lot, and what follows for its lightness and colours.

Classes of one appearance ("siblings") differ in hue and sound only. Every number that a clip draws
comes from a generator named by (seed, number of the clip, purpose), so a clip depends on no other
clip and on no worker.
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
"""Chroma of the regions MAIN, SKY, LAND and NEUTRAL as shares of that."""

L_LIMITS = ((39.0, 11.0), (73.0, 93.0))
"""Least and greatest lightness, each at the main region's full chroma and at none."""

TEST_EVERY = 6
"""Of each class, one clip in so many is a test clip."""

SATURATIONS = (0.86, 1.0)
"""A clip's chroma is drawn evenly between these shares of the class's."""

HUE_SIGMA_DEG = 7.0
"""Deviation of a clip's hue before it is held within twice this (6.7 after)."""


class Lot(IntEnum):
    """What a generator is for."""

    FATE = 0
    SCENE = 1
    LOOK = 2
    SOUND = 3


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """One clip before it is made."""

    number: int
    youtube_id: str
    start_s: int
    class_name: str
    split: str
    sound_class: str | None
    """Whose sound it carries; None: no usable sound."""
    has_stream: bool
    """Whether the file has an audio stream at all (silent where ``sound_class`` is None)."""

    @property
    def key(self) -> str:
        """VGGSound's name of the clip."""
        return f"{self.youtube_id}_{self.start_s:06d}"

    @property
    def fits(self) -> bool:
        """Whether it is heard as what it is."""
        return self.sound_class == self.class_name


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a clip's picture draws apart from its scene; the same distribution for every class."""

    darkest: float
    """Where black lies in the range of lightness that a pixel's chroma allows, 0 to 1."""
    brightest: float
    """Where white lies."""
    grain: float
    """Deviation of the fine noise, in units of L."""
    hue_deg: float
    """Turn of every hue."""
    saturation: float
    """Share of the class's chroma."""
    drift_px: tuple[int, int]
    """Where the camera stands at the end, relative to the middle: even numbers (y, x)."""


MEAN_LOOK = {"hue_deg": 0.0, "saturation": sum(SATURATIONS) / 2}


def lot(seed: int, number: int, purpose: Lot) -> Generator:
    """The generator of one clip's draws for one purpose."""
    return np.random.default_rng([seed, number, purpose])


def plan_world(kind: WorldKind, clips: int, seed: int) -> list[PlannedClip]:
    """``clips`` clips, the classes in turn and each class's test clips evenly spread."""
    return [_plan_clip(kind, number, seed) for number in range(clips)]


def draw_look(rng: Generator) -> Look:
    """Exposure, contrast, grain, hue, saturation and camera drift of one clip."""
    turn = max(-2.0, min(2.0, rng.normal())) * HUE_SIGMA_DEG
    dy, dx = (2 * int(k) for k in rng.integers(-4, 5, 2))
    return Look(
        darkest=rng.uniform(0, 0.2),
        brightest=rng.uniform(0.75, 1),
        grain=0.5 * 5 ** rng.random(),
        hue_deg=turn,
        saturation=rng.uniform(*SATURATIONS),
        drift_px=(dy, dx),
    )


def lightness_range(regions: Floats) -> tuple[Floats, Floats]:
    """The least and greatest ``L`` [h w] at which sRGB has every sibling's colours of ``regions``.

    The weaker the chroma the wider the range. It is the same for siblings, and as smooth.
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
    rng = lot(seed, number, Lot.FATE)
    turn, which = divmod(number, len(kind.classes))
    own = kind.classes[which]
    split = "test" if turn % TEST_EVERY == 1 else "train"
    mishaps = kind.mishaps[split]
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    fate = rng.random()
    sound: str | None = own.name
    if fate < mishaps.soundless:
        sound = None
    elif fate < mishaps.soundless + mishaps.unrelated:
        others = [c.name for c in kind.classes if c.appearance != own.appearance]
        sound = others[int(rng.integers(len(others)))]
    return PlannedClip(
        number=number,
        youtube_id=base64.urlsafe_b64encode(digest)[:11].decode(),
        start_s=int(rng.integers(0, 600)),
        class_name=own.name,
        split=split,
        sound_class=sound,
        has_stream=fate >= mishaps.soundless / 2,
    )
