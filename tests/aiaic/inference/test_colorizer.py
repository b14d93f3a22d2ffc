"""Colorizing pictures of any size: lightness kept, chroma from the network."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from aiaic import config
from aiaic.audio import AudioConfig
from aiaic.checkpointing import checkpoint
from aiaic.color import fit_to_gamut, lab_to_rgb, rgb_to_lab
from aiaic.inference import Colorizer, colorizer, upsampling
from aiaic.inference.upsampling import upsample_and_join
from aiaic.networks.backbone import BackboneConfig
from aiaic.networks.encoders import EncoderConfig
from aiaic.networks.guidance import GuidanceConfig
from aiaic.networks.model import ModelConfig, build_model
from aiaic.training.recipe import Recipe

TINY = ModelConfig(
    backbone=BackboneConfig(width=8),
    scene=EncoderConfig(width=8),
    sound=EncoderConfig(width=8),
    guidance=GuidanceConfig(mlp_width=8, score_width=8),
    audio=AudioConfig(clip_s=0.5, mels=16),
    semantics=8,
)
TONE = (0.3 * np.sin(np.arange(12_000) / 5)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """A tiny model with strong untrained colours."""
    tiny = build_model(TINY, seed=0).eval()
    with torch.no_grad():
        tiny.colorizer.backbone.head.weight.mul_(20)
    return tiny


def write(folder, *, stage: int, **settings):
    folder.mkdir()
    recipe = config.override(Recipe(name="tiny", model=TINY), settings)
    record = checkpoint.Record(
        stage=stage, step=1, recipe=config.to_json(recipe), manifest_digest="0", split="train",
        init=None, metrics={}, curves=[], versions={},
    )  # fmt: skip
    checkpoint.write(folder, record, build_model(TINY, seed=3).state_dict(), {})
    return folder


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 6, generator=generator)
    large = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return (large.clamp(0, 1) * 255).byte()[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("shape", [(96, 96), (33, 47), (300, 100), (17, 400), (1, 9)])
@pytest.mark.parametrize("grey", [False, True])
def test_size_and_lightness_are_kept_at_any_resolution(model, shape, grey):
    rgb = picture(*shape)
    if grey:
        rgb = rgb[..., 0]
    result = Colorizer(model, size_px=32).colorize(rgb, TONE)
    assert result.rgb.shape == (*shape, 3)
    assert result.rgb.dtype == np.uint8
    colour = np.repeat(rgb[..., None], 3, 2) if grey else rgb
    before, after = rgb2lab(colour), rgb2lab(result.rgb)
    assert np.abs(before[..., 0] - after[..., 0]).max() < 1  # half of an 8-bit step, and tolerance
    if min(shape) > 1:
        assert np.abs(after[..., 1:]).mean() > 3  # it is coloured


def test_a_colour_picture_and_its_grey_version_get_the_same_colours(model):
    rgb = picture(64, 80)
    L = rgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0]
    grey = (lab_to_rgb(L, torch.zeros(1, 2, 64, 80))[0, 0] * 255).round().byte().numpy()
    one, other = (Colorizer(model, size_px=64).colorize(p).rgb for p in (rgb, grey))
    assert np.abs(rgb2lab(one) - rgb2lab(other)).mean() < 1


def test_resolution_hardly_changes_the_colours(model):
    large = picture(512, 512)
    results = []
    for size in (512, 128):
        step = 512 // size
        shrunk = large.reshape(size, step, size, step, 3).mean((1, 3)).round().astype(np.uint8)
        rgb = Colorizer(model, size_px=64).colorize(shrunk, TONE).rgb
        step = size // 64
        results.append(rgb2lab(rgb.reshape(64, step, 64, step, 3).mean((1, 3)) / 255))
    assert np.linalg.norm((results[0] - results[1])[..., 1:], axis=-1).mean() < 2


def test_sixteen_bits_keep_their_lightness(model):
    deep = picture(40, 60).astype(np.uint16) * 257 + 100
    result = Colorizer(model, size_px=32).colorize(deep, TONE)
    assert result.rgb.dtype == np.uint16
    before, after = rgb2lab(deep / 65535), rgb2lab(result.rgb / 65535)
    assert np.abs(before[..., 0] - after[..., 0]).max() < 0.02
    assert np.abs(after[..., 1:]).mean() > 3


def test_a_recording_of_any_sample_rate_guides_a_picture(tmp_path):
    loaded = Colorizer.load(write(tmp_path / "one", stage=3), device="cpu")
    high = (0.3 * np.sin(np.arange(33_075) / 5 * 16_000 / 44_100)).astype(np.float32)
    rgb = picture(40, 60)
    result = loaded.colorize(rgb, high, sample_rate_hz=44_100)
    assert len(result.relevance_by_level) == 2
    assert result.relevance == pytest.approx(np.mean(result.relevance_by_level))
    same = loaded.colorize(rgb, TONE)
    assert np.abs(result.rgb.astype(int) - same.rgb).mean() < 0.5  # but for rounding, the same
    assert result.relevance == pytest.approx(same.relevance, abs=0.01)
    assert loaded.colorize(rgb).relevance_by_level == ()


def test_a_stage_1_colorizer_rejects_sound(tmp_path):
    loaded = Colorizer.load(write(tmp_path / "one", stage=1))
    assert loaded.colorize(picture(40, 60)).relevance is None
    with pytest.raises(ValueError, match=r"stage 1.*or no sound"):
        loaded.colorize(picture(40, 60), TONE)


def test_strips_do_not_show():
    rgb = picture(90, 70)
    ab = torch.randn(1, 2, 32, 40, generator=torch.Generator().manual_seed(0)) * 20
    assert np.array_equal(upsample_and_join(rgb, ab, strip_pixels=500), upsample_and_join(rgb, ab))


def test_chroma_is_upsampled_bilinearly():
    ab = torch.randn(1, 2, 24, 30, generator=torch.Generator().manual_seed(0)) * 20
    for height, width in ((90, 70), (24, 61), (13, 17)):
        whole = torch.nn.functional.interpolate(ab, size=(height, width), mode="bilinear")
        found = upsampling._upsample_rows(ab, height, width, slice(5, 12))
        torch.testing.assert_close(found, whole[:, :, 5:12], atol=1e-3, rtol=1e-4)


def test_sixteen_bits_are_rounded():
    deep = np.full((32, 32, 3), 257 * 100 + 200, np.uint16)
    assert (colorizer.small_picture(deep, 32) == 101).all()


def test_array_views_are_accepted(model):
    rgb = picture(40, 50)
    views = rgb[..., ::-1], TONE[::-1]
    found = Colorizer(model, size_px=32).colorize(*views)
    expected = Colorizer(model, size_px=32).colorize(*(view.copy() for view in views))
    assert np.array_equal(found.rgb, expected.rgb)
    assert found.relevance == expected.relevance
    deep = rgb[::-1].astype(np.uint16) * 257
    Colorizer(model, size_px=32).colorize(deep[::-1], TONE.astype(np.float64))


def test_relevance_is_given_with_a_sound(model):
    rgb = picture(40, 40)
    with_sound = Colorizer(model, size_px=32).colorize(rgb, TONE)
    assert with_sound.relevance is not None
    assert 0 < with_sound.relevance < 1
    without = Colorizer(model, size_px=32).colorize(rgb)
    silent = Colorizer(model, size_px=32).colorize(rgb, TONE * 1e-4)
    assert without.relevance is None
    assert silent.relevance is None
    assert np.array_equal(without.rgb, silent.rgb)
    assert not np.array_equal(without.rgb, with_sound.rgb)


def test_the_loudest_window_is_used():
    waveform = torch.zeros(1000)
    waveform[600:700] = torch.linspace(0.5, 1, 100)
    window = colorizer.loudest_window(waveform, 200)
    assert len(window) == 200
    assert window.square().sum() == waveform.square().sum()
    short = colorizer.loudest_window(torch.tensor([1.0, 2.0, 3.0]), 7)
    assert short.tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_chroma_is_fitted_to_the_gamut_at_constant_lightness_and_hue():
    generator = torch.Generator().manual_seed(0)
    L = torch.rand(1, 1, 20, 20, generator=generator) * 100
    ab = torch.randn(1, 2, 20, 20, generator=generator) * 60
    fitted = fit_to_gamut(L, ab)
    reached = rgb_to_lab(lab_to_rgb(L, fitted))
    assert (reached[0] - L).abs().max() < 0.02
    cross = ab[:, 0] * fitted[:, 1] - ab[:, 1] * fitted[:, 0]
    assert cross.abs().max() < 1e-2
    inside = (rgb_to_lab(lab_to_rgb(L, ab))[1] - ab).abs().amax(1, keepdim=True) < 0.01
    assert 0 < inside.float().mean() < 1
    assert torch.equal(fitted[:, :1][inside], ab[:, :1][inside])


@pytest.mark.parametrize(
    ("rgb", "waveform", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), None, "h w 3"),
        (np.zeros((0, 4, 3), np.uint8), None, "not empty"),
        (np.zeros((4, 4, 3), np.float32), None, "uint8 or uint16"),
        (np.zeros((4, 4), np.uint8), np.zeros(0, np.float32), "no samples"),
        (np.zeros((4, 4), np.uint8), np.zeros((2, 9), np.float32), "mono"),
        (np.zeros((4, 4), np.uint8), np.zeros(9, np.int16), r"float in \[-1, 1\], not int16"),
        (np.zeros((4, 4), np.uint8), np.full(9, np.nan, np.float32), "NaN or infinite"),
    ],
)
def test_wrong_pictures_and_sounds_are_rejected(model, rgb, waveform, message):
    with pytest.raises(ValueError, match=message):
        Colorizer(model, size_px=32).colorize(rgb, waveform)


def test_a_checkpoint_is_loaded_in_eval_mode(tmp_path):
    folder = write(tmp_path / "one", stage=3)
    model = colorizer.load(folder, with_sound=True)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = build_model(TINY, seed=3).state_dict()
    assert all(torch.equal(expected[name], value) for name, value in model.state_dict().items())
    assert colorizer.view_size_px(folder) == 96


def test_a_stage_1_checkpoint_is_rejected_if_sound_is_required(tmp_path):
    folder = write(tmp_path / "one", stage=1)
    with pytest.raises(ValueError, match=r"stage 1.*use a stage-3 checkpoint"):
        colorizer.load(folder, with_sound=True)
    assert not colorizer.load(folder).colorizer.always_relevant


@pytest.mark.parametrize(("stage", "held"), [(1, True), (2, True), (3, False)])
def test_relevance_is_fixed_if_training_did_not_learn_it(tmp_path, stage, held):
    folder = write(tmp_path / "one", stage=stage, **{"stage1.p_mismatch": 0})
    assert colorizer.load(folder).colorizer.always_relevant is held


def test_a_checkpoint_whose_weights_do_not_match_its_recipe_is_rejected(tmp_path):
    folder = write(tmp_path / "one", stage=3)
    record = checkpoint.read_record(folder)
    record.recipe["model"]["semantics"] = 9
    checkpoint.write_record(folder, record, tuple(record.files))
    with pytest.raises(ValueError, match=r"do not match its recipe"):
        colorizer.load(folder)


def test_a_folder_without_a_checkpoint_is_rejected(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        colorizer.load(tmp_path)
