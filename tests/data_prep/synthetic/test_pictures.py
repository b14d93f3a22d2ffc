"""Pictures: colours inside sRGB; siblings equal in grey and distant in colour."""

from itertools import combinations

import av
import numpy as np
import pytest
from PIL import Image
from skimage.color import lab2rgb, rgb2lab

from data_prep.synthetic import HARD, PLAIN, clips, plan_world, world
from data_prep.synthetic.colors import lab_to_linear, lab_to_rgb, lab_to_yuv420
from data_prep.synthetic.scenes import SCENES, draw_scene

PLANS = {kind: plan_world(kind, 1440, 0) for kind in (PLAIN, HARD)}
PLAN = PLANS[PLAIN]
KINDS = pytest.mark.parametrize("kind", PLANS, ids=lambda kind: kind.name)
EXTREME_HUES = (-2 * world.HUE_SIGMA_DEG, 0.0, 2 * world.HUE_SIGMA_DEG)


def test_lab_agrees_with_an_independent_implementation():
    rng = np.random.default_rng(0)
    L = rng.uniform(40, 70, (16, 16)).astype(np.float32)
    ab = rng.uniform(-25, 25, (2, 16, 16)).astype(np.float32)
    expected = 255 * lab2rgb(np.stack([L, *ab], axis=-1))
    assert np.abs(lab_to_rgb(L, ab) - expected).max() < 0.55


def test_halved_chroma_leaves_lightness_alone():
    """Colour edges sharper than the chroma planes can represent, decoded bilinearly."""
    rng = np.random.default_rng(0)
    L = np.kron(rng.uniform(45, 65, (16, 16)), np.ones((4, 4))).astype(np.float32)
    ab = np.empty((2, 64, 64), np.float32)
    ab[0], ab[1] = 15 * np.sign(np.arange(64) - 30.5), -15 * np.sign(np.arange(64) - 30.5)[:, None]
    y, u, v = lab_to_yuv420(L, ab)
    cb, cr = (
        np.asarray(Image.fromarray((c - 128.0) / 224).resize((64, 64), Image.Resampling.BILINEAR))
        for c in (u, v)
    )
    luma = (y - 16.0) / 219
    rgb = [luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb]
    error = rgb2lab(np.stack(rgb, axis=-1))[..., 0] - L
    assert np.abs(error).max() < 0.6


@KINDS
@pytest.mark.parametrize("turn", range(3))
def test_every_colour_is_inside_srgb(kind, turn):
    """At full chroma, at both ends of the jitter, in every sibling's colours."""
    size = len(kind.classes)
    first_siblings = {c.appearance: i for i, c in reversed(list(enumerate(kind.classes)))}
    for number in first_siblings.values():
        clip = PLANS[kind][turn * size + number]
        _, L, regions = clips.picture(clip, kind, 0)
        for sibling in kind.siblings(clip.class_name):
            for hue_deg in EXTREME_HUES:
                ab = clips.colored(kind, sibling.name, regions, hue_deg, 1.0)
                linear = lab_to_linear(L, ab)
                assert linear.min() >= 0, sibling
                assert linear.max() <= 1, sibling


@KINDS
@pytest.mark.parametrize("appearance", sorted(SCENES))
def test_siblings_are_indistinguishable_in_decoded_lightness(kind, appearance):
    """One scene in each class's colours: the decoded ``L`` differs by rounding, not by edges."""
    clip = next(c for c in PLANS[kind] if kind.by_name[c.class_name].appearance == appearance)
    _, L, regions = clips.picture(clip, kind, 0)
    greys = []
    for sibling in kind.siblings(clip.class_name):
        y, u, v = lab_to_yuv420(L, clips.colored(kind, sibling.name, regions, 0.0, 1.0))
        packed = np.concatenate([y.ravel(), u.ravel(), v.ravel()]).reshape(-1, y.shape[1])
        frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
        greys.append(rgb2lab(frame.to_ndarray(format="rgb24"))[..., 0])
    steep = np.hypot(*np.gradient(L))
    for first, second in combinations(greys, 2):
        difference = first - second
        assert abs(difference.mean()) < 0.3
        assert np.abs(difference).mean() < 0.5
        assert abs(np.corrcoef(np.abs(difference).ravel(), steep.ravel())[0, 1]) < 0.25


@KINDS
def test_siblings_have_equal_chroma_and_distant_hues(kind):
    """At least 58 degrees apart; the standard deviation of jitter is 6.7."""
    for own in kind.classes:
        for other in kind.siblings(own.name):
            if other == own:
                continue
            mine, theirs = (world.region_colors(kind, c.name, 0, 1) for c in (own, other))
            np.testing.assert_allclose(np.hypot(*mine.T), np.hypot(*theirs.T), rtol=1e-5)
            apart = abs((own.hues_deg[0] - other.hues_deg[0] + 180) % 360 - 180)
            assert apart >= 58
            assert np.hypot(*(mine - theirs)[0]) >= 30


def test_chroma_is_smooth_where_lightness_is_sharp():
    for clip in PLAN[:8:2]:
        _, L, regions = clips.picture(clip, PLAIN, 0)
        ab = clips.colored(PLAIN, clip.class_name, regions, 0.0, 1.0)
        assert np.abs(np.diff(ab, axis=2)).max() < 4
        assert np.abs(np.diff(L, axis=1)).max() > 10


@KINDS
def test_a_scene_does_not_depend_on_the_class(kind):
    first = PLANS[kind][0]
    L = clips.picture(first, kind, 0)[1]
    for other in kind.siblings(first.class_name):
        twin = world.PlannedClip(**{**vars(first), "class_name": other.name})
        np.testing.assert_array_equal(L, clips.picture(twin, kind, 0)[1])


@pytest.mark.parametrize("appearance", sorted(SCENES))
def test_scenes_vary_and_their_regions_share_every_pixel(appearance):
    first, second = (draw_scene(appearance, np.random.default_rng(k)) for k in (1, 2))
    np.testing.assert_allclose(first.regions.sum(0), 1, atol=1e-4)
    assert first.regions.min() >= -1e-6
    assert np.abs(first.lightness - second.lightness).mean() > 0.03


def test_looks_vary():
    looks = [world.draw_look(world.generator(0, n, world.RandomStream.LOOK)) for n in range(400)]
    assert np.std([look.hue_deg for look in looks]) >= 6
    assert np.mean([look.hue_deg for look in looks]) == pytest.approx(0, abs=1)
    assert np.mean([look.saturation for look in looks]) == pytest.approx(
        world.MEAN_LOOK["saturation"], abs=0.01
    )
