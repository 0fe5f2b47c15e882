"""SGD with AdaGrad stepsizes: learning rates over six decades, the certificate, rates with and without noise."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from covector.evidence.budget import Budget
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import SGD, AdaGradNorm

RATES = [10.0**k for k in range(-3, 4)]
SMOOTHNESS = 1.09


@paper("adagrad-stepsizes", parts=["covector.optim.AdaGradNorm", "covector.optim.AdaGradNormStep"])
def evidence(budget: Budget) -> Evidence:
    """Least squares in 20 dimensions, with exact and with noisy gradients."""
    steps = budget.choose(smoke=150, full=2000)
    curvature = torch.linspace(0.05, SMOOTHNESS, 20, dtype=torch.float64)
    rates, drawn = over_rates(budget, curvature, steps)
    return Evidence("adagrad-stepsizes", [*rates, certificate(curvature, steps), speed(budget, curvature)], [drawn])


def follow(
    kind: str, lr: float, curvature: Tensor, steps: int, noise: float, seed: int = 0
) -> tuple[float, Tensor, AdaGradNorm | None]:
    """The final value, the squared gradient norms, and the optimizer where it is AdaGradNorm."""
    generator = torch.Generator().manual_seed(seed)
    x = nn.Parameter(torch.randn(20, generator=generator, dtype=torch.float64))
    optimizer = AdaGradNorm([x], lr=lr) if kind == "AdaGradNorm" else SGD([x], lr=lr)
    squares = []
    for _ in range(steps):
        g = curvature * x.detach()
        squares.append(g.square().sum())
        x.grad = g + noise * torch.randn(20, generator=generator, dtype=torch.float64) if noise else g
        optimizer.step(loss=(curvature * x.detach().square()).sum() / 2)
        if not float(x.detach().abs().max()) < 1e100:
            break
    value = float((curvature * x.detach().square()).sum() / 2)
    return value, torch.stack(squares), optimizer if isinstance(optimizer, AdaGradNorm) else None


def over_rates(budget: Budget, curvature: Tensor, steps: int) -> tuple[list[Finding], Path]:
    """Final values by learning rate."""
    path = budget.path("final-value-by-learning-rate.svg")
    ends: dict[tuple[str, float], list[float]] = {}
    with figure(path, x="learning rate", y="final value") as axes:
        for noise in (0.0, 0.3):
            for kind in ("SGD", "AdaGradNorm"):
                values = [follow(kind, lr, curvature, steps, noise)[0] for lr in RATES]
                ends[kind, noise] = [v if v < 1e6 else math.inf for v in values]
                label = f"{kind}{', noise' if noise else ''}"
                axes.loglog(RATES, [max(v, 1e-24) for v in ends[kind, noise]], "--o" if noise else "-o", label=label)

    def works(kind: str, noise: float) -> int:
        start = float((curvature * follow(kind, 0.0, curvature, 1, 0.0)[0]).mean())
        return sum(value < 0.05 * max(start, 1.0) for value in ends[kind, noise])

    def listed(kind: str, noise: float) -> str:
        return f"{kind}: " + ", ".join(f"{v:.1e}" if math.isfinite(v) else "diverged" for v in ends[kind, noise])

    findings = []
    for noise, claim in ((0.0, "no smoothness has to be known"), (0.3, "nor the noise")):
        ours, theirs = works("AdaGradNorm", noise), works("SGD", noise)
        findings.append(
            Finding(
                f"Learning rates may be wrong by decades: {claim}", "parameter-free up to logarithms", ours, theirs,
                f"of {len(RATES)} rates that work",
                ours > theirs and ours >= 4 if budget.name == "full" or not noise else None,
                f"least squares, 20 dimensions, L = {SMOOTHNESS}, {steps} steps, noise {noise} a coordinate; learning "
                f"rates 0.001 to 1000, a final value below 5 % of the first (or 0.05) works; "
                f"{listed('AdaGradNorm', noise)}; {listed('SGD', noise)}; baseline: SGD",
            )
        )  # fmt: skip
    return findings, path


def certificate(curvature: Tensor, steps: int) -> Finding:
    """The bound of the denominator's growth at each learning rate, without noise."""
    tightest, least = 0.0, 0.0
    for lr in RATES:
        optimizer = follow("AdaGradNorm", lr, curvature, steps, 0.0)[2]
        assert optimizer is not None
        found = optimizer.certificate(f_star=0.0, smoothness=SMOOTHNESS)
        assert found.bound is not None
        tightest, least = max(tightest, found.growth / found.bound), max(least, found.smoothness)
    return Finding(
        "The step's denominator grows no further than (f - f*) / lr + L lr ln(b / b0)", "a proof", tightest, 1.0,
        "growth over bound, largest", tightest <= 1.0,
        f"seven learning rates from 0.001 to 1000, {steps} steps each; turned around, the runs certify "
        f"L >= {least:.3f}, where L = {SMOOTHNESS}",
    )  # fmt: skip


def speed(budget: Budget, curvature: Tensor) -> Finding:
    """How the mean squared gradient norm falls with the number of steps."""
    steps, seeds = budget.choose(smoke=(200, 1), full=(4000, 5))
    slopes = {}
    for noise in (0.0, 1.0):
        total = sum(follow("AdaGradNorm", 1.0, curvature, steps, noise, seed)[1] for seed in range(seeds))
        means = torch.as_tensor(total).cumsum(0) / torch.arange(1, steps + 1) / seeds
        first = steps // 20
        slopes[noise] = float(torch.log(means[-1] / means[first]) / math.log(steps / (first + 1)))
    return Finding(
        "The mean squared gradient falls as 1/T without noise and as 1/sqrt(T) with it, with nothing retuned",
        "-1 and -0.5", slopes[0.0], slopes[1.0], "exponent of T", slopes[0.0] < -0.85 and -0.75 < slopes[1.0] < -0.35,
        f"learning rate 1, noise 0 (measured) and 1 a coordinate (baseline), from T = {steps // 20} to {steps}, "
        f"{seeds} seed(s); holds within 0.15 of -1, and between -0.75 and -0.35",
    )  # fmt: skip
