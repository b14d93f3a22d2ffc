"""The two ways in which evaluation makes a picture square."""

import dataclasses

import numpy as np
import pytest
import simplejpeg

from aiaic.loading.loader import Loader
from aiaic.loading.sample_reader import ViewConfig
from tests.aiaic.samples import tiny_samples


@pytest.fixture
def wide():
    """A grey picture of 64 x 32 px whose outer quarters are white."""
    picture = np.full((32, 64, 3), 60, np.uint8)
    picture[:, :16] = picture[:, 48:] = 255
    return picture


def loader(protocol, size_px=16, read=None):
    return Loader(
        read=read or (lambda *_: b""), view=ViewConfig(size_px=size_px), audio=None,
        protocol=protocol,
    )  # fmt: skip


def test_the_centre_leaves_the_sides_out(wide):
    shown = loader("center_crop").evaluated(wide)
    assert shown.shape == (16, 16, 3)
    assert (shown[:, 2:-2] == 60).all()


def test_a_squeezed_picture_shows_all(wide):
    shown = loader("resize").evaluated(wide)
    assert shown.shape == (16, 16, 3)
    assert (shown[:, [0, -1]] == 255).all()
    assert (shown[:, 6:10] == 60).all()


@pytest.mark.parametrize("protocol", ["center_crop", "resize"])
def test_batches_show_what_is_evaluated(wide, protocol):
    content = simplejpeg.encode_jpeg(wide, 95, colorsubsampling="444")
    (sample,) = tiny_samples(1).train
    sample = dataclasses.replace(sample, pictures=((0, len(content)),))
    evaluated = loader(protocol, read=lambda *_: content)
    (batch,) = evaluated.evaluation([sample], 1)
    expected = evaluated.evaluated(simplejpeg.decode_jpeg(content, "RGB"))
    assert (batch.picture[0].permute(1, 2, 0).numpy() == expected).all()
