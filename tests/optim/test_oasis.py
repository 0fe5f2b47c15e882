"""OASIS: exact on diagonal problems, AdGD without its metric, one gradient more by batches."""

import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, NonFiniteError, UnsupportedError
from covector.optim import OASIS, AdGD, HutchinsonDiagonal, Lookahead, SquaredGradients
from covector.optim.adgd import adgd_step_size
from covector.optim.slots import Bucket

DOUBLE = torch.float64


def parameter(*values):
    return nn.Parameter(torch.tensor(values, dtype=DOUBLE))


CURVATURES = torch.tensor([1e-3, 1.0, 50.0], dtype=DOUBLE)


def diagonal(x):
    return (CURVATURES * (x - 1.0).square()).sum() / 2


def valley(x):
    return (1 - x[0]) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2


def test_a_diagonal_quadratic_problem_is_halved_every_step():
    """Signs give the diagonal exactly, the ratio of norms is then 1, and half of it the step size."""
    x = parameter(3.0, -2.0, 5.0)
    optimizer = OASIS([x], floor=1e-9, eta0=0.5, probes=1, stochastic=False)
    error = x.detach() - 1.0
    for _ in range(30):
        optimizer.step(lambda: diagonal(x))
        torch.testing.assert_close(x.detach() - 1.0, error / 2, rtol=1e-6, atol=1e-12)
        error = x.detach() - 1.0
        assert optimizer.eta == pytest.approx(0.5, rel=1e-6)
    torch.testing.assert_close(optimizer.state[x]["hessian_diagonal"], CURVATURES, rtol=1e-12, atol=0.0)


def malitsky(f, start, eta0, steps):
    """Algorithm 1 of Malitsky and Mishchenko, written out."""
    x, eta, theta, before = start.clone(), eta0, math.inf, None
    path = []
    for _ in range(steps):
        y = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(f(y), y)
        if before is not None:
            last, gradient = before
            limit = float((x - last).norm() / (2 * (g - gradient).norm()))
            new = limit if theta == math.inf else min(math.sqrt(1 + theta) * eta, limit)
            eta, theta = new, new / eta
        before = x.clone(), g
        x = x - eta * g
        path.append(x)
    return path


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_without_its_metric_it_is_adgd(stochastic, frozen):
    x = parameter(-1.0, 1.5)
    expected = malitsky(valley, x.detach(), 1e-3, 60)
    if frozen:
        optimizer = OASIS([x], eta0=1e-3, stochastic=stochastic, floor=1.0, probes=1)
        # the diagonal held at zero, so that the floor is the metric
        optimizer.rule.metric._draw = lambda buckets, probe: [
            [torch.zeros_like(p) for p in bucket.params] for bucket in buckets
        ]
    else:
        optimizer = AdGD([x], eta0=1e-3, stochastic=stochastic)
    for point in expected:
        optimizer.step(lambda: valley(x))
        torch.testing.assert_close(x.detach(), point, rtol=1e-10, atol=1e-12)


def test_by_batches_both_gradients_are_of_the_present_batch():
    x = parameter(4.0)
    optimizer = AdGD([x], eta0=0.1)
    curvatures = [1.0, 100.0, 3.0, 20.0]
    for c in curvatures:
        optimizer.step(lambda c=c: c * x.square().sum() / 2)
        if c > 1.0:
            assert optimizer.eta <= 1 / (2 * c) * (1 + 1e-12)
    kept = AdGD([x], eta0=0.1, stochastic=False)
    assert not kept.rule.needs_closure
    for _ in range(3):
        x.grad = x.detach().clone()
        kept.step()
    assert kept.eta == pytest.approx(0.5)


def test_products_with_signs_have_the_diagonal_as_mean():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, generator=generator, dtype=DOUBLE)
    hessian = root @ root.mT
    x = parameter(1.0, 2.0, 3.0, 4.0)
    optimizer = OASIS([x], probes=4000)
    optimizer.step(lambda: x @ hessian @ x / 2)
    torch.testing.assert_close(optimizer.state[x]["hessian_diagonal"], hessian.diagonal(), rtol=0.1, atol=0.15)


def test_the_average_forgets_at_its_rate():
    x = parameter(1.0)
    optimizer = OASIS([x], beta2=0.9, probes=1, adaptive=False)
    for c in (1.0, 3.0):
        optimizer.step(lambda c=c: c * x.square().sum() / 2)
    assert float(optimizer.state[x]["hessian_diagonal"]) == pytest.approx(0.9 + 0.3)
    assert optimizer.eta == 1e-3


def test_l2_decay_is_part_of_the_problem():
    x = parameter(3.0, -2.0, 5.0)
    optimizer = OASIS([x], floor=1e-9, eta0=0.5, probes=1, stochastic=True, weight_decay=0.5)
    for _ in range(60):
        optimizer.step(lambda: diagonal(x))
    torch.testing.assert_close(x.detach(), CURVATURES / (CURVATURES + 0.5), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("calls_backward", [False, True])
def test_a_wrapper_hands_the_closure_on(calls_backward):
    ends = []
    for wrap in (lambda optimizer: optimizer, lambda optimizer: Lookahead(optimizer, k=100)):
        x = parameter(-1.0, 1.5)
        optimizer = wrap(OASIS([x], probes=2, beta2=0.9))

        def closure(x=x):
            x.grad = None
            loss = valley(x)
            if calls_backward:
                loss.backward()
            return loss

        for _ in range(5):
            loss = optimizer.step(closure)
        ends.append((x.detach().clone(), float(loss.detach())))
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=1e-6, atol=1e-9)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-6)


def test_a_step_size_and_another_metric_go_together():
    x = parameter(3.0, -2.0, 5.0)
    optimizer = OASIS([x], metric=SquaredGradients(beta=0.99, root=True, floor=1e-9), stochastic=False)
    start = float(diagonal(x).detach())
    for _ in range(100):
        loss = optimizer.step(lambda: diagonal(x))
    assert float(loss.detach()) < 0.05 * start


def test_step_sizes_of_the_limits():
    assert adgd_step_size(0.1, math.inf, 0.0, 0.0) == 0.1
    assert adgd_step_size(0.1, math.inf, 3.0, 1.0) == 1.5
    assert adgd_step_size(0.1, 8.0, 3.0, 1.0) == pytest.approx(0.3)


def test_scale_of_a_parameter_hardly_matters():
    ends = []
    for scale in (1.0, 1e3):
        x = parameter(-1.0, 1.5 / scale)
        optimizer = OASIS([x], floor=1e-12, beta2=0.95, probes=50, stochastic=False, eta0=1e-2)
        for _ in range(40):
            loss = optimizer.step(lambda x=x, s=scale: (x[0] - 1) ** 2 + (s * x[1] - 2) ** 2)
        ends.append(float(loss.detach()))
    assert ends[0] < 1e-8
    assert ends[1] < 1e-8


def test_what_cannot_work_is_refused_and_nothing_moves():
    x = parameter(1.0)
    for options in ({"eta0": 0.0}, {"floor": 0.0}, {"probes": 0}, {"beta2": 1.0}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            OASIS([x], **options)
    with pytest.raises(UnsupportedError, match="capturable"):
        OASIS([x], capturable=True)
    optimizer = OASIS([x])
    before = str(optimizer.state_dict())
    with pytest.raises(ArgumentError, match=r"closure=None.*step\(closure\)"):
        optimizer.step()
    with pytest.raises(NonFiniteError):
        optimizer.step(lambda: (x * math.inf).sum())
    assert str(optimizer.state_dict()) == before
    x.grad = torch.ones_like(x)
    bucket = Bucket({"decoupled": True, "weight_decay": 0.0}, optimizer.slots["default"], [x], [x.grad], [{}], 1, [1.0])
    with pytest.raises(ArgumentError, match="closure"):
        HutchinsonDiagonal().advance([bucket])
