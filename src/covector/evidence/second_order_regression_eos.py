"""Models that are quadratic in their parameters, at the edge of stability."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from torch import nn

from covector.curvature import Hessian
from covector.evidence.budget import Budget
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.landscape import QuadraticRegression, Sharpness, monotone, taylor, two_parameter
from covector.objective import Objective


@paper(
    "second-order-regression-eos",
    parts=["covector.landscape.QuadraticRegression", "covector.landscape.two_parameter", "covector.landscape.taylor"],
)
def evidence(budget: Budget) -> Evidence:
    """The theorem's limit, random models in twenty dimensions, and the second order of a network."""
    random_findings, drawn = high_dimension(budget)
    network, also = truncations(budget)
    return Evidence("second-order-regression-eos", [limit(budget), *random_findings, network], [drawn, also])


def limit(budget: Budget) -> Finding:
    """Where the eigenvalue of the two-parameter model ends."""
    epsilons, steps = (0.005, 0.01, 0.02), budget.choose(smoke=10_000, full=40_000)
    found = [
        (2 - float(two_parameter(epsilon, -0.05, start, steps)[1][-1])) / epsilon
        for epsilon in epsilons
        for start in (2.02, 2.1, 2.2)
    ]
    return Finding(
        "With one residual the tangent kernel's eigenvalue ends at 2 - epsilon / 2", 0.5, statistics.fmean(found), 0.0,
        "(2 - eigenvalue) / epsilon", max(abs(each - 0.5) for each in found) < 0.03,
        f"learning rate 1, epsilon {epsilons}, from eigenvalues 2.02, 2.1, 2.2 and residual -0.05, {steps} steps: "
        f"{min(found):.3f} to {max(found):.3f}; baseline: an end at exactly 2",
    )  # fmt: skip


def high_dimension(budget: Budget) -> tuple[list[Finding], Path]:
    """Twenty residuals, forty parameters, from 1.2 over the first eigenvalue."""
    seeds, steps = range(budget.seed, budget.seed + budget.choose(smoke=2, full=20)), budget.choose(1500, 6000)
    ends, tops, rises, diverged, kept = [], [], [], 0, None
    path = budget.path("random-quadratic-models.svg")
    with figure(path, x="step", y="eigenvalue times learning rate") as axes:
        for seed in seeds:
            model = QuadraticRegression.random(20, 40, sigma_z=4.0, sigma_q=0.5, seed=seed)
            lr = 1.2 / model.eigenvalue()
            run = model.simulate(lr, steps)
            series = lr * run.eigenvalues
            if not bool(series.isfinite().all()) or run.losses[-1] > 1e-3 * run.losses[0]:
                diverged += 1
                continue
            ends.append(float(series[-1]))
            tops.append(float(series.max()))
            rises.append(monotone(run.losses).rises)
            if len(ends) <= 4:
                axes.plot(series[:400], linewidth=1, label=f"quadratic, seed {seed}")
        linear = QuadraticRegression.random(20, 40, sigma_z=4.0, sigma_q=0.0, seed=budget.seed)
        kept = linear.simulate(1.2 / linear.eigenvalue(), steps).eigenvalues * (1.2 / linear.eigenvalue())
        axes.plot(kept[:400], linewidth=1, linestyle="--", color="gray", label="linear")
        axes.axhline(2.0, color="black", linestyle=":", linewidth=1)
    setting = (
        f"20 residuals, 40 parameters, sigma_z 4, sigma_q 0.5, learning rate 1.2 over the first eigenvalue, {steps} "
        f"steps; {len(ends)} of {len(seeds)} seeds converge, the others oscillate or diverge"
    )
    median = lambda values: statistics.median(values) if values else 0.0  # noqa: E731
    full = budget.name == "full"
    return [
        Finding(
            "Random quadratic models sharpen progressively", "to the edge, 2", median(tops), float(kept.max()),
            "largest eigenvalue times learning rate, median", median(tops) > 1.9 if full else None,
            f"{setting}; baseline: a linear model, whose kernel does not move",
        ),
        Finding(
            "They end near the edge of stability, below it", "near 2", median(ends), 1.2,
            "last eigenvalue times learning rate, median", 1.8 < median(ends) <= 2.0 if full else None,
            f"as above; {min(ends, default=0):.2f} to {max(ends, default=0):.2f}, with {median(rises):.0f} rises of "
            "the loss in the median; baseline: where they start",
        ),
    ], path  # fmt: skip


def truncations(budget: Budget) -> tuple[Finding, Path]:
    """A network, its second-order model and its linear one, from the same point with the same learning rate."""
    torch.manual_seed(budget.seed)
    inputs = torch.randn(20, 4, dtype=torch.float64)
    batch = (inputs, torch.sin(inputs.sum(1, keepdim=True)))
    net = Objective(nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).double(), nn.functional.mse_loss)
    steps = budget.choose(smoke=10, full=400)
    models = {"second order": taylor(net, batch), "first order": taylor(net, batch, order=1), "network": net}
    lr: float = 0.0
    series: dict[str, list[float]] = {}
    for name, objective in models.items():
        sharpness = Sharpness(Hessian(objective, batch))
        lr = lr or 1.2 / sharpness.measure()
        series[name] = []
        for _ in range(steps):
            series[name].append(lr * sharpness.measure())
            gradients = torch.autograd.grad(objective(batch), list(objective.params.values()))
            with torch.no_grad():
                for p, g in zip(objective.params.values(), gradients, strict=True):
                    p.sub_(g, alpha=lr)
    path = budget.path("network-and-its-truncations.svg")
    with figure(path, x="step", y="sharpness times learning rate") as axes:
        for name in ("network", "second order", "first order"):
            axes.plot(series[name], linewidth=1, label=name)
        axes.axhline(2.0, color="black", linestyle=":", linewidth=1)
    pairs = enumerate(zip(series["second order"], series["network"], strict=True))
    apart = next((step for step, (a, b) in pairs if abs(a - b) > 0.1 * b), steps)
    tops = {name: max(values) for name, values in series.items()}
    grown = {name: tops[name] - 1.2 for name in tops}
    return Finding(
        "The second order of a network shows its sharpening", "quadratic models behave like networks",
        tops["second order"], tops["network"], "largest sharpness times learning rate",
        abs(grown["second order"] - grown["network"]) < 0.3 * abs(grown["network"]) if budget.name == "full" else None,
        f"tanh 4-16-1, 20 points, squared error, {steps} steps at 1.2 over the first sharpness; first order: "
        f"{tops['first order']:.2f}; the second order departs by 10 % at step {apart}; holds if the growth is "
        f"within 30 % of the network's (the baseline)",
    ), path  # fmt: skip
