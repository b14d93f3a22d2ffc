import dataclasses
import itertools

import pytest
import torch

from aiaic import config
from aiaic.loading.batch import Batch, Draw
from aiaic.loading.loader import Loader
from aiaic.networks.model import build_model
from aiaic.stages.condition_dropout import assign
from aiaic.training import build_stage
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples

FROZEN = {1: ("audio.",), 2: ("colorizer.", "scene."), 3: ("scene.",)}


@pytest.fixture(scope="module")
def batch() -> Batch:
    samples = tiny_samples(8)
    loader = Loader(read=samples.read, view=TINY.view, audio=TINY.model.audio)
    return next(loader.evaluation(samples.train, 8))


def with_draws(batch: Batch, **values: list[float]) -> Batch:
    draws = batch.draws.clone()
    for name, column in values.items():
        draws[:, Draw[name]] = torch.tensor(column)
    return dataclasses.replace(batch, draws=draws)


def fit(number: int, batch: Batch, steps: int, recipe=TINY, model=None):
    model = model or build_model(recipe.model, 0)
    stage = build_stage.build(number, model, recipe)
    parameters = [p for _, p, _ in stage.parameter_shares()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = stage(batch).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize("number", [1, 2, 3])
def test_frozen_parts_stay_bitwise_frozen_and_the_rest_learns(number, batch):
    before = {n: v.clone() for n, v in build_model(TINY.model, 0).state_dict().items()}
    model, _ = fit(number, with_draws(batch, MISMATCH=[0.1, 0.9] * 4), 3)
    buffers = {name for name, _ in model.named_buffers()}
    for name, value in model.state_dict().items():
        frozen = name.startswith(FROZEN[number]) or name in buffers
        assert torch.equal(value, before[name]) == frozen, name


@pytest.mark.parametrize("number", [1, 2, 3])
def test_one_batch_overfits(number, batch):
    recipe = config.override(
        TINY, {f"stage{number}.{key}": 0.0 for key in ("p_missing", "p_mismatch")}
        if number != 2 else {}
    )  # fmt: skip
    if number == 1:
        recipe = config.override(recipe, {"stage1.scene_view": "same"})
    model = build_model(recipe.model, 0)
    if number == 2:
        model, _ = fit(1, batch, 40, recipe)
    stage = build_stage.build(number, model, recipe)
    main = {1: "colour", 2: "distillation", 3: "colour"}[number]
    before = stage(batch).terms[main].mean().item()
    model, _ = fit(number, batch, 150, recipe, model)
    after = build_stage.build(number, model, recipe)(batch).terms[main].mean().item()
    assert after < before / 20


def test_scene_encoder_starts_stage_2_with_different_semantics_per_picture(batch):
    model = build_model(TINY.model, 0)
    semantics = model.scene(batch.picture.float() / 255)
    torch.testing.assert_close(semantics.norm(dim=1), torch.ones(8))
    assert torch.pdist(semantics).min() > 0


def test_recipe_without_mismatch_holds_the_relevance_at_one(batch):
    recipe = config.override(TINY, {"stage1.p_mismatch": 0.0})
    model = build_model(recipe.model, 0)
    stage = build_stage.build(1, model, recipe)
    output = stage(batch)
    assert "relevance" not in output.terms
    output.loss.mean().backward()
    assert all(p.grad is None for p in model.colorizer.scores().parameters())
    learning = {id(p) for _, p, _ in stage.parameter_shares()}
    assert not any(id(p) in learning for p in model.colorizer.scores().parameters())


def test_missing_and_mismatch_follow_the_draws(batch):
    batch = with_draws(
        batch,
        MISSING=[0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9],
        MISMATCH=[0.9, 0.1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9],
        PARTNER=[0.0, 0.0, 0.0, 0.99, 0.0, 0.0, 0.0, 0.0],
    )
    semantics = torch.eye(8)
    assigned = assign(
        semantics, torch.ones(8, dtype=torch.bool), batch, p_missing=0.2, p_mismatch=0.25
    )
    assert assigned.present.tolist() == [False] + [True] * 7
    assert assigned.relevant.tolist() == [True, False, True, False, True, True, True, True]
    assert torch.equal(assigned.semantics[1], semantics[2])  # the next one
    assert torch.equal(assigned.semantics[3], semantics[2])  # seven further: the one before
    assert torch.equal(assigned.semantics[2], semantics[2])


def test_a_partner_is_always_another_sample(batch):
    for partner in (0.0, 0.3, 0.5, 0.999999):
        drawn = with_draws(batch, MISMATCH=[0.0] * 8, PARTNER=[partner] * 8)
        assigned = assign(
            torch.eye(8), torch.ones(8, dtype=torch.bool), drawn, p_missing=0.0, p_mismatch=1.0
        )
        assert (assigned.semantics.argmax(1) != torch.arange(8)).all()


def test_a_partner_of_the_same_video_or_without_semantics_is_none(batch):
    one_video = dataclasses.replace(
        with_draws(batch, MISMATCH=[0.0] * 8, PARTNER=[0.0] * 8),
        video=torch.tensor([5, 5, 6, 7, 8, 9, 10, 11]),
    )
    available = torch.tensor([True, True, True, False, True, True, True, True])
    assigned = assign(torch.eye(8), available, one_video, p_missing=0.0, p_mismatch=1.0)
    assert assigned.relevant.tolist() == [True, False, True, False, False, False, False, False]
    assert assigned.present.all()  # the clip without sound uses its partner's


def test_gradients_flow_into_partners(batch):
    semantics = torch.eye(8, requires_grad=True)
    drawn = with_draws(batch, MISMATCH=[0.0] * 8, PARTNER=[0.0] * 8)
    assigned = assign(
        semantics, torch.ones(8, dtype=torch.bool), drawn, p_missing=0.0, p_mismatch=1.0
    )
    (gradient,) = torch.autograd.grad(assigned.semantics[0].sum(), semantics)
    assert gradient.any(1).tolist() == [False, True] + [False] * 6


def test_stage_3_never_looks_at_the_scene_encoder(batch):
    model = build_model(TINY.model, 0)
    model.scene.forward = None  # type: ignore[assignment]
    build_stage.build(3, model, TINY)(batch)


def test_validation_draws_nothing(batch):
    for number, seeds in itertools.product((1, 2, 3), ((0, 1),)):
        model = build_model(TINY.model, 0)
        stage = build_stage.build(number, model, TINY)
        results = []
        for seed in seeds:
            draws = torch.rand(8, len(Draw), generator=torch.Generator().manual_seed(seed))
            results.append(stage.validate(dataclasses.replace(batch, draws=draws)).loss)
        assert torch.equal(*results)
