"""SANIA: Polyak's step in closed form, one step for quadratic problems, and losses that no scale changes."""

import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, NonFiniteError, UnsupportedError
from covector.optim import SANIA
from covector.optim.polyak import implicit_polyak

DOUBLE = torch.float64
METRICS = ("adagrad_sqr", "adam_sqr", "adagrad", "adam", "hutchinson", "newton", "identity")


def parameter(*values):
    return nn.Parameter(torch.tensor(values, dtype=DOUBLE))


def positive(n, seed=0):
    root = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    return root @ root.mT + 0.1 * torch.eye(n, dtype=DOUBLE)


@pytest.mark.parametrize("excess", [0.0, 1e-12, 0.1, 0.499, 0.5])
def test_the_step_is_the_root_of_the_model(excess):
    q = 1.0
    step = implicit_polyak(excess, q)
    assert excess - step * q + step**2 * q / 2 == pytest.approx(0.0, abs=1e-15)
    assert implicit_polyak(0.6, q) == 1.0


def test_newton_s_metric_solves_a_quadratic_problem_in_one_step():
    hessian, x = positive(5), parameter(1.0, -2.0, 3.0, 0.5, 0.1)
    optimizer = SANIA([x], metric="newton")
    optimizer.step(lambda: x @ hessian @ x / 2)
    assert optimizer.step_size == pytest.approx(1.0, abs=1e-4)
    assert float(x.detach().abs().max()) < 1e-3


def test_hutchinson_s_metric_solves_a_diagonal_problem_in_one_step():
    curvatures, x = torch.tensor([0.1, 1.0, 30.0], dtype=DOUBLE), parameter(1.0, -2.0, 3.0)
    optimizer = SANIA([x], metric="hutchinson", floor=1e-9, probes=1)
    optimizer.step(lambda: (curvatures * x.square()).sum() / 2)
    # 2 l = q but for rounding, whose root it is
    assert optimizer.step_size == pytest.approx(1.0, abs=1e-6)
    assert float(x.detach().abs().max()) < 1e-5


def test_the_identity_is_the_implicit_step_of_polyak():
    x, hessian = parameter(1.0, -2.0, 3.0), positive(3)
    optimizer = SANIA([x], metric="identity", f_star=0.5)
    w = x.detach().clone()
    for _ in range(30):
        loss = w @ hessian @ w / 2 + 0.5
        g = hessian @ w
        ratio = float(2 * (loss - 0.5) / (g @ g))
        w = w - (1 - math.sqrt(1 - ratio) if ratio <= 1 else 1.0) * g
        x.grad = hessian @ x.detach()
        optimizer.step(loss=(x @ hessian @ x).detach() / 2 + 0.5)
        torch.testing.assert_close(x.detach(), w, rtol=1e-6, atol=1e-9)


def test_a_one_dimensional_quadratic_problem_with_its_metric_takes_one_step():
    x = parameter(7.0)
    SANIA([x], metric="identity").step(lambda: (x.square() / 2).sum().backward() or (x.square() / 2).sum().detach())
    assert float(x.detach().abs()) < 1e-6


def logistic(x, w, y):
    return nn.functional.softplus(-y * (x @ w)).mean()


def losses(metric, scales, steps, floor, **options):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(60, 5, generator=generator, dtype=DOUBLE)
    y = torch.where(x @ torch.ones(5, dtype=DOUBLE) > 0, 1.0, -1.0).double()
    w = nn.Parameter(torch.zeros(5, dtype=DOUBLE))
    optimizer = SANIA([w], metric=metric, floor=floor, **options)
    found = []
    for _ in range(steps):
        loss = logistic(x * scales, w, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(loss=loss.detach())
        found.append(float(loss.detach()))
    return torch.tensor(found)


SCALES = torch.tensor([1e-2, 0.3, 1.0, 20.0, 400.0], dtype=DOUBLE)


def test_rescaled_features_give_the_same_losses():
    """w' = w / scales: the metric is of squared gradients, so that the step is too."""
    plain = losses("adagrad_sqr", torch.ones(5, dtype=DOUBLE), 100, 1e-300)
    scaled = losses("adagrad_sqr", SCALES, 100, 1e-300)
    assert float((plain - scaled).abs().max()) < 1e-10
    assert float(plain[-1]) < 0.2
    # in exact arithmetic; the steps of this one amplify rounding
    plain, scaled = (losses("adam_sqr", s, 20, 1e-300) for s in (torch.ones(5, dtype=DOUBLE), SCALES))
    assert float((plain - scaled).abs().max()) < 1e-6


@pytest.mark.parametrize(("metric", "floor"), [("adagrad", 1e-300), ("adam", 1e-300), ("adagrad_sqr", 0.1)])
def test_roots_and_floors_break_the_invariance(metric, floor):
    plain, scaled = (losses(metric, s, 20, floor) for s in (torch.ones(5, dtype=DOUBLE), SCALES))
    assert float((plain - scaled).abs().max()) > 1e-2


def test_metrics_are_the_published_ones():
    gradients = [2.0, -1.0, 0.5]
    for metric, expected in {
        "adagrad_sqr": lambda gs: sum(g * g for g in gs),
        "adagrad": lambda gs: math.sqrt(sum(g * g for g in gs)),
        "adam_sqr": lambda gs: sum(0.1 * 0.9 ** (len(gs) - 1 - i) * g * g for i, g in enumerate(gs)) / (1 - 0.9 ** len(gs)),
    }.items():  # fmt: skip
        x = parameter(0.0)
        optimizer = SANIA([x], metric=metric, floor=1e-12, beta2=0.9)
        for t, g in enumerate(gradients, 1):
            x.grad = torch.tensor([g], dtype=DOUBLE)
            update = float(optimizer.update(loss=torch.tensor(1e-3))[x])
            b = expected(gradients[:t])
            assert update == pytest.approx(-implicit_polyak(1e-3, g * g / b) * g / b, rel=1e-6)


def test_one_step_serves_all_groups_and_a_rate_divides_the_metric():
    x, y = parameter(0.0), nn.Parameter(torch.zeros(2))
    optimizer = SANIA([{"params": [x], "lr": 0.5}, {"params": [y], "lr": 0.0}], metric="identity")
    x.grad, y.grad = torch.tensor([2.0], dtype=DOUBLE), torch.tensor([100.0, 0.0])
    updates = optimizer.update(loss=torch.tensor(0.5))
    # in the metric 1 / lr: q = 0.5 * 4
    assert float(updates[x]) == pytest.approx(-implicit_polyak(0.5, 2.0) * 0.5 * 2.0)
    assert updates[y].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_descends(metric):
    hessian, x = positive(4), parameter(1.0, -1.0, 0.5, 2.0)
    optimizer = SANIA([x], metric=metric, probes=10)
    start = float(x.detach() @ hessian @ x.detach())
    for _ in range(60):
        optimizer.step(lambda: x @ hessian @ x if metric in ("newton", "hutchinson") else backward(x, hessian))
    assert float(x.detach() @ hessian @ x.detach()) < 0.25 * start


def backward(x, hessian):
    x.grad = None
    loss = x @ hessian @ x
    loss.backward()
    return loss.detach()


def test_newton_s_metric_is_the_gradient_where_the_hessian_is_not_positive():
    x = parameter(1.0, 1.0)
    optimizer = SANIA([x], metric="newton")
    optimizer.step(lambda: 5.0 - x.square().sum())
    assert bool((x.detach() > 1.0).all())


def test_at_the_least_loss_it_stays():
    x = parameter(1.0)
    x.grad = torch.ones_like(x)
    SANIA([x], f_star=2.0).step(loss=torch.tensor(2.0))
    assert x.tolist() == [1.0]


def test_what_cannot_work_is_refused_and_nothing_moves():
    x = parameter(1.0)
    x.grad = torch.ones_like(x)
    for options in ({"metric": "kate"}, {"f_star": math.nan}, {"floor": 0.0}, {"metric": "newton", "newton_steps": 0}):
        with pytest.raises(ArgumentError, match=list(options)[-1]):
            SANIA([x], **options)
    with pytest.raises(ArgumentError, match="beta2"):
        SANIA([x], metric="adam", beta2=1.0)
    with pytest.raises(UnsupportedError, match="capturable"):
        SANIA([x], capturable=True)
    optimizer = SANIA([x])
    before = str(optimizer.state_dict())
    with pytest.raises(ArgumentError, match=r"loss=None.*step\(closure\)"):
        optimizer.step()
    with pytest.raises(NonFiniteError):
        optimizer.step(loss=torch.tensor(math.nan))
    x.grad = torch.full_like(x, math.nan)
    with pytest.raises(NonFiniteError):
        optimizer.step(loss=torch.tensor(1.0))
    assert str(optimizer.state_dict()) == before
    with pytest.raises(ArgumentError, match="closure=None"):
        SANIA([x], metric="newton").step(loss=torch.tensor(1.0))
    mixed = SANIA([{"params": [x], "maximize": True}, {"params": [parameter(1.0)]}])
    mixed.param_groups[1]["params"][0].grad = torch.ones(1, dtype=DOUBLE)
    x.grad = torch.ones_like(x)
    with pytest.raises(ArgumentError, match="maximize"):
        mixed.step(loss=torch.tensor(1.0))
