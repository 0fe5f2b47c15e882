"""Trust regions: three known optimizers, the ball they keep to, composite terms, extrapolation and certificates."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from covector.errors import ArgumentError, CompositionError
from covector.optim import (
    Box,
    DualNormMonitor,
    Frobenius,
    Lasso,
    MaxAbs,
    Muon,
    Scion,
    Signum,
    Spectral,
    TrustRegion,
    trust_region,
    trust_region_bound,
)

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def run(make: Any, steps: int = 8, shape: tuple[int, ...] = (5, 4), **options: Any) -> Tensor:
    p = nn.Parameter(draw(*shape, seed=99))
    optimizer = make([p], **options)
    for step in range(steps):
        p.grad = draw(*shape, seed=step)
        optimizer.step()
    return p.detach()


def test_in_the_spectral_norm_it_is_muon() -> None:
    ours = run(TrustRegion, lr=0.02, norm=Spectral("newton-schulz"), momentum=0.9, weight_decay=0.1, warm=False)
    muon = run(Muon, lr=0.02, momentum=0.9, weight_decay=0.1, nesterov=False, scale="none")
    torch.testing.assert_close(ours, muon)


def test_in_the_max_norm_it_is_signum() -> None:
    ours = run(TrustRegion, lr=0.02, norm=MaxAbs(), momentum=0.9, weight_decay=0.1, warm=False)
    torch.testing.assert_close(ours, run(Signum, lr=0.02, momentum=0.9, weight_decay=0.1))


@pytest.mark.parametrize("warm", [True, False])
def test_in_the_euclidean_norm_it_is_normalized_sgd_with_momentum(warm: bool) -> None:
    w, m = draw(5, 4, seed=99), draw(5, 4, seed=0) if warm else torch.zeros(5, 4, dtype=F64)
    for step in range(8):
        m = 0.9 * m + 0.1 * draw(5, 4, seed=step)
        w = w - 0.02 * m / m.norm()
    torch.testing.assert_close(run(TrustRegion, lr=0.02, norm=Frobenius(), momentum=0.9, warm=warm), w)


@pytest.mark.parametrize("norm", [Spectral("svd"), MaxAbs(), Frobenius()], ids=str)
def test_weight_decay_keeps_the_iterates_in_a_ball(norm: Any) -> None:
    p = nn.Parameter(draw(5, 4))
    optimizer = TrustRegion([p], lr=0.3, norm=norm, weight_decay=0.5)
    bound = max(float(norm.norm(p.detach())), 1 / 0.5)
    for step in range(60):
        p.grad = draw(5, 4, seed=step) + 1.0
        optimizer.step()
        assert float(norm.norm(p.detach())) <= bound * (1 + 1e-12)
    assert float(norm.norm(p.detach())) > 0.5 * 2.0  # most of the way to its surface


def test_scion_is_a_trust_region_within_a_ball() -> None:
    w, m = draw(5, 4, seed=99), draw(5, 4, seed=0)
    for step in range(8):
        m = 0.9 * m + 0.1 * draw(5, 4, seed=step)
        w = (1 - 0.1) * w - 0.1 * 3.0 * m.sign()
    torch.testing.assert_close(run(Scion, lr=0.1, radius=3.0, norm=MaxAbs()), w)


def best(m: Tensor, x: Tensor, lr: float, term: Any, low: float, high: float) -> float:
    """The least of ``<m, y> + R(y)`` over the corners of the region: it is linear between them."""
    total = 0.0
    for slope, center in zip(m.flatten().tolist(), x.flatten().tolist(), strict=True):
        corners = {max(center - lr, low), min(center + lr, high)}
        corners |= {0.0} if min(corners) < 0 < max(corners) else set()
        total += min(slope * y + term(y) for y in corners)
    return total


def test_a_step_in_a_box_is_the_best_in_the_box() -> None:
    p = nn.Parameter(draw(3, 3).clamp(-0.5, 0.5))
    x, g = p.detach().clone(), draw(3, 3, seed=1)
    optimizer = TrustRegion([p], lr=0.3, norm=MaxAbs(), composite=Box(-0.5, 0.5))
    p.grad = g
    optimizer.step()
    assert float(p.detach().abs().max()) <= 0.5
    assert float((p.detach() - x).abs().max()) <= 0.3 + 1e-12
    assert float((g * p.detach()).sum()) == pytest.approx(best(g, x, 0.3, lambda y: 0.0, -0.5, 0.5))


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_step_with_a_lasso_is_the_best_with_it(decay: float) -> None:
    for seed in range(5):
        p = nn.Parameter(0.5 * draw(3, 3, seed=seed))
        x, g = (1 - 0.3 * decay) * p.detach().clone(), draw(3, 3, seed=seed + 10)
        optimizer = TrustRegion([p], lr=0.3, norm=MaxAbs(), composite=Lasso(0.8), weight_decay=decay)
        p.grad = g
        optimizer.step()
        y = p.detach()
        assert float((y - x).abs().max()) <= 0.3 + 1e-12
        reached = float((g * y).sum() + 0.8 * y.abs().sum())
        assert reached == pytest.approx(best(g, x, 0.3, lambda y: 0.8 * abs(y), -math.inf, math.inf))


def test_small_slopes_become_exact_zeros_and_stay() -> None:
    p = nn.Parameter(0.2 * draw(4, 4))
    optimizer = TrustRegion([p], lr=0.1, norm=MaxAbs(), composite=Lasso(0.5))
    for _ in range(20):
        p.grad = torch.full((4, 4), 0.1, dtype=F64)
        optimizer.step()
    assert not p.any()


def test_extrapolated_gradients_are_taken_ahead_of_the_iterates() -> None:
    mu, lr = 0.8, 0.05
    p = nn.Parameter(draw(4, 3))
    optimizer = TrustRegion([p], lr=lr, norm=Frobenius(), momentum=mu, extrapolate=True)
    x = y = draw(4, 3)
    m = None
    for step in range(10):
        if step == 6:  # what was extrapolated keeps its own learning rate
            optimizer.param_groups[0]["lr"] = lr = 0.02
        p.grad, g = 2 * p.detach() + 0.1, 2 * y + 0.1
        optimizer.step()
        m = g if m is None else mu * m + (1 - mu) * g
        new = x - lr * m / m.norm()
        y = new + mu / (1 - mu) * (new - x)
        x = new
        torch.testing.assert_close(p.detach(), y)
        torch.testing.assert_close(optimizer.iterates()[p].detach(), x)


def test_without_extrapolation_the_iterates_are_the_parameters() -> None:
    p = nn.Parameter(draw(2, 2))
    assert torch.equal(TrustRegion([p]).iterates()[p], p.detach())


def test_the_monitor_reads_dual_norms_of_the_momentum() -> None:
    a, b = nn.Parameter(draw(4, 3)), nn.Parameter(draw(5))
    optimizer = TrustRegion([{"params": [a], "norm": Spectral("svd")}, {"params": [b], "norm": MaxAbs()}])
    monitor = DualNormMonitor(optimizer)
    a.grad, b.grad = draw(4, 3), draw(5)
    optimizer.step()
    expected = float(torch.linalg.svdvals(a.grad).sum() + b.grad.abs().sum())
    assert monitor.total() == pytest.approx(expected)
    with pytest.raises(CompositionError, match="Signum"):
        DualNormMonitor(Signum([a]))


@pytest.mark.parametrize(
    ("noise", "ratio", "gap", "eps"), itertools.product([0.0, 0.1, 3.0], [1.0, 8.0], [0.5, 50.0], [0.01, 1.0])
)
def test_the_plan_reaches_the_accuracy_it_was_made_for(noise: float, ratio: float, gap: float, eps: float) -> None:
    plan = trust_region(2.0, noise, ratio, gap, eps)
    assert trust_region_bound(2.0, noise, ratio, gap, *plan) <= eps * (1 + 1e-9)
    assert trust_region_bound(2.0, noise, ratio, gap, plan.lr, plan.momentum, plan.steps // 20 + 1) > eps / 20


def test_the_certificate_holds_on_a_quadratic_with_noise() -> None:
    """``f(X) = ||A X - B||^2 / 2``, whose smoothness in the spectral norm is at most min(m, n) s_max(A)^2."""
    a, b = draw(6, 4) / 4, draw(6, 4, seed=1)
    smoothness = 4 * float(torch.linalg.matrix_norm(a, 2)) ** 2
    solution = torch.linalg.lstsq(a, b).solution
    gap = float(0.5 * (b**2).sum() - 0.5 * ((a @ solution - b) ** 2).sum())
    sigma, rho = 0.05, 2.0
    plan = trust_region(smoothness, sigma, rho, gap, eps=1.5)
    x = nn.Parameter(torch.zeros(4, 4, dtype=F64))
    optimizer = TrustRegion([x], lr=plan.lr, momentum=plan.momentum, norm=Spectral("svd"))
    least = math.inf
    steps = min(plan.steps, 400)
    for k in range(steps):
        gradient = a.T @ (a @ x.detach() - b)
        least = min(least, float(torch.linalg.svdvals(gradient).sum()))
        assert least <= trust_region_bound(smoothness, sigma, rho, gap, plan.lr, plan.momentum, k + 1)
        x.grad = gradient + sigma / 4 * draw(4, 4, seed=k + 100)
        optimizer.step()
    assert least <= 1.5


def test_what_cannot_work_is_refused() -> None:
    p = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(CompositionError, match="closed form"):
        TrustRegion([p], norm=Spectral(), composite=Box(-1.0, 1.0))
    with pytest.raises(ArgumentError, match="composite"):
        TrustRegion([p], norm=MaxAbs(), composite=Box(-1.0, 1.0), extrapolate=True)
    with pytest.raises(ArgumentError, match="weight_decay"):
        TrustRegion([p], extrapolate=True, weight_decay=0.1)
    with pytest.raises(ArgumentError, match="radius"):
        Scion([p], radius=0.0)
    with pytest.raises(ArgumentError, match="strength"):
        Lasso(-1.0)
    with pytest.raises(ArgumentError, match="eps"):
        trust_region(1.0, 1.0, 1.0, 1.0, 0.0)
    with pytest.raises(ArgumentError, match="noise"):
        trust_region(1.0, -1.0, 1.0, 1.0, 1.0)
