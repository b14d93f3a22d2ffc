import copy
import itertools

import pytest
import torch

from aiaic import config
from aiaic.training.optim import AveragedWeights, adamw, learning_rate
from tests.aiaic.recipes import TINY


def test_learning_rate_warms_up_and_falls_to_nothing():
    rates = [learning_rate(step, 1000, 1.0, 50) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert rates[49] == rates[50] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[50:]))
    assert rates[-1] < 1e-4


def test_warm_up_is_at_most_a_tenth():
    assert learning_rate(2, 20, 1.0, 50) == 1.0


def test_averages_follow_the_definition():
    parameter = torch.nn.Parameter(torch.zeros(1))
    averages = AveragedWeights([parameter], 0.9)
    expected = 0.0
    for step in range(30):
        with torch.no_grad():
            parameter.fill_(step)
        averages.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert averages.averages[0].item() == pytest.approx(expected)


def test_applied_averages_give_way_to_the_very_weights():
    parameter = torch.nn.Parameter(torch.rand(5))
    averages = AveragedWeights([parameter], 0.9)
    with torch.no_grad():
        parameter.add_(1)
    raw = parameter.detach().clone()
    with averages.applied():
        assert torch.equal(parameter, averages.averages[0])
    assert torch.equal(parameter, raw)


def test_biases_do_not_decay():
    linear = torch.nn.Linear(2, 2)
    named = [(name, parameter, 1.0) for name, parameter in linear.named_parameters()]
    groups = adamw(named, 0.1).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def stepped(optimizer, model: torch.nn.Module) -> list[torch.Tensor]:
    """Weights and moments after three steps as the loop makes them."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * group["share"]
        optimizer.step()
    state = optimizer.state
    moments = [state[p][name] for p in model.parameters() for name in ("exp_avg", "exp_avg_sq")]
    return [p.detach() for p in model.parameters()] + moments


def test_few_groups_step_to_the_very_bits_of_a_group_per_parameter():
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Conv2d(3, 5, 3) for _ in range(3)))
    other = copy.deepcopy(model)
    shares = [(name, p, 0.2 if name[0] == "0" else 1.0) for name, p in model.named_parameters()]
    few = adamw(shares, 0.1)
    each = torch.optim.AdamW(
        [
            {"params": [p], "share": share, "weight_decay": 0.1 if p.ndim > 1 else 0.0}
            for p, (_, _, share) in zip(other.parameters(), shares, strict=True)
        ],
        lr=0.0,
        betas=(0.9, 0.99),
        fused=True,
    )
    for ours, theirs in zip(stepped(few, model), stepped(each, other), strict=True):
        assert torch.equal(ours, theirs)


def test_groups_are_as_many_as_shares_and_decays():
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(4)))
    named = [(name, p, 0.5 if name[0] == "3" else 1.0) for name, p in model.named_parameters()]
    sizes = [len(group["params"]) for group in adamw(named, 0.1).param_groups]
    assert sizes == [3, 3, 1, 1]


def test_a_step_has_one_micro_batch_at_least():
    with pytest.raises(ValueError, match="accumulate"):
        config.override(TINY, {"training.accumulate": 0})
