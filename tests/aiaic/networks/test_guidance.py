import dataclasses

import pytest
import torch

from aiaic import config
from aiaic.networks.guidance import AdaIN, DynamicSemanticGuidance, GuidanceConfig
from aiaic.networks.model import build_model
from tests.aiaic.recipes import TINY

CONFIG = GuidanceConfig(mlp_width=8, score_width=8)


@pytest.fixture
def guidance() -> DynamicSemanticGuidance:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DynamicSemanticGuidance(6, 4, CONFIG, scored=True)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 6, 5, 7, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def semantics() -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(2))


PRESENT = torch.tensor([True, False, True])


@pytest.mark.parametrize("stand_in", [0.0, 1e30, torch.nan, torch.inf])
def test_missing_semantics_leave_features_bit_for_bit(guidance, x, semantics, stand_in):
    semantics[1] = stand_in
    guided, _ = guidance(x, semantics, PRESENT)
    assert torch.equal(guided[1], x[1])
    assert not torch.equal(guided[0], x[0])


def test_missing_semantics_send_no_nan_into_gradients(guidance, x, semantics):
    semantics[1] = torch.nan
    x.requires_grad_()
    guidance(x, semantics, PRESENT)[0].square().sum().backward()
    gradients = [x.grad, *(p.grad for p in guidance.parameters())]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


def test_blend_follows_the_relevance(guidance, x, semantics):
    everywhere = torch.ones(3, dtype=torch.bool)
    full, _ = guidance(x, semantics, everywhere, torch.full((3,), 40.0))
    none, _ = guidance(x, semantics, everywhere, torch.full((3,), -100.0))
    half, _ = guidance(x, semantics, everywhere, torch.zeros(3))
    torch.testing.assert_close(full, guidance.adain(x, semantics * 2))  # 4 ** 0.5
    torch.testing.assert_close(none, x)
    torch.testing.assert_close(half, (full + none) / 2)


def test_adain_sets_mean_and_deviation(x, semantics):
    adain = AdaIN(6, 4, CONFIG)
    y = adain(x, semantics)
    gamma, beta = adain.mlp(semantics).chunk(2, 1)
    torch.testing.assert_close(y.mean((2, 3)), beta, atol=1e-5, rtol=1e-4)
    deviation = y.var((2, 3), correction=0).sqrt()
    torch.testing.assert_close(deviation, (1 + gamma).abs(), atol=1e-3, rtol=1e-3)


def test_no_statistic_crosses_samples():
    model = build_model(TINY.model, 0).eval()
    L = torch.rand(3, 1, 32, 32) * 100
    semantics = torch.randn(3, 16)
    together, _ = model.colorizer(L, semantics, PRESENT)
    for i in range(3):
        alone, _ = model.colorizer(L[i : i + 1], semantics[i : i + 1], PRESENT[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("unheard_of", "known: compact, convnext_tiny_unet, .*resnet34_unet"),
        ("no_such_module:Mine", "PYTHONPATH"),
        ("os:getcwd", "not a subclass"),
    ],
)
def test_what_is_no_backbone_is_refused(name, complaint):
    with pytest.raises(ValueError, match=f"'{name}'.*{complaint}"):
        build_model(config.override(TINY.model, {"backbone.name": name}), 0)


def test_shared_score_is_found_once():
    guidance = dataclasses.replace(TINY.model.guidance, shared_score=True)
    model = build_model(dataclasses.replace(TINY.model, guidance=guidance), 0).colorizer
    _, logits = model(torch.rand(2, 1, 32, 32), torch.randn(2, 16), torch.ones(2, dtype=torch.bool))
    assert torch.equal(logits[:, 0], logits[:, 1])
    assert len(model.scores()) == 1


def test_all_levels_may_be_guided():
    guidance = dataclasses.replace(TINY.model.guidance, levels="all")
    model = build_model(dataclasses.replace(TINY.model, guidance=guidance), 0).colorizer
    assert model.levels == (0, 1, 2)


def test_unknown_level_is_refused_with_the_range():
    guidance = dataclasses.replace(TINY.model.guidance, levels=(0, 7))
    with pytest.raises(ValueError, match=r"guidance.levels \(0, 7\) must be .all. or among 0 to 2"):
        build_model(dataclasses.replace(TINY.model, guidance=guidance), 0)


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(99)
    first = build_model(TINY.model, 1).state_dict()
    torch.manual_seed(7)
    second = build_model(TINY.model, 1).state_dict()
    other = build_model(TINY.model, 2).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
