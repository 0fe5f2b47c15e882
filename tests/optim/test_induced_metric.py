"""The induced metric against a dense solve, in its three forms, and the bound of its step."""

import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, NonFiniteError
from covector.optim import InducedMetric


def step(form="sgd", g=None, **options):
    p = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    p.grad = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64) if g is None else g
    loss = options.pop("loss", None)
    update = InducedMetric([p], lr=1.0, momentum=0.0, beta=0.0, form=form, **options).update(loss=loss)[p]
    return -update, p.grad


@pytest.mark.parametrize("xi", [0.0, 0.1, 10.0])
def test_a_step_is_the_solution_of_the_metric(xi):
    moved, g = step(xi=xi)
    metric = torch.eye(5, dtype=torch.float64) + xi * torch.outer(g, g)
    torch.testing.assert_close(moved, torch.linalg.solve(metric, g), rtol=1e-12, atol=0.0)


def test_the_surface_of_the_logarithm_is_that_metric():
    loss, xi = 0.3, 0.7
    moved, g = step("log", xi=xi, loss=torch.tensor(loss))
    slope = g / loss
    metric = torch.eye(5, dtype=torch.float64) + xi * torch.outer(slope, slope)
    torch.testing.assert_close(moved, torch.linalg.solve(metric, slope), rtol=1e-6, atol=0.0)


def test_the_rms_form_is_the_metric_on_a_diagonal():
    xi, eps = 0.7, 1e-8
    moved, g = step("rms", xi=xi, eps=eps)
    metric = torch.diag(g.abs() + eps) + xi * torch.outer(g, g)
    torch.testing.assert_close(moved, torch.linalg.solve(metric, g), rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("form", ["sgd", "log", "rms"])
def test_averages_are_corrected_over_many_steps(paths, form):
    mu, xi, beta, b, lr, eps, loss = 0.9, 0.3, 0.8, 0.99, 0.05, 1e-8, 2.5
    ours = paths.run(
        lambda params: InducedMetric(params, lr=lr, xi=xi, beta=beta, form=form), steps=50, loss=torch.tensor(loss)
    )
    params = paths.start()
    m, v, q = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params], 0.0
    for t in range(1, 51):
        grads = [paths.gradient(p, t - 1) for p in params]
        square = 0.0
        for i, g in enumerate(grads):
            m[i], v[i] = mu * m[i] + (1 - mu) * g, b * v[i] + (1 - b) * g * g
            root = (v[i] / (1 - b**t)).sqrt() + eps if form == "rms" else torch.ones_like(g)
            square += float((g * g / root).sum())
        q = beta * q + (1 - beta) * xi * square
        corrected = q / (1 - beta**t)
        factor = loss / (loss**2 + corrected) if form == "log" else 1 / (1 + corrected)
        for i, p in enumerate(params):
            root = (v[i] / (1 - b**t)).sqrt() + eps if form == "rms" else 1.0
            p.data.sub_(lr * factor * m[i] / (1 - mu**t) / root)
    assert paths.distance(ours, [p.detach() for p in params]) < 1e-12


@pytest.mark.parametrize("xi", [0.01, 1.0, 100.0])
def test_no_step_is_longer_than_its_bound_which_is_reached(xi):
    unit = torch.tensor([0.6, 0.8], dtype=torch.float64)
    lengths = [
        float(step(xi=xi, g=torch.cat([size * unit, torch.zeros(3)]))[0].norm())
        for size in (1e-3, 1.0 / math.sqrt(xi), 1.0, 1e3)
    ]
    bound = 1 / (2 * math.sqrt(xi))
    assert max(lengths) <= bound * (1 + 1e-12)
    assert lengths[1] == pytest.approx(bound, rel=1e-12)


def test_the_mean_makes_xi_independent_of_the_number_of_parameters():
    factors = []
    for count in (10, 1000):
        p = nn.Parameter(torch.zeros(count))
        p.grad = torch.full((count,), 2.0)
        factors.append(float(InducedMetric([p], normalize="mean").update()[p][0]))
    assert factors[0] == pytest.approx(factors[1], rel=1e-6)


def test_one_number_serves_all_groups():
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))]
    for p in params:
        p.grad = torch.ones_like(p)
    updates = InducedMetric([{"params": params[:1]}, {"params": params[1:]}], lr=1.0, xi=1.0).update()
    assert [float(updates[p][0]) for p in params] == pytest.approx([-1 / 6, -1 / 6])


@pytest.mark.parametrize(
    ("loss", "error"),
    [(None, ArgumentError), (torch.tensor(0.0), NonFiniteError), (torch.tensor(math.nan), NonFiniteError)],
)
def test_the_logarithm_needs_a_positive_loss(loss, error):
    p = nn.Parameter(torch.zeros(2))
    optimizer = InducedMetric([p], form="log")
    p.grad = torch.ones(2)
    before = str(optimizer.state_dict())
    with pytest.raises(error):
        optimizer.step(loss=loss)
    assert str(optimizer.state_dict()) == before
    assert torch.equal(p, torch.zeros(2))


@pytest.mark.parametrize(
    "options",
    [{"xi": -1.0}, {"beta": 1.0}, {"form": "exp"}, {"normalize": "sum"}, {"momentum": 1.0}, {"beta_rms": 2.0}],
    ids=str,
)
def test_a_hyperparameter_out_of_range_is_named(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        InducedMetric([nn.Parameter(torch.zeros(1))], **options)
