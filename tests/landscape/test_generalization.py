"""The scatter of gradients and what follows from it, against closed forms and against simulation."""

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError
from covector.landscape import GradientScatter, gradient_scatter, sgd_advantage
from covector.objective import Objective
from covector.trees import digest


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(20, 4).double(), torch.randint(3, (20,))
    return Objective(model, nn.functional.cross_entropy), (x, y)


def single_gradients(objective, batch):
    params = list(objective.params.values())
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(objective((x[None], y[None])), params)])
        for x, y in zip(*batch, strict=True)
    ]
    return torch.stack(rows)


def test_the_trace_is_that_of_the_sample_covariance():
    objective, batch = network()
    gradients = single_gradients(objective, batch)
    found = gradient_scatter(objective, batch)
    assert found.trace == pytest.approx(float(torch.cov(gradients.T).trace()), rel=1e-6)
    unbiased = float(gradients.mean(0).square().sum()) - found.trace / 20
    assert found.square == pytest.approx(unbiased, rel=1e-6)


def test_both_are_without_bias_over_parts_of_the_data():
    objective, (x, y) = network()
    whole = single_gradients(objective, (x, y))
    exact = float(torch.cov(whole.T).trace())
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randperm(20, generator=generator)[:5] for _ in range(400)]
    traces = torch.tensor([gradient_scatter(objective, (x[i], y[i])).trace for i in parts], dtype=torch.float64)
    assert abs(float(traces.mean()) - exact) < 4 * float(traces.std()) / 20


def linear(dimension=5, examples=4000):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(examples, dimension, generator=generator, dtype=torch.float64)
    y = x @ torch.ones(dimension, 1, dtype=torch.float64) + torch.randn(examples, 1, generator=generator).double()
    model = nn.Linear(dimension, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    return Objective(model, lambda outputs, targets: (outputs - targets).square().mean() / 2), (x, y)


def test_closed_forms_of_a_linear_regression():
    objective, batch = linear()
    found = gradient_scatter(objective, batch)
    # covariance of (x . d + e) x for normal x: trace (p + 1) |d|^2 + p, mean d
    assert found.trace == pytest.approx(6 * 5 + 5, rel=0.1)
    assert found.square == pytest.approx(5.0, rel=0.1)
    assert found.noise_scale == pytest.approx(7.0, rel=0.15)
    assert sgd_advantage(objective, batch, lr=0.02, examples=40) == pytest.approx(0.02**2 / 80 * 60, rel=0.1)
    assert found.gap_rate(0.02, 40) == pytest.approx(0.02 * 35 / 40, rel=0.1)


def test_the_slope_is_the_derivative_of_the_trace_along_the_gradient():
    objective, batch = network()
    names = list(objective.params)
    center = {name: p.detach().clone() for name, p in objective.params.items()}
    parts = torch.autograd.grad(objective(batch), list(objective.params.values()))

    amount = torch.zeros((), dtype=torch.float64, requires_grad=True)
    moved = {name: center[name] + amount * g for name, g in zip(names, parts, strict=True)}
    rows = [
        torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(
                    objective((x[None], y[None]), moved), list(moved.values()), create_graph=True
                )
            ]
        )
        for x, y in zip(*batch, strict=True)
    ]
    (slope,) = torch.autograd.grad(torch.cov(torch.stack(rows).T).trace(), amount)
    expected = 0.1**2 / (2 * 20) * 3 * float(slope)
    assert sgd_advantage(objective, batch, lr=0.1, steps=3) == pytest.approx(expected, rel=1e-3)


def test_measuring_leaves_every_bit_as_it_was():
    objective, batch = network()
    before = digest(objective.params)
    sgd_advantage(objective, batch, lr=0.1)
    assert digest(objective.params) == before


def test_no_signal_means_no_finite_batch_size():
    assert GradientScatter(1.0, -0.1, 8).noise_scale == float("inf")


def test_what_cannot_be_is_refused_by_name():
    objective, (x, y) = network()
    with pytest.raises(ArgumentError, match="1 example"):
        gradient_scatter(objective, (x[:1], y[:1]))
    with pytest.raises(ArgumentError, match="steps=1"):
        sgd_advantage(objective, (x, y), 0.1, steps=1)
    with pytest.raises(ArgumentError, match="epsilon"):
        sgd_advantage(objective, (x, y), 0.1, epsilon=0.0)
