import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from aiaic import color


@pytest.fixture
def rgb() -> torch.Tensor:
    noise = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noise[0, :, 0, :5] = torch.tensor([0.0, 1.0, 0.5, 0.003, 0.04])  # greys, black, linear part
    return noise


def test_lab_agrees_with_skimage(rgb):
    L, ab = color.rgb_to_lab(rgb)
    expected = rgb2lab(rgb.permute(0, 2, 3, 1).double().numpy())
    ours = torch.cat((L, ab), 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_rgb_agrees_with_skimage(rgb):
    lab = rgb2lab(rgb.permute(0, 2, 3, 1).double().numpy())
    lab[..., 1:] *= 0.8
    ours = color.lab_to_rgb(
        torch.from_numpy(lab[..., :1]).permute(0, 3, 1, 2).float(),
        torch.from_numpy(lab[..., 1:]).permute(0, 3, 1, 2).float(),
    )
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1).numpy(), lab2rgb(lab), atol=1e-3)


def test_eight_bit_pictures_survive_the_round_trip(rgb):
    picture = color.to_uint8(rgb)
    L, ab = color.rgb_to_lab(picture)
    assert torch.equal(color.join(L, ab), picture)


def test_lab_is_fp32_under_autocast(rgb):
    plain = color.rgb_to_lab(rgb)
    with torch.autocast("cpu", torch.bfloat16):
        cast = color.rgb_to_lab(rgb)
    for ours, expected in zip(cast, plain, strict=True):
        assert torch.equal(ours, expected)


def test_colours_outside_srgb_are_clipped():
    ab = torch.full((1, 2, 1, 1), 120.0)
    rgb = color.lab_to_rgb(torch.full((1, 1, 1, 1), 50.0), ab)
    assert 0 <= rgb.min() <= rgb.max() <= 1


def test_lightness_agrees_with_lab():
    rgb = torch.randint(0, 256, (2, 3, 9, 7), generator=torch.Generator().manual_seed(0))
    rgb = rgb.to(torch.uint8)
    assert torch.allclose(color.lightness(rgb), color.rgb_to_lab(rgb)[0], atol=1e-4)
