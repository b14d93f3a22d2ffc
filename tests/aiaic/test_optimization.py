import itertools

import pytest
import torch

from aiaic.optimization import AveragedWeights, adamw, learning_rate


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
