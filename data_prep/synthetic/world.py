"""Who lives in the world: classes, their colours and sounds, and what each clip draws by lot.

Two classes ("siblings") share one appearance and differ in hue and sound only. Every number that a
clip draws comes from a generator named by (seed, number of the clip, purpose), so a clip depends on
no other clip and on no worker.
"""

import base64
import hashlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from data_prep.synthetic.colors import Floats, weighted_sum


@dataclass(frozen=True, kw_only=True)
class SoundClass:
    """One of two siblings: what it looks like in grey, its colours, its sound."""

    name: str
    """Label in the annotations; safe in file names."""
    appearance: str
    """The scene that it shares with its sibling."""
    sound: str
    """The sound recipe."""
    hues_deg: tuple[float, float, float]
    """Lab hue of the regions MAIN, SKY and LAND of its scene."""


CHROMA = {"rows": 33.0, "tree": 41.0, "truck": 40.0, "bird": 34.0}
"""Lab chroma of the main region by appearance, before the lot: equal for siblings, and inside sRGB
for both at every lightness that occurs and every hue that jitter reaches."""

REGION_SHARES = (1.0, 0.55, 0.75, 0.0)
"""Chroma of the regions MAIN, SKY, LAND and NEUTRAL as shares of that."""

L_LIMITS = ((39.0, 11.0), (73.0, 93.0))
"""Least and greatest lightness, each at the main region's full chroma and at none."""

CLASSES = (
    SoundClass(name="blue_sea", appearance="rows", sound="surf", hues_deg=(275, 255, 275)),
    SoundClass(name="golden_field", appearance="rows", sound="crickets", hues_deg=(87, 50, 87)),
    SoundClass(name="summer_tree", appearance="tree", sound="cuckoo", hues_deg=(136, 238, 128)),
    SoundClass(name="autumn_tree", appearance="tree", sound="dry_leaves", hues_deg=(48, 80, 70)),
    SoundClass(name="fire_engine", appearance="truck", sound="siren", hues_deg=(31, 70, 50)),
    SoundClass(name="green_lorry", appearance="truck", sound="diesel", hues_deg=(140, 240, 125)),
    SoundClass(name="yellow_canary", appearance="bird", sound="trill", hues_deg=(92, 92, 128)),
    SoundClass(name="blue_parrot", appearance="bird", sound="squawk", hues_deg=(280, 280, 335)),
)

BY_NAME = {c.name: c for c in CLASSES}

TEST_EVERY = 6
"""Of each class, one clip in so many is a test clip."""

UNRELATED_SHARE = 0.06
"""Clips whose sound is that of a class of another appearance."""

SOUNDLESS_SHARE = 0.04
"""Clips with no audio stream or with digital silence, half each."""

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


def siblings(class_name: str) -> list[SoundClass]:
    """All classes of the same appearance, itself included."""
    appearance = BY_NAME[class_name].appearance
    return [c for c in CLASSES if c.appearance == appearance]


def plan_world(clips: int, seed: int) -> list[PlannedClip]:
    """``clips`` clips, the classes in turn and each class's test clips evenly spread."""
    return [_plan_clip(number, seed) for number in range(clips)]


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


def region_colors(class_name: str, hue_deg: float, saturation: float) -> NDArray[np.float32]:
    """The ``ab`` [region 2] of a class's regions MAIN, SKY, LAND and NEUTRAL."""
    own = BY_NAME[class_name]
    hues = (np.array([*own.hues_deg, 0.0]) + hue_deg) * np.pi / 180
    chroma = CHROMA[own.appearance] * saturation * np.array(REGION_SHARES)
    return np.stack([chroma * np.cos(hues), chroma * np.sin(hues)], axis=1).astype(np.float32)


def _plan_clip(number: int, seed: int) -> PlannedClip:
    rng = lot(seed, number, Lot.FATE)
    own = CLASSES[number % len(CLASSES)]
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    fate = rng.random()
    sound: str | None = own.name
    if fate < SOUNDLESS_SHARE:
        sound = None
    elif fate < SOUNDLESS_SHARE + UNRELATED_SHARE:
        others = [c.name for c in CLASSES if c.appearance != own.appearance]
        sound = others[int(rng.integers(len(others)))]
    return PlannedClip(
        number=number,
        youtube_id=base64.urlsafe_b64encode(digest)[:11].decode(),
        start_s=int(rng.integers(0, 600)),
        class_name=own.name,
        split="test" if number // len(CLASSES) % TEST_EVERY == 1 else "train",
        sound_class=sound,
        has_stream=fate >= SOUNDLESS_SHARE / 2,
    )
