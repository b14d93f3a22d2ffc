"""The kinds of worlds: their classes, colours and sounds, and how noisy they are.

In the plain world, two classes share each grey appearance. In the hard world four do, much of the
training clips' sound is unrelated or missing, and all of it is noisy.
"""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, kw_only=True)
class SoundClass:
    """A class: its grey appearance, shared with its siblings, and its own colours and sound."""

    name: str
    """Label in the annotations; also used in file names."""
    appearance: str
    """Name of the scene that it shares with its siblings."""
    sound: str
    """Name of the recipe for its sound."""
    hues_deg: tuple[float, float, float]
    """Lab hue of the regions MAIN, SKY and LAND of its scene."""


@dataclass(frozen=True, kw_only=True)
class CorruptionRates:
    """Shares of the clips whose sound does not match their class."""

    unrelated: float
    """Clips with the sound of a class of another appearance."""
    soundless: float
    """Clips without an audio stream or with digital silence, half each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldKind:
    """A kind of world; with a number of clips and a seed it determines a world."""

    name: str
    classes: tuple[SoundClass, ...]
    """Siblings are adjacent; every appearance has the same number of classes."""
    chroma: dict[str, float]
    """Lab chroma of the main region by appearance, before random variation: equal for siblings, and
    inside sRGB for all of them at every lightness that occurs and every hue that jitter reaches."""
    corruption: dict[str, CorruptionRates]
    """By split."""
    snr_db: tuple[float, float]
    """Range of the signal-to-noise ratio, which is drawn uniformly for each clip."""

    @cached_property
    def by_name(self) -> dict[str, SoundClass]:
        """The classes by name."""
        return {c.name: c for c in self.classes}

    def siblings(self, class_name: str) -> list[SoundClass]:
        """All classes of the same appearance, itself included."""
        appearance = self.by_name[class_name].appearance
        return [c for c in self.classes if c.appearance == appearance]


def _class(
    appearance: str, name: str, sound: str, main: float, sky: float, land: float
) -> SoundClass:
    return SoundClass(name=name, appearance=appearance, sound=sound, hues_deg=(main, sky, land))


_FEW = CorruptionRates(unrelated=0.06, soundless=0.04)
_MANY = CorruptionRates(unrelated=0.2, soundless=0.2)

PLAIN = WorldKind(
    name="plain",
    classes=(
        _class("rows", "blue_sea", "surf", 275, 255, 275),
        _class("rows", "golden_field", "crickets", 87, 50, 87),
        _class("tree", "summer_tree", "cuckoo", 136, 238, 128),
        _class("tree", "autumn_tree", "dry_leaves", 48, 80, 70),
        _class("truck", "fire_engine", "siren", 31, 70, 50),
        _class("truck", "green_lorry", "diesel", 140, 240, 125),
        _class("bird", "yellow_canary", "trill", 92, 92, 128),
        _class("bird", "blue_parrot", "squawk", 280, 280, 335),
    ),
    chroma={"rows": 33.0, "tree": 41.0, "truck": 40.0, "bird": 34.0},
    corruption={"train": _FEW, "test": _FEW},
    snr_db=(12, 30),
)

HARD = WorldKind(
    name="hard",
    classes=(
        _class("rows", "blue_sea", "surf", 275, 255, 275),
        _class("rows", "golden_field", "crickets", 87, 50, 87),
        _class("rows", "rice_paddy", "frogs", 149, 205, 149),
        _class("rows", "tulip_field", "bees", 350, 320, 350),
        _class("tree", "summer_tree", "cuckoo", 130, 238, 122),
        _class("tree", "autumn_tree", "dry_leaves", 60, 80, 70),
        _class("tree", "cherry_tree", "wind_chimes", 357, 320, 357),
        _class("tree", "jacaranda_tree", "woodpecker", 290, 30, 290),
        _class("truck", "fire_engine", "siren", 27, 70, 50),
        _class("truck", "green_lorry", "diesel", 148, 240, 135),
        _class("truck", "school_bus", "reversing_beeps", 88, 190, 95),
        _class("truck", "ice_cream_van", "music_box", 295, 345, 335),
        _class("bird", "yellow_canary", "trill", 90, 90, 128),
        _class("bird", "blue_parrot", "squawk", 280, 280, 335),
        _class("bird", "red_cardinal", "falling_whistles", 20, 20, 70),
        _class("bird", "green_parakeet", "shrieks", 150, 150, 275),
    ),
    chroma={"rows": 33.0, "tree": 40.0, "truck": 36.0, "bird": 34.0},
    corruption={"train": _MANY, "test": _FEW},
    snr_db=(5, 5),
)

KINDS = {kind.name: kind for kind in (PLAIN, HARD)}
