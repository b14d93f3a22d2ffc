"""Every metric against an independent implementation."""

import numpy as np
import pytest
import torch
from skimage import metrics as reference
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
)

from aiaic.color import ab_distance
from aiaic.evaluation import metrics


@pytest.fixture
def pictures():
    """Smooth pictures of two aspect ratios, and noisy versions of them."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(4, 3, 6, 8, generator=generator) * 255
    truth = torch.nn.functional.interpolate(coarse, size=(40, 56), mode="bicubic").clamp(0, 255)
    noise = (
        torch.randn(truth.shape, generator=generator)
        * torch.tensor([0.6, 5, 20, 60])[:, None, None, None]
    )
    return (truth + noise).clamp(0, 255).to(torch.uint8), truth.to(torch.uint8)


def each(function, prediction, truth, **options):
    pairs = zip(
        prediction.permute(0, 2, 3, 1).numpy(), truth.permute(0, 2, 3, 1).numpy(), strict=True
    )
    return torch.tensor([function(p, t, **options) for p, t in pairs], dtype=torch.float32)


def test_psnr_agrees_with_scikit_image_and_torchmetrics(pictures):
    prediction, truth = pictures
    ours = metrics.psnr(prediction, truth)
    theirs = each(lambda p, t: reference.peak_signal_noise_ratio(t, p, data_range=255), *pictures)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    library = peak_signal_noise_ratio(
        prediction.float(), truth.float(), data_range=255.0, reduction="none", dim=(1, 2, 3)
    )
    torch.testing.assert_close(ours, library, rtol=1e-5, atol=1e-4)


def test_psnr_of_equal_pictures_is_finite(pictures):
    assert (metrics.psnr(pictures[1], pictures[1]) == metrics.MAX_PSNR_DB).all()


def test_ssim_agrees_with_scikit_image(pictures):
    prediction, truth = pictures
    theirs = each(
        reference.structural_similarity,
        *pictures,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    ours = metrics.ssim(prediction, truth)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_ssim_of_a_tiny_picture_is_rejected():
    tiny = torch.zeros(1, 3, 10, 20, dtype=torch.uint8)
    with pytest.raises(ValueError, match="11 px"):
        metrics.ssim(tiny, tiny)


@pytest.mark.parametrize(("ours", "sign"), [("colorfulness", False), ("colorfulness_abs", True)])
def test_colourfulness_agrees_with_its_definition(pictures, ours, sign):
    def definition(picture, _):
        r, g, b = picture.astype(np.float64).transpose(2, 0, 1)
        rg, yb = r - g, 0.5 * (r + g) - b
        if sign:
            rg, yb = np.abs(rg), np.abs(yb)
        return np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())

    expected = each(definition, *pictures)
    torch.testing.assert_close(getattr(metrics, ours)(pictures[0]), expected, rtol=1e-4, atol=1e-3)


def test_colourfulness_variants_differ_and_grey_has_none(pictures):
    picture = pictures[1]
    assert (metrics.colorfulness(picture) - metrics.colorfulness_abs(picture)).abs().min() > 1
    grey = picture[:, :1].expand(-1, 3, -1, -1)
    assert metrics.colorfulness(grey).abs().max() == 0


def test_mse_and_distance_of_ab():
    truth = torch.zeros(1, 2, 3, 5)
    prediction = truth + torch.tensor([33.0, 44.0])[None, :, None, None]
    assert metrics.mse_ab(prediction, truth).item() == pytest.approx((0.3**2 + 0.4**2) / 2)
    assert ab_distance(prediction, truth).item() == pytest.approx(55)


def test_auc_agrees_with_torchmetrics_with_ties():
    generator = np.random.default_rng(0)
    fitting = generator.integers(3, 10, 50) / 10
    unfitting = generator.integers(0, 7, 70) / 10
    labels = torch.tensor([1] * 50 + [0] * 70)
    expected = binary_auroc(torch.tensor(np.concatenate((fitting, unfitting))), labels)
    assert metrics.auc(fitting, unfitting) == pytest.approx(expected.item())
    with pytest.raises(ValueError, match="unfitting"):
        metrics.auc(fitting, [])


def test_retrieval_ranks_agree_with_sorting():
    generator = torch.Generator().manual_seed(1)
    queries, items = (
        torch.nn.functional.normalize(torch.randn(30, 8, generator=generator), dim=1)
        for _ in range(2)
    )
    groups = torch.arange(30) % 7
    ours = metrics.retrieval_ranks(queries, items, groups)
    order = (queries @ items.T).argsort(1, descending=True)
    for row in range(30):
        ranks = [place for place, item in enumerate(order[row], 1) if groups[item] == groups[row]]
        # items of the query's own group that come first do not push each other back
        assert ours[row] == ranks[0]


def test_equal_embeddings_retrieve_nothing():
    same = torch.ones(5, 4) / 2
    assert (metrics.retrieval_ranks(same, same, torch.arange(5)) == 5).all()
