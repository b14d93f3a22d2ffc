import math

import torch
from torch.nn import functional as F

from aiaic import losses


def unit(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_colour_loss_is_half_the_squared_error_for_a_wide_threshold():
    a, b = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    expected = ((a - b) ** 2).mean((1, 2, 3)) / 2
    torch.testing.assert_close(losses.colour(a, b, 2.0), expected)


def test_colour_loss_tends_to_the_absolute_error_for_a_narrow_one():
    a, b = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    expected = (a - b).abs().mean((1, 2, 3))
    torch.testing.assert_close(losses.colour(a, b, 1e-4), expected, atol=1e-3, rtol=1e-3)


def test_relevance_loss_is_smoothed_and_counts_only_what_is_present():
    logits = torch.tensor([[2.0, 2.0], [2.0, 2.0], [torch.nan, 0.0]])
    relevant = torch.tensor([True, False, True])
    present = torch.tensor([True, True, False])
    fits, misfits, absent = losses.relevance(logits, relevant, present, 0.1)
    p = 1 / (1 + math.exp(-2))
    assert math.isclose(fits, -0.9 * math.log(p) - 0.1 * math.log(1 - p), rel_tol=1e-5)
    assert math.isclose(misfits, -0.1 * math.log(p) - 0.9 * math.log(1 - p), rel_tol=1e-5)
    assert absent == 0


def test_distillation_is_the_cosine_distance():
    a, b = unit(4, 0), unit(4, 1)
    torch.testing.assert_close(losses.distillation(a, b), 1 - F.cosine_similarity(a, b))
    torch.testing.assert_close(losses.distillation(a, a), torch.zeros(4), atol=1e-6, rtol=0)


def test_info_nce_agrees_with_its_definition():
    audio, scene, scale = unit(5, 0), unit(5, 1), torch.tensor(3.0)
    loss = losses.info_nce(audio, scene, torch.arange(5), torch.arange(5), scale)
    for i in range(5):
        forward = -math.log(
            math.exp(3 * audio[i] @ scene[i]) / sum(math.exp(3 * audio[i] @ s) for s in scene)
        )
        backward = -math.log(
            math.exp(3 * audio[i] @ scene[i]) / sum(math.exp(3 * a @ scene[i]) for a in audio)
        )
        assert math.isclose(loss[i], (forward + backward) / 2, rel_tol=1e-5)


def test_clips_of_one_video_are_no_negatives():
    audio, scene, scale = unit(3, 0), unit(3, 1), torch.tensor(5.0)
    same = losses.info_nce(audio, scene, torch.tensor([7, 7, 8]), torch.arange(3), scale)
    without = losses.info_nce(audio[[0, 2]], scene[[0, 2]], torch.arange(2), torch.arange(2), scale)
    torch.testing.assert_close(same[0], without[0])


def test_info_nce_of_some_samples_is_a_part_of_the_whole():
    audio, scene, scale = unit(6, 0), unit(6, 1), torch.tensor(5.0)
    whole = losses.info_nce(audio, scene, torch.arange(6), torch.arange(6), scale)
    own = torch.tensor([4, 1])
    part = losses.info_nce(audio, scene, torch.arange(6), own, scale)
    torch.testing.assert_close(part, whole[own])
