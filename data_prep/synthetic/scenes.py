"""Grey scenes and their regions: what a clip shows before its class gives it colour.

Scenes do not depend on the class, so siblings share geometry and lightness exactly.
"""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from data_prep.synthetic.colors import Floats

SIZE_PX = 192
"""Side of the video."""
DRIFT_PX = 8
"""Largest drift of the camera to each side during the clip."""
CANVAS_PX = SIZE_PX + 2 * DRIFT_PX

MAIN, SKY, LAND, NEUTRAL = range(4)
"""Regions: the subject, the sky, other coloured parts, and parts without colour."""


class Canvas:
    """A painting in layers: lightness in [0, 1] and each region's share of every pixel."""

    def __init__(self) -> None:
        side = (np.arange(CANVAS_PX, dtype=np.float32) + 0.5 - DRIFT_PX) / SIZE_PX
        self.x: Floats = np.broadcast_to(side[None, :], (CANVAS_PX, CANVAS_PX))
        """Horizontal position: 0 to 1 inside the frame at rest."""
        self.y: Floats = np.broadcast_to(side[:, None], (CANVAS_PX, CANVAS_PX))
        """Vertical position, downwards."""
        self.lightness: Floats = np.zeros((CANVAS_PX, CANVAS_PX), np.float32)
        self.regions: Floats = np.zeros((4, CANVAS_PX, CANVAS_PX), np.float32)
        self.regions[SKY] = 1

    def window(self, x: float, y: float, half: float) -> "Canvas":
        """A view of the part within ``half`` of a point; painting on it paints on this canvas."""
        left, top = (max(int((k - half) * SIZE_PX) + DRIFT_PX, 0) for k in (x, y))
        part = (
            slice(top, top + int(2 * half * SIZE_PX) + 2),
            slice(left, left + int(2 * half * SIZE_PX) + 2),
        )
        view = copy(self)
        view.x, view.y, view.lightness = self.x[part], self.y[part], self.lightness[part]
        view.regions = self.regions[:, *part]
        return view

    def paint(self, cover: Floats, lightness: Floats | float, region: int) -> None:
        """Blends in ``lightness`` of ``region`` with the opacity ``cover``, 0 to 1."""
        self.lightness += cover * (lightness - self.lightness)
        self.regions *= 1 - cover
        self.regions[region] += cover

    def shade(self, cover: Floats, amount: float) -> None:
        """Lightens (or darkens) without changing the regions."""
        self.lightness += cover * amount


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A grey scene on the canvas, which exceeds the frame by the camera's drift."""

    lightness: Floats
    """[h w] in [0, 1], sharp."""
    regions: Floats
    """[4 h w], shares that sum to 1."""


def draw_scene(appearance: str, rng: Generator) -> Scene:
    """A scene of ``appearance`` (a key of ``SCENES``) with random geometry and textures."""
    canvas = Canvas()
    SCENES[appearance](canvas, rng)
    if rng.random() < 0.5:
        canvas.lightness, canvas.regions = canvas.lightness[:, ::-1], canvas.regions[:, :, ::-1]
    return Scene(
        lightness=np.clip(canvas.lightness, 0, 1), regions=np.ascontiguousarray(canvas.regions)
    )


def rows(c: Canvas, rng: Generator) -> None:
    """Rows of waves to the horizon: a sea, or a field of corn under the wind."""
    horizon = rng.uniform(0.18, 0.34)
    _sky(c, rng)
    sun_x, sun_y = rng.uniform(0.1, 0.9), horizon * rng.uniform(0.2, 0.7)
    c.paint(_disc(c, sun_x, sun_y, rng.uniform(0.04, 0.07)), 1.0, SKY)
    below = c.y - horizon
    depth = np.maximum(below, 0) + 0.035
    wander = sum(
        a * np.sin(k * c.x / np.sqrt(depth) + rng.uniform(0, 6.3))
        for a, k in ((0.35, rng.uniform(1.5, 3)), (0.22, rng.uniform(4, 7)))
    )
    phase = rng.uniform(5.5, 8.0) * np.log(depth / 0.035) + wander + rng.uniform(0, 6.3)
    ramp = (phase / np.pi) % 1
    crest = ramp**2.2 + 0.22 * _grain(rng, 2) * (0.3 + depth)
    c.paint(_edge(below), 0.15 + 0.75 * crest, MAIN)


def tree(c: Canvas, rng: Generator) -> None:
    """One large tree on a meadow."""
    _sky(c, rng)
    ground_y = rng.uniform(0.74, 0.84)
    hill = ground_y + 0.03 * np.sin(rng.uniform(2, 5) * c.x + rng.uniform(0, 6.3))
    c.paint(_edge(c.y - hill), 0.5 + 0.12 * _grain(rng, 3) - 0.25 * (c.y - hill), LAND)
    x0, top = rng.uniform(0.4, 0.6), rng.uniform(0.3, 0.4)
    width = rng.uniform(0.035, 0.055)
    foot = ground_y + rng.uniform(0.04, 0.09)
    trunk = width * (1 + 1.2 * np.clip((c.y - foot + 0.15) / 0.15, 0, 1) ** 2) - np.abs(c.x - x0)
    c.paint(_edge(trunk) * _edge(foot - c.y) * _edge(c.y - top), 0.12, NEUTRAL)
    radius = rng.uniform(0.28, 0.34)
    angles = rng.uniform(0, 2 * np.pi, 26)
    spread = radius * np.sqrt(rng.random(26)) * 0.82
    order = np.argsort(-np.sin(angles) * spread)[::-1]
    c.paint(_disc(c, x0, top + 0.02, radius * 0.8), 0.3, MAIN)
    for angle, out in zip(angles[order].tolist(), spread[order].tolist(), strict=True):
        x, y = x0 + 1.15 * out * math.cos(angle), top + 0.02 - out * math.sin(angle)
        _puff(c, rng, x, y, radius * rng.uniform(0.26, 0.42))
    leaves = c.regions[MAIN] * (_grain(rng, 2) + 0.7 * _grain(rng, 4))
    c.shade(leaves, 0.13)


def truck(c: Canvas, rng: Generator) -> None:
    """A truck with a ladder on its roof, seen from the side on a road."""
    _sky(c, rng)
    road_y = rng.uniform(0.74, 0.8)
    ridge = road_y - 0.3 - 0.06 * np.sin(rng.uniform(4, 9) * c.x + rng.uniform(0, 6.3))
    c.paint(_edge(c.y - ridge), 0.5 + 0.15 * _grain(rng, 6), LAND)
    c.paint(_edge(c.y - road_y), 0.3 + 0.08 * _grain(rng, 2), NEUTRAL)
    dash = _edge(0.3 - np.abs(((c.x + rng.random()) * 4) % 1 - 0.5), 0.02)
    c.paint(_box(c, 0.5, road_y + 0.13, 0.9, 0.012) * dash, 0.9, NEUTRAL)
    length, height = rng.uniform(0.74, 0.86), rng.uniform(0.3, 0.36)
    left, floor = 0.5 - length / 2 + rng.uniform(-0.04, 0.04), road_y + 0.005
    cab = length * rng.uniform(0.24, 0.3)
    roof, tint = floor - height, rng.uniform(0.42, 0.55)
    _ladder(c, left + cab + 0.02, left + length - 0.01, roof - 0.045)
    body_x = left + cab + (length - cab) / 2
    c.paint(_box(c, body_x, floor - height / 2, (length - cab) / 2, height / 2), tint, MAIN)
    c.paint(_box(c, body_x, roof + 0.015, (length - cab) / 2, 0.015), tint + 0.25, MAIN)
    _cab(c, left, cab, floor, height * rng.uniform(0.88, 0.98), tint + 0.08)
    shutters = int(rng.integers(2, 5))
    span = (length - cab) / shutters
    for i in range(shutters):
        x = left + cab + (i + 0.5) * span
        slats = tint - 0.18 + 0.14 * (np.sin(c.y * 260) > 0)
        c.paint(_box(c, x, floor - height * 0.6, span * 0.38, height * 0.2), slats, MAIN)
    c.paint(_box(c, body_x, floor - height * 0.27, (length - cab) / 2, 0.012), 0.95, MAIN)
    for share in (0.16, 0.66, 0.86)[: int(rng.integers(2, 4))]:
        _wheel(c, left + share * length, floor, rng.uniform(0.068, 0.076))


def bird(c: Canvas, rng: Generator) -> None:
    """A bird on a branch in front of blurred foliage."""
    backdrop = 0.55 + 0.28 * _grain(rng, 26) + 0.1 * _grain(rng, 12)
    c.paint(np.ones_like(c.x), backdrop, LAND)
    lean = rng.uniform(-0.18, 0.1)
    perch_y, x0 = rng.uniform(0.74, 0.82), rng.uniform(0.44, 0.54)
    branch = perch_y + lean * (c.x - x0) + 0.012 * np.sin(9 * c.x + rng.uniform(0, 6.3))
    thick = rng.uniform(0.022, 0.034)
    bark = 0.22 - 4 * (c.y - branch) + 0.1 * _grain(rng, 2)
    size = rng.uniform(0.9, 1.08)
    u, v = (c.x - x0) / size, (c.y - perch_y) / size
    tilt = rng.uniform(0.75, 0.95)
    along = np.cos(tilt) * (u + 0.02) + np.sin(tilt) * (v + 0.25)
    across = -np.sin(tilt) * (u + 0.02) + np.cos(tilt) * (v + 0.25)
    tail = _edge(0.07 - 0.05 * (along - 0.2) - np.abs(across - 0.01), 0.008)
    c.paint(tail * _edge(along - 0.1) * _edge(rng.uniform(0.5, 0.56) - along), 0.3, MAIN)
    c.paint(_edge(thick - np.abs(c.y - branch)), bark, NEUTRAL)
    for foot in (-0.05, 0.02):
        c.paint(_box(c, x0 + foot, perch_y - 0.035, 0.008, 0.05), 0.1, NEUTRAL)
    breast = 0.78 - 1.2 * np.maximum(across, 0) + 0.1 * _grain(rng, 3)
    c.paint(_edge(1 - np.hypot(along / 0.31, across / 0.18), 0.03), breast, MAIN)
    head_x, head_y = -0.17, -0.47
    beak = 0.05 - 0.55 * np.abs(v - head_y - 0.02) - 0.4 * np.abs(u - head_x + 0.14)
    c.paint(_edge(beak), 0.12, NEUTRAL)
    head = np.hypot(u - head_x, v - head_y)
    c.paint(_edge(0.135 - head), 0.82 - 1.1 * np.maximum(v - head_y, -0.05), MAIN)
    eye = np.hypot(u - head_x + 0.05, v - head_y + 0.02)
    c.paint(_edge(0.026 - eye), 0.02, NEUTRAL)
    c.paint(_edge(0.008 - np.hypot(u - head_x + 0.056, v - head_y + 0.028)), 1.0, NEUTRAL)
    wing = _edge(1 - np.hypot((along - 0.08) / 0.23, (across + 0.05) / 0.095), 0.03)
    feathers = 0.28 + 0.3 * (((along * 16 + 3 * across) % 1) ** 2)
    c.paint(wing, feathers, MAIN)


SCENES: dict[str, Callable[[Canvas, Generator], None]] = {
    scene.__name__: scene for scene in (rows, tree, truck, bird)
}


def _sky(c: Canvas, rng: Generator) -> None:
    """A sky that brightens downwards, with a few clouds."""
    c.paint(np.ones_like(c.x), 0.5 + 0.35 * c.y + 0.1 * _grain(rng, 30), SKY)
    for _ in range(int(rng.integers(1, 4))):
        x, y, size = rng.random(), rng.uniform(0.03, 0.25), rng.uniform(0.05, 0.1)
        for k in (-1.0, 0.0, 1.0):
            lump = np.hypot(c.x - x - k * size, (c.y - y + 0.3 * size * (k == 0)) * 1.8)
            c.paint(_edge(size * (1.0 if k == 0 else 0.7) - lump, 0.015), 0.93, SKY)


def _puff(c: Canvas, rng: Generator, x: float, y: float, radius: float) -> None:
    """A ball of leaves with a ragged rim, lit from above."""
    c = c.window(x, y, 1.1 * radius)
    dx, dy = c.x - x, c.y - y
    angle = np.arctan2(dy, dx)
    rim = radius * (1 + 0.07 * np.sin(9 * angle + rng.uniform(0, 6.3)))
    lit = 0.5 - 0.3 * dy / radius - 0.12 * dx / radius
    c.paint(_edge(rim - np.hypot(dx, dy)), lit, MAIN)


def _ladder(c: Canvas, left: float, right: float, y: float) -> None:
    """Two rails with rungs on the roof."""
    middle, half = (left + right) / 2, (right - left) / 2
    for rail in (-0.02, 0.02):
        c.paint(_box(c, middle, y + rail, half, 0.006), 0.9, NEUTRAL)
    rungs = _edge(0.06 - np.abs((c.x * 18) % 1 - 0.5), 0.05)
    c.paint(_box(c, middle, y, half, 0.02) * rungs, 0.9, NEUTRAL)
    for foot in (left + 0.05, right - 0.05):
        c.paint(_box(c, foot, y + 0.035, 0.008, 0.02), 0.2, NEUTRAL)


def _cab(c: Canvas, left: float, width: float, floor: float, height: float, tint: float) -> None:
    """The driver's cab with a slanted windscreen, a window, a lamp and a bumper."""
    slant = left + 0.25 * width * np.clip((floor - height * 0.45 - c.y) / (height * 0.5), 0, 1)
    front = _edge(c.x - slant) * _edge(left + width - c.x)
    c.paint(front * _edge(c.y - floor + height) * _edge(floor - c.y), tint, MAIN)
    pane = _edge(c.x - slant - 0.018) * _edge(left + 0.86 * width - c.x)
    c.paint(pane * _edge(0.15 * height - np.abs(c.y - floor + 0.72 * height)), 0.93, NEUTRAL)
    c.paint(_box(c, left + 0.55 * width, floor - height - 0.018, 0.035, 0.018), 0.85, MAIN)
    c.paint(_disc(c, left + 0.025, floor - 0.2 * height, 0.018), 1.0, NEUTRAL)
    c.paint(_box(c, left + 0.4 * width, floor - 0.01, 0.45 * width, 0.014), 0.85, NEUTRAL)


def _wheel(c: Canvas, x: float, y: float, radius: float) -> None:
    c.paint(_disc(c, x, y, radius), 0.03, NEUTRAL)
    c.paint(_disc(c, x, y, 0.5 * radius), 0.7, NEUTRAL)
    c.paint(_disc(c, x, y, 0.2 * radius), 0.15, NEUTRAL)


def _edge(distance: Floats, width: float = 1.5 / SIZE_PX) -> Floats:
    """0 where ``distance`` is negative and 1 where it is positive, with a ramp of ``width``."""
    return np.clip(distance / width + 0.5, 0, 1)


def _disc(c: Canvas, x: float, y: float, radius: float) -> Floats:
    return _edge(radius - np.hypot(c.x - x, c.y - y))


def _box(c: Canvas, x: float, y: float, half_width: float, half_height: float) -> Floats:
    return _edge(np.minimum(half_width - np.abs(c.x - x), half_height - np.abs(c.y - y)))


def _grain(rng: Generator, scale_px: int) -> Floats:
    """Noise of zero mean and unit standard deviation whose grains are ``scale_px`` wide."""
    cells = -(-CANVAS_PX // scale_px) + 3
    coarse = rng.standard_normal((cells, cells), np.float32)
    side = cells * scale_px
    fine: NDArray[np.float32] = np.asarray(
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), np.float32
    )
    return fine[scale_px : scale_px + CANVAS_PX, scale_px : scale_px + CANVAS_PX] / 0.8
