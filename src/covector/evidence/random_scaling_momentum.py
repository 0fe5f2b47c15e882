"""Random scaling and momentum: the identity it rests on, and that it does no harm."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits
from covector.evidence.experiments.tuned import compare
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import SGD, Averaged, FadingMirrorDescent, RandomScaling
from covector.random import uniform


@paper(
    "random-scaling-momentum",
    parts=["covector.optim.RandomScaling", "covector.optim.FadingMirrorDescent", "covector.optim.Averaged"],
)
def evidence(budget: Budget) -> Evidence:
    """The identity for three distributions, a non-smooth problem, and the digits."""
    kinks, drawn = nonsmooth(budget)
    return Evidence("random-scaling-momentum", [*identity(budget), kinks, digits_finding(budget)], [drawn])


def kinked(x: Tensor) -> Tensor:
    """``|x| + 0.1 sin(5 x)``."""
    return x.abs() + 0.1 * (5 * x).sin()


def slope(x: Tensor) -> Tensor:
    """Its derivative."""
    return x.sign() + 0.5 * (5 * x).cos()


def gap(x: float, d: float, s: Tensor, weight: Tensor | float = 1.0) -> float:
    """``E[f(x + s d) - f(x)] - E[w f'(x + s d) d]``."""
    at = x + s * d
    return float((kinked(at) - kinked(torch.tensor(x, dtype=s.dtype)) - weight * slope(at) * d).mean())


def identity(budget: Budget) -> list[Finding]:
    """The mean change against the mean slope at the end, over samples of the scale."""
    count = budget.choose(smoke=200_000, full=4_000_000)
    fraction = uniform(budget.seed, count)
    pairs = [(x / 10, d) for x in (-9, -3, 2, 4, 8) for d in (-1.5, -0.7, 0.5, 1.1)]
    exponential, twice = -torch.log1p(-fraction), 2 * fraction
    gaps = {
        "exponential": max(abs(gap(x, d, exponential)) for x, d in pairs),
        "none": max(abs(gap(x, d, torch.ones(1, dtype=torch.float64))) for x, d in pairs),
        "uniform": max(abs(gap(x, d, twice)) for x, d in pairs),
        "uniform, weighted": max(abs(gap(x, d, twice, 2 - twice)) for x, d in pairs),
    }
    limit = 12 / count**0.5
    note = f"|x| + 0.1 sin(5 x), 20 pairs of x and d, {count:,} samples; worst gaps: " + "; ".join(
        f"{name} {value:.2g}" for name, value in gaps.items()
    )
    return [
        Finding(
            "With s ~ Exp(1) the slope at the end of a step is, in the mean, what the step brought", 0,
            gaps["exponential"], gaps["none"], "largest difference", gaps["exponential"] < limit < gaps["none"],
            f"{note}; baseline: no scaling; holds within the sampling error {limit:.1g}",
        ),
        Finding(
            "Uniform scales need the weight 2 - s on the next gradient", 0, gaps["uniform, weighted"], gaps["uniform"],
            "largest difference", gaps["uniform, weighted"] < limit < gaps["uniform"], f"{note}; baseline: no weight",
        ),
    ]  # fmt: skip


def nonsmooth(budget: Budget) -> tuple[Finding, Path]:
    """``mean |a_i x - b_i|``, stochastic subgradients, fading mirror descent with and without scaling, averaged."""
    steps, seeds = budget.choose(smoke=(200, 2), full=(3000, 5))
    makes: dict[str, Callable[[Any], Any]] = {
        "momentum": lambda p: FadingMirrorDescent(p, lr=2e-4, beta=0.99),
        "scaled": lambda p: RandomScaling(FadingMirrorDescent(p, lr=2e-4, beta=0.99), seed=1),
    }
    curves: dict[str, list[list[float]]] = {name: [] for name in makes}
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(200, 10, generator=generator)
        b = a @ torch.randn(10, generator=generator) + torch.randn(200, generator=generator)
        picks = torch.randint(200, (steps, 8), generator=generator)
        for name, make in makes.items():
            x = nn.Parameter(torch.zeros(10))
            optimizer, curve = Averaged(make([x]), decay=0.99), []
            for step, pick in enumerate(picks):
                x.grad = a[pick].T @ (a[pick] @ x.detach() - b[pick]).sign() / len(pick)
                optimizer.step()
                if step % (steps // 50) == 0 or step == steps - 1:
                    with optimizer.averaged():
                        curve.append(float((a @ x.detach() - b).abs().mean()))
            curves[name].append(curve)
    path = budget.path("value-on-absolute-residuals.svg")
    with figure(path, x="step", y="mean |a x - b| at the average") as axes:
        for name, runs in curves.items():
            means = [statistics.fmean(values) for values in zip(*runs, strict=True)]
            axes.plot([i * (steps // 50) for i in range(len(means))], means, label=name)
    ends = {name: [run[-1] for run in runs] for name, runs in curves.items()}
    mean = {name: statistics.fmean(values) for name, values in ends.items()}
    return Finding(
        "On a non-smooth problem scaling does no harm", "optimal rate", mean["scaled"], mean["momentum"],
        "mean absolute residual", abs(mean["scaled"] / mean["momentum"] - 1) < 0.02 if budget.name == "full" else None,
        f"200 residuals, 10 unknowns, batches of 8, beta 0.99, {steps} steps, {seeds} seeds, at the average of the "
        "iterates; holds within 2 %; the theory promises a rate, not a gain over momentum",
    ), path  # fmt: skip


def digits_finding(budget: Budget) -> Finding:
    """Momentum with and without scaling at the best learning rate of each."""
    seeds, steps = budget.choose(smoke=([0], 40), full=([0, 1, 2, 3], 300))
    grid = budget.choose(smoke=[0.3], full=[0.1, 0.3, 1.0])

    def momentum(params: Any, lr: float) -> SGD:
        return SGD(params, lr=lr, momentum=0.9, dampening=0.9)

    makes: dict[str, Any] = {
        "momentum": (momentum, grid),
        "scaled": (lambda params, lr: RandomScaling(momentum(params, lr)), grid),
    }
    best = compare(Digits.load(), makes, seeds, steps)
    ours, theirs = best["scaled"], best["momentum"]
    return Finding(
        "Scaling does no harm on a network", "the same accuracy", ours.accuracy, theirs.accuracy, "held-out accuracy",
        abs(ours.accuracy - theirs.accuracy) <= 0.01 if budget.name == "full" else None,
        f"digits, 64-64-10, {steps} steps, {len(seeds)} seed(s), best of {len(grid)} learning rates by training loss: "
        f"scaled {ours.lr:g}, loss {ours.loss:.4f}; momentum {theirs.lr:g}, loss {theirs.loss:.4f}; holds within 0.01",
    )  # fmt: skip
