"""Gradient orthogonalization as a trust region: certificates, the order of momentum and map, and the ball."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.matrices_lm import SETTING, TUNING, composed, tuned
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import Spectral, TrustRegion, trust_region, trust_region_bound
from covector.optim.ema import MOMENTUM
from covector.optim.lmo import LMO
from covector.optim.slots import Bucket, Slots
from covector.optim.steepest import GRADIENT

F64 = torch.float64


@paper(
    "non-euclidean-trust-region",
    parts=["covector.optim.TrustRegion", "covector.optim.trust_region", "covector.optim.Spectral"],
)
def evidence(budget: Budget) -> Evidence:
    """A plan carried out, momentum before and after the map, and iterates in a ball."""
    certificates, drawn = certificate_findings(budget)
    findings = [*certificates, order_finding(budget), ball_finding(budget)]
    return Evidence("non-euclidean-trust-region", findings, [drawn])


def noise(budget: Budget, *shape: int, seed: int) -> Tensor:
    """Normal numbers in double precision."""
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(10_000 * budget.seed + seed))


def certificate_findings(budget: Budget) -> tuple[list[Finding], Path]:
    """Noisy matrix least squares, whose smoothness is known, with the calculator's settings."""
    m, n, sigma, eps = 8, 6, 0.2, budget.choose(smoke=2.0, full=1.0)
    a, b = noise(budget, 12, m, seed=1) / 6, noise(budget, 12, n, seed=2)
    rank = min(m, n)
    smoothness = rank * float(torch.linalg.matrix_norm(a, 2)) ** 2
    rest = a @ torch.linalg.lstsq(a, b).solution - b
    gap = float(0.5 * (b**2).sum() - 0.5 * (rest**2).sum())
    rho = math.sqrt(rank)
    plan = trust_region(smoothness, sigma, rho, gap, eps)
    x = nn.Parameter(torch.zeros(m, n, dtype=F64))
    optimizer = TrustRegion([x], lr=plan.lr, momentum=plan.momentum, norm=Spectral("svd"))
    steps = min(plan.steps, budget.choose(smoke=600, full=6000))
    least: list[float] = []
    bounds, reached = [], None
    for k in range(steps):
        gradient = a.T @ (a @ x.detach() - b)
        dual = float(torch.linalg.svdvals(gradient).sum())
        least.append(min(dual, least[-1]) if least else dual)
        bounds.append(trust_region_bound(smoothness, sigma, rho, gap, plan.lr, plan.momentum, k + 1))
        reached = k if reached is None and dual <= eps else reached
        x.grad = gradient + sigma / math.sqrt(m * n) * noise(budget, m, n, seed=100 + k)
        optimizer.step()
    path = budget.path("dual-norm-and-its-bound-by-step.svg")
    with figure(path, x="step", y="dual norm of the gradient") as axes:
        axes.loglog(range(1, steps + 1), least, label="least so far")
        axes.loglog(range(1, steps + 1), bounds, label="bound of Theorem 2")
        axes.axhline(eps, color="black", linewidth=1, linestyle=":", label="accuracy asked for")
    largest = max(value / bound for value, bound in zip(least, bounds, strict=True))
    setting = (
        f"||A X - B||^2 / 2 with X {m} x {n}, spectral norm, noise {sigma}: radius {plan.lr:.2g}, "
        f"momentum {plan.momentum:.3f}"
    )
    return [
        Finding(
            "The least dual norm stays below Theorem 2's bound at every step", "at most 1", largest, 1.0,
            "measured / bound, largest", largest <= 1.0,
            f"{setting}; {steps:,} steps; at the last one {bounds[-1] / least[-1]:.0f} times below: the bound is loose",
        ),
        Finding(
            "The calculator's settings reach the accuracy in its number of steps", f"at most {plan.steps:,}",
            reached + 1 if reached is not None else "not reached", plan.steps, "steps", reached is not None,
            f"{setting}; accuracy {eps}; stopped after {steps:,} steps",
        ),
    ], path  # fmt: skip


class Average:
    """Momentum after the map: an average of directions, as Orthogonal-SGDM takes it."""

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        mu: Any = bucket.group["momentum"]
        for state, d in zip(bucket.states, directions, strict=True):
            state["direction_average"] = mu * state.get("direction_average", 0.0) + (1 - mu) * d
        return [state["direction_average"].clone() for state in bucket.states]


def order_finding(budget: Budget) -> Finding:
    """Momentum, then the polar factor; and the other way round."""
    lmo = LMO(Spectral("newton-schulz"))
    before = tuned(budget, composed(Slots(MOMENTUM, maps=(lmo,)), momentum=0.9), (0.025, 0.05, 0.1))
    after = tuned(budget, composed(Slots(GRADIENT, maps=(lmo, Average())), momentum=0.9), (0.05, 0.1, 0.2))
    return Finding(
        "Momentum belongs before the orthogonalization (Muon), not after it", "Muon is better", before.loss, after.loss,
        "validation loss, nats", before.loss < after.loss - 0.01 if budget.name == "full" else None,
        f"{SETTING}; {TUNING} ({before.lr} and {after.lr}); differences below 0.01 are "
        "noise",
    )  # fmt: skip


def ball_finding(budget: Budget) -> Finding:
    """Iterates with weight decay under gradients that always push outwards."""
    p, norm = nn.Parameter(0.1 * noise(budget, 6, 6, seed=3)), Spectral("svd")
    optimizer = TrustRegion([p], lr=0.2, weight_decay=0.5, norm=norm)
    start = float(norm.norm(p.detach()))
    bound = max(start, 2.0)
    ratios = []
    for k in range(200):
        p.grad = -p.detach() + 0.1 * noise(budget, 6, 6, seed=k)
        optimizer.step()
        ratios.append(float(norm.norm(p.detach())) / bound)
    return Finding(
        "Weight decay keeps iterates in the ball of radius lr / decay", "at most 1", max(ratios), 1.0,
        "norm / radius, largest", 0.9 < max(ratios) <= 1 + 1e-9,
        f"200 steps, gradients that push outwards; the ball has radius {bound:.3g}, iterates start at {start:.3g} and "
        f"end at {bound * ratios[-1]:.3g}",
    )  # fmt: skip
