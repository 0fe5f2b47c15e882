"""Saddle-free Newton against dense eigenvectors, and at saddles where Newton's method stays."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from covector import Objective
from covector.curvature import Hessian
from covector.errors import ArgumentError, CompositionError, NonFiniteError, UnsupportedError
from covector.linalg import DenseOperator
from covector.optim import SaddleFreeNewton
from covector.optim.saddle_free_newton import absolute_model, searched
from covector.trees import flatten


def symmetric(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return a + a.T, torch.randn(n, generator=generator, dtype=torch.float64)


def absolute(a: Tensor, damping: float) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    return vectors @ torch.diag(values.abs() + damping) @ vectors.T


def function(fn: Any, start: Tensor) -> tuple[Objective, Tensor]:
    x = start.clone().requires_grad_()
    return Objective.from_function(lambda p, batch: fn(p["x"]), {"x": x}), x


def network() -> tuple[Objective, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    batch = torch.randn(12, 3, dtype=torch.float64), torch.randint(3, (12,))
    return Objective(model, nn.functional.cross_entropy), batch


@pytest.mark.parametrize("damping", [1e-6, 0.1, 10.0])
def test_in_the_whole_space_the_step_is_that_of_the_dense_absolute_hessian(damping: float) -> None:
    objective, batch = network()
    n = flatten(objective.params).numel()
    hessian = Hessian(objective, batch).dense()
    g = flatten(dict(enumerate(torch.autograd.grad(objective(batch), list(objective.params.values())))))
    assert float(torch.linalg.eigvalsh(hessian)[0]) < -1e-3
    expected = -torch.linalg.solve(absolute(hessian, damping), g)
    before = flatten(objective.params)
    SaddleFreeNewton(objective, krylov=n, damping=damping).step(batch)
    found = flatten(objective.params) - before
    # the gradient has parts where the Hessian is zero but for rounding: they are divided by the damping
    assert float((found - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_in_a_krylov_space_it_is_the_absolute_value_of_the_projected_hessian(steps: int) -> None:
    a, g = symmetric(12)
    powers = [g]
    for _ in range(steps - 1):
        powers.append(a @ powers[-1])
    basis = torch.linalg.qr(torch.stack(powers, 1))[0]
    inner = absolute(basis.T @ a @ basis, 0.3)
    expected = -basis @ torch.linalg.solve(inner, basis.T @ g)
    model = absolute_model(DenseOperator(a), g, steps)
    torch.testing.assert_close(model.step(0.3) @ model.vectors, expected, rtol=1e-8, atol=1e-9)


def test_a_previous_direction_is_in_the_space_and_the_hessian_is_projected_onto_both() -> None:
    a, g = symmetric(12)
    previous = symmetric(12, seed=5)[1]
    model = absolute_model(DenseOperator(a), g, 4, previous)
    v = model.vectors
    torch.testing.assert_close(v @ v.T, torch.eye(5, dtype=torch.float64), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(v @ a @ v.T, torch.diag(model.values), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(v.T @ (v @ previous), previous, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.gradient, v @ g, rtol=1e-9, atol=1e-9)
    assert len(absolute_model(DenseOperator(a), g, 4, 2.0 * g).values) == 4  # nothing new


def test_a_positive_quadratic_is_solved_in_one_step() -> None:
    a, b = symmetric(10)
    a = a @ a.T + torch.eye(10, dtype=torch.float64)
    objective, x = function(lambda x: x @ a @ x / 2 - b @ x, torch.zeros(10, dtype=torch.float64))
    SaddleFreeNewton(objective, krylov=10, damping=1e-12).step(None)
    torch.testing.assert_close(x.detach(), torch.linalg.solve(a, b), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_the_loss_does_not_matter_without_damping(factor: float) -> None:
    a, b = symmetric(8)
    steps = []
    for c in (1.0, factor):
        objective, x = function(lambda x, c=c: c * (x @ a @ x / 2 - b @ x), torch.ones(8, dtype=torch.float64))
        SaddleFreeNewton(objective, krylov=8, damping=1e-13).step(None)
        steps.append(x.detach() - 1.0)
    torch.testing.assert_close(*steps, rtol=1e-6, atol=1e-8)


def quartic(n: int = 20, seed: int = 0) -> Any:
    """``x^T A x / 2 + sum (U^T x)^4 / 4``: a saddle at zero with n / 2 ways down."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    half = n // 2
    down, up = -torch.logspace(-2, 0, half, dtype=torch.float64), torch.logspace(-2, 1, half, dtype=torch.float64)
    values = torch.cat([down, up])

    def fn(x: Tensor) -> Tensor:
        z = u.T @ x
        return (values * z.square()).sum() / 2 + z.pow(4).sum() / 4

    start = 1e-6 * torch.randn(n, generator=generator, dtype=torch.float64)
    return fn, start, -float(down.square().sum()) / 4


@pytest.mark.parametrize("damping", ["search", "lm"])
def test_it_leaves_a_saddle_that_newton_is_drawn_to(damping: str) -> None:
    fn, start, least = quartic()
    objective, x = function(fn, start)
    optimizer = SaddleFreeNewton(objective, krylov=20, damping=damping)
    for _ in range(60):
        optimizer.step(None)
    assert float(fn(x.detach())) < 0.99 * least

    newton = start.clone()
    for _ in range(5):
        h = torch.autograd.functional.hessian(fn, newton)
        newton = newton - torch.linalg.solve(h, torch.autograd.functional.jacobian(fn, newton))
    assert float(newton.norm()) < 1e-10


def test_by_levenberg_and_marquardt_the_loss_never_rises_and_the_damping_follows() -> None:
    objective, batch = network()
    optimizer = SaddleFreeNewton(objective, krylov=10, damping="lm")
    losses, dampings = [], []
    for _ in range(25):
        losses.append(float(optimizer.step(batch)))
        dampings.append(optimizer.group["damping"])
    assert all(later <= earlier for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < 0.5 * losses[0]
    assert len(set(dampings)) > 1


def test_the_search_takes_the_best_of_the_grid_then_larger_ones_then_none() -> None:
    assert searched(lambda damping: abs(damping - 0.1), 1.0, 7.0) == (0.1, True)
    assert searched(lambda damping: 0.0 if damping >= 100.0 else 2.0, 1.0, 7.0) == (100.0, True)
    assert searched(lambda damping: float("nan"), 1.0, 7.0) == (7.0, False)


def test_a_critical_point_is_left_alone() -> None:
    objective, x = function(lambda x: x.square().sum(), torch.zeros(3, dtype=torch.float64))
    assert float(SaddleFreeNewton(objective).step(None)) == 0.0
    assert torch.equal(x.detach(), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("damping", ["search", "lm", 0.1])
def test_a_resumed_run_is_the_same_bit_for_bit(damping: Any) -> None:
    (straight, batch), (halted, _) = network(), network()
    optimizer = SaddleFreeNewton(straight, 0.5, 6, damping, previous=True)
    for _ in range(6):
        optimizer.step(batch)
    first = SaddleFreeNewton(halted, 0.5, 6, damping, previous=True)
    for _ in range(3):
        first.step(batch)
    resumed = SaddleFreeNewton(halted, 0.5, 6, damping, previous=True)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(3):
        resumed.step(batch)
    assert torch.equal(flatten(straight.params), flatten(halted.params))


def test_what_cannot_work_is_refused_and_nothing_moves() -> None:
    objective, batch = network()
    for options in ({"krylov": 0}, {"damping": "lanczos"}, {"damping": -1.0}, {"lr": -1.0}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            SaddleFreeNewton(objective, **options)
    with pytest.raises(CompositionError, match="Objective"):
        SaddleFreeNewton(list(objective.params.values()))  # type: ignore[arg-type]
    dropping = Objective(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), nn.functional.cross_entropy)
    before = flatten(dropping.params)
    with pytest.raises(UnsupportedError, match="Dropout"):
        SaddleFreeNewton(dropping).step((torch.randn(4, 3), torch.tensor([0, 1, 2, 0])))
    with pytest.raises(NonFiniteError, match="loss=nan"):
        SaddleFreeNewton(objective).step((batch[0] * torch.nan, batch[1]))
    with pytest.raises(ArgumentError, match="batch='a closure'"):
        SaddleFreeNewton(objective).step(lambda: objective(batch))
    assert torch.equal(flatten(dropping.params), before)
