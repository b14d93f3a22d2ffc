"""Frames colorized in order of time: smoothed in static regions, reset at scene cuts."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from aiaic.audio import AudioConfig
from aiaic.color import ab_distance
from aiaic.inference import Colorizer
from aiaic.inference.temporal import ChromaSmoother, SceneCuts
from aiaic.inference.video import FrameColorizer, SemanticsTrack, SoundCue
from aiaic.networks.backbone import BackboneConfig
from aiaic.networks.encoders import EncoderConfig
from aiaic.networks.guidance import GuidanceConfig
from aiaic.networks.model import ModelConfig, build_model

CONFIG = ModelConfig(
    backbone=BackboneConfig(width=8),
    scene=EncoderConfig(width=8),
    sound=EncoderConfig(width=8),
    guidance=GuidanceConfig(mlp_width=8, score_width=8),
    audio=AudioConfig(clip_s=0.5, mels=16),
    semantics=8,
)


@pytest.fixture(scope="module")
def colorizer():
    """A tiny model with strong untrained colours."""
    model = build_model(CONFIG, seed=0).eval().requires_grad_(requires_grad=False)
    with torch.no_grad():
        model.colorizer.backbone.head.weight.mul_(20)
    return Colorizer(model, size_px=32)


def scene(seed: int, height: int = 32, width: int = 40) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, 4, 5, generator=generator)
    large = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return (large[0, 0].clamp(0.1, 0.9) * 255).byte().numpy()[..., None].repeat(3, 2)


def flicker(ab: torch.Tensor) -> float:
    return ab_distance(ab[1:], ab[:-1]).mean().item()


def ticks(period: int, samples: int = 8000) -> np.ndarray:
    return (0.3 * np.sin(np.arange(samples) / period)).astype(np.float32)


def test_300_frames_of_a_still_picture_do_not_flicker(colorizer):
    """Even if the sound changes, stops and starts."""
    sounds = [ticks(3), None, ticks(9), ticks(5) * 1e-5]
    track = SemanticsTrack(colorizer, lambda time_s: sounds[int(time_s / 2) % 4])
    painter = FrameColorizer(colorizer)
    changes, colours = [], []
    for number in range(300):
        coloured = painter.colorize(scene(0), number / 30, track.at(number / 30))
        assert not coloured.is_cut
        changes.append(coloured.ab_change)
        colours.append(coloured.rgb.astype(float))
    assert changes[0] is None
    assert np.mean(changes[1:]) <= 0.5
    assert max(changes[1:]) < 1
    assert np.abs(colours[50] - colours[110]).mean() > 1  # yet the sound is heard


def test_grain_hardly_moves_the_colours(colorizer):
    generator = np.random.default_rng(0)
    painter, changes, unsteady = FrameColorizer(colorizer), [], []
    for number in range(40):
        grain = generator.integers(-3, 4, (32, 40, 1))
        rgb = (scene(0).astype(int) + grain).clip(0, 255).astype(np.uint8)
        changes.append(painter.colorize(rgb, number / 30).ab_change)
        unsteady.append(rgb2lab(colorizer.colorize(rgb).rgb)[..., 1:])
    unsteady_change = np.linalg.norm(np.diff(unsteady, axis=0), axis=-1).mean()
    assert np.mean(changes[1:]) < unsteady_change / 5


def test_smoothing_does_not_depend_on_the_frame_rate(colorizer):
    def after_a_second(rate: int) -> np.ndarray:
        painter = FrameColorizer(colorizer)
        for number in range(rate + 1):
            heard = None if number == 0 else colour_of(colorizer, 3)
            coloured = painter.colorize(scene(0), number / rate / 4, heard)
        return coloured.rgb.astype(float)

    slow, fast = after_a_second(8), after_a_second(32)
    first = FrameColorizer(colorizer).colorize(scene(0), 0.0).rgb
    last = FrameColorizer(colorizer).colorize(scene(0), 0.0, colour_of(colorizer, 3)).rgb
    assert np.abs(slow - fast).mean() < 0.25 * np.abs(first.astype(float) - last).mean()


def colour_of(colorizer: Colorizer, period: int) -> SoundCue:
    return SemanticsTrack(colorizer, lambda _: ticks(period)).at(0.0)


def test_smoothing_restarts_at_a_cut(colorizer):
    painter = FrameColorizer(colorizer)
    for number in range(5):
        painter.colorize(scene(1), number / 25, colour_of(colorizer, 3))
    after = painter.colorize(scene(2), 5 / 25, colour_of(colorizer, 9))
    fresh = FrameColorizer(colorizer).colorize(scene(2), 5 / 25, colour_of(colorizer, 9))
    assert after.is_cut
    assert after.ab_change is None
    assert np.array_equal(after.rgb, fresh.rgb)


def test_motion_leaves_no_trail():
    smoother = ChromaSmoother(0.4)
    for column in range(0, 30, 2):
        L, ab = torch.full((1, 1, 16, 40), 30.0), torch.zeros(1, 2, 16, 40)
        L[..., column : column + 6], ab[..., column : column + 6] = 70.0, 50.0
        smoothed = smoother.smooth(L, ab, 1 / 25)
    assert (smoothed - ab).abs().max() < 5  # at the edges, whose lightness lies between
    assert (smoothed - ab).abs().mean() < 0.2


def test_static_regions_are_averaged_over_time():
    smoother = ChromaSmoother(0.4)
    L = torch.full((1, 1, 8, 8), 50.0)
    generator = torch.Generator().manual_seed(0)
    smoothed = torch.cat(
        [
            smoother.smooth(L, torch.randn(1, 2, 8, 8, generator=generator), 1 / 25)
            for _ in range(50)
        ]
    )
    assert flicker(smoothed[10:]) < 0.15
    assert flicker(torch.randn(50, 2, 8, 8, generator=generator)) > 1.5


def test_cuts_are_distinguished_from_motion_flashes_and_fades():
    def lightness(rgb: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(rgb[..., 0].astype(np.float32))[None, None] / 2.55

    def count(frames: list[torch.Tensor]) -> int:
        cuts = SceneCuts()
        return sum(cuts.is_cut(frame) for frame in frames)

    wide = scene(3, 64, 400)
    assert count([lightness(wide[:, x : x + 80]) for x in range(0, 320, 4)]) == 0
    still = lightness(scene(4))
    assert count([still, still, still * 0.5 + 50, still, still]) == 0
    assert count([still * (1 - n / 25) for n in range(26)]) == 0
    assert count([lightness(scene(n // 4)) for n in range(40)]) == 9


def test_silence_counts_as_missing_and_short_sound_is_repeated(colorizer):
    def at(waveform: np.ndarray | None) -> SoundCue:
        return SemanticsTrack(colorizer, lambda _: waveform).at(1.1)

    assert at(ticks(5)).presence == 1
    assert at(ticks(5, 100)).presence == 1
    assert at(ticks(5) * 1e-5).presence == 0
    assert at(None).presence == 0
    assert at(np.zeros(0, np.float32)).presence == 0
    without = FrameColorizer(colorizer).colorize(scene(0), 0.0)
    silent = FrameColorizer(colorizer).colorize(scene(0), 0.0, at(None))
    assert np.array_equal(without.rgb, silent.rgb)
    assert silent.relevance is None


def test_sound_is_encoded_at_a_fixed_hop_and_interpolated(colorizer):
    asked: list[float] = []

    def window_at(time_s: float) -> np.ndarray | None:
        asked.append(time_s)
        return ticks(5) if time_s >= 0.5 else None

    track = SemanticsTrack(colorizer, window_at, hop_s=0.25)
    presences = [track.at(number / 100).presence for number in range(60)]
    assert asked == [0.0, 0.25, 0.5, 0.75]
    assert presences[25] == 0
    assert presences[50] == 1
    assert presences[30] == pytest.approx(0.2)


@pytest.mark.parametrize("sizes", [(256, 512), (256, 1024)])
def test_resolution_hardly_changes_the_colours(colorizer, sizes):
    large = scene(5, 1024, 1024)
    chroma = []
    for size in sizes:
        step = 1024 // size
        rgb = large.reshape(size, step, size, step, 3).mean((1, 3)).round().astype(np.uint8)
        result = colorizer.colorize(rgb, ticks(5)).rgb
        step = size // 256
        small = result.reshape(256, step, 256, step, 3).mean((1, 3)) / 255
        chroma.append(rgb2lab(small)[..., 1:])
    assert np.linalg.norm(chroma[0], axis=-1).mean() > 3
    assert np.linalg.norm(chroma[0] - chroma[1], axis=-1).mean() <= 2
