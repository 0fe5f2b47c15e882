"""The optimiser hidden in plain sight: learning rates over decades, valleys from far away, and the digits."""

from __future__ import annotations

import math
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
from covector.optim import SGD, ClipNorm, InducedMetric, Optimizer

Make = Callable[[list[nn.Parameter], float], Optimizer]
# each with the same number of strengths to choose from
METHODS: dict[str, list[Make]] = {
    "gradient descent": [lambda params, lr: SGD(params, lr=lr)],
    "clipped": [
        lambda params, lr, bound=bound: SGD(params, lr=lr, transforms=[ClipNorm(bound)])  # type: ignore[misc]
        for bound in (1.0, 10.0, 100.0)
    ],
    "induced metric": [
        lambda params, lr, xi=xi: InducedMetric(params, lr=lr, momentum=0.0, xi=xi, beta=0.0)  # type: ignore[misc]
        for xi in (0.25, 2.5e-3, 2.5e-5)
    ],
}


@paper("induced-metric-optimizer", parts=["covector.optim.InducedMetric", "covector.optim.ClipNorm"])
def evidence(budget: Budget) -> Evidence:
    """The identity, two functions of two variables, and a network."""
    rates, drawn = robust(budget)
    return Evidence("induced-metric-optimizer", [identity(), *rates, digits_finding(budget)], [drawn])


def identity() -> Finding:
    """The scalar form against solving with the metric, and the longest step."""
    generator = torch.Generator().manual_seed(0)
    worst, longest, xi = 0.0, 0.0, 0.5
    for size in (1e-2, 1.0, math.sqrt(2.0), 10.0, 100.0):
        g = torch.randn(5, generator=generator, dtype=torch.float64)
        g = size * g / g.norm()
        p = nn.Parameter(torch.zeros(5, dtype=torch.float64))
        p.grad = g
        update = -InducedMetric([p], lr=1.0, momentum=0.0, xi=xi, beta=0.0).update()[p]
        solved = torch.linalg.solve(torch.eye(5, dtype=torch.float64) + xi * torch.outer(g, g), g)
        worst = max(worst, float((update - solved).norm() / solved.norm()))
        longest = max(longest, float(update.norm()))
    bound = 1 / (2 * math.sqrt(xi))
    return Finding(
        "The metric only shortens the gradient, to at most lr / (2 sqrt(xi))", bound, longest, bound,
        "length of a step", worst < 1e-10 and longest <= bound * (1 + 1e-12),
        f"five dimensions, gradients of lengths 0.01 to 100; relative difference to a dense solve {worst:.1e}",
    )  # fmt: skip


def quartic(x: Tensor) -> Tensor:
    """The gradient of ``x^4 / 4 + y^2 / 2``."""
    return torch.stack([x[0] ** 3, x[1]])


def rosenbrock(x: Tensor) -> Tensor:
    """The gradient of Rosenbrock's function."""
    inner = x[1] - x[0] ** 2
    return torch.stack([-2 * (1 - x[0]) - 400 * x[0] * inner, 200 * inner])


def follow(
    make: Make, gradient: Callable[[Tensor], Tensor], start: tuple[float, float], goal: Tensor, lr: float, steps: int
) -> float:
    """The distance to the goal after some steps."""
    x = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = make([x], lr)
    for _ in range(steps):
        x.grad = gradient(x.detach())
        optimizer.step()
        if not float(x.detach().abs().max()) < 1e6:
            return 1e6
    return float((x.detach() - goal).norm())


def robust(budget: Budget) -> tuple[list[Finding], Path]:
    """Learning rates over five decades on two functions, from far away."""
    steps, rates = budget.choose(
        smoke=(150, [1e-3, 1e-2, 1e-1, 1.0]), full=(1000, [10 ** (k / 2) for k in range(-8, 3)])
    )
    problems = {
        "quartic from (10, 10)": (quartic, (10.0, 10.0), torch.zeros(2, dtype=torch.float64)),
        "Rosenbrock from (-3, 5)": (rosenbrock, (-3.0, 5.0), torch.ones(2, dtype=torch.float64)),
    }
    path = budget.path("distance-by-learning-rate.svg")
    ends: dict[tuple[str, str], list[list[float]]] = {}
    with figure(path, x="learning rate", y="distance to the minimum at the end") as axes:
        for problem, (gradient, start, goal) in problems.items():
            for name, makes in METHODS.items():
                runs = [[follow(make, gradient, start, goal, lr, steps) for lr in rates] for make in makes]
                ends[problem, name] = runs
                best_run = min(runs, key=min)
                style = "-o" if problem.startswith("q") else "--s"
                axes.loglog(rates, best_run, style, markersize=3, label=f"{name}, {problem.split()[0]}")
        axes.set_ylim(1e-6, 1e3)
    findings = []
    for problem in problems:
        best = {name: min(map(min, ends[problem, name])) for name in METHODS}
        wild = {name: sum(end > 100 for run in ends[problem, name] for end in run) for name in METHODS}
        note = (
            f"{problem}, {steps} steps, {len(rates)} learning rates from {rates[0]:g} to {rates[-1]:.3g}, bounds of "
            "clipping 1, 10 and 100, xi with the same bounds of a step; distance at the best: "
            + "; ".join(f"{name} {best[name]:.2e}" for name in METHODS)
        )
        findings += [
            Finding(
                f"It does not diverge where gradient descent does: {problem}", "stable", wild["induced metric"],
                wild["gradient descent"], "runs that end beyond 100",
                wild["induced metric"] == 0 < wild["gradient descent"],
                f"{note}; clipping, which is stable as well: {wild['clipped']}",
            ),
            Finding(
                f"At its best learning rate it comes closer than gradient descent and clipping: {problem}", "closer",
                best["induced metric"], min(best["gradient descent"], best["clipped"]), "distance",
                best["induced metric"] < min(best["gradient descent"], best["clipped"])
                if budget.name == "full" else None, note,
            ),
        ]  # fmt: skip
    return findings, path


def digits_finding(budget: Budget) -> Finding:
    """Training loss on the digits, each method at its best learning rate."""
    seeds, steps = budget.choose(smoke=([0], 40), full=([0, 1, 2], 300))
    grid = budget.choose(smoke=[0.1], full=[0.03, 0.1, 0.3, 1.0])
    makes: dict[str, Any] = {
        "SGDM": (lambda p, lr: SGD(p, lr=lr, momentum=0.9, dampening=0.9), grid),
        "clipped": (lambda p, lr: SGD(p, lr=lr, momentum=0.9, dampening=0.9, transforms=[ClipNorm(1.0)]), grid),
        "sgd form": (lambda p, lr: InducedMetric(p, lr=lr), grid),
        "log form": (lambda p, lr: InducedMetric(p, lr=lr, form="log"), grid),
        "rms form": (lambda p, lr: InducedMetric(p, lr=lr / 10, form="rms", normalize="mean"), grid),
    }
    best = compare(Digits.load(), makes, seeds, steps)
    ours = min((best[name] for name in ("sgd form", "log form", "rms form")), key=lambda outcome: outcome.loss)
    theirs = min((best[name] for name in ("SGDM", "clipped")), key=lambda outcome: outcome.loss)
    return Finding(
        "Slightly better than SGD with momentum on a small network", "slightly", ours.accuracy, theirs.accuracy,
        "held-out accuracy", ours.accuracy > theirs.accuracy + 0.005 if budget.name == "full" else None,
        f"digits, 64-64-10, {steps} steps, {len(seeds)} seed(s), best of {len(grid)} learning rates by training loss; "
        "the best of three forms against the better of SGDM and clipped SGDM; training loss, accuracy, lr: "
        + "; ".join(f"{name} {o.loss:.4f}, {o.accuracy:.4f}, {o.lr:g}" for name, o in best.items())
        + "; holds beyond 0.005",
    )  # fmt: skip
