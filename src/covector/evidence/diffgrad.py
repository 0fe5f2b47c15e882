"""diffGrad: three functions of one variable with a good and a bad basin, and the frank control: half of Adam's rate."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.tuned import beside_adam
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import Adam, DiffGrad, Optimizer

BETAS = (0.95, 0.999)
STEPS = 300


def first(x: Tensor) -> Tensor:
    """``(x + 0.3)^2`` up to 0, then ``(x - 0.2)^2 + 0.05``."""
    return torch.where(x <= 0, (x + 0.3) ** 2, (x - 0.2) ** 2 + 0.05)


def second(x: Tensor) -> Tensor:
    """``-40 x - 35.15`` up to -0.9, then ``x^3 + x sin(8 x) + 0.85``."""
    return torch.where(x <= -0.9, -40 * x - 35.15, x**3 + x * (8 * x).sin() + 0.85)


def third(x: Tensor) -> Tensor:
    """A piecewise function with the breaks -0.5, -0.4, 0, 0.4 and 0.5."""
    middle = torch.where(x <= 0, -7 * x / 8, 7 * x / 8)
    inner = torch.where(x <= -0.4, 0.75 + x, torch.where(x <= 0.4, middle, 0.75 - x))
    return torch.where((x <= -0.5) | (x > 0.5), x**2, inner)


FUNCTIONS = {"F1": first, "F2": second, "F3": third}


@paper("diffgrad", parts=["covector.optim.DiffGrad", "covector.optim.Optimizer"])
def evidence(budget: Budget) -> Evidence:
    """Final values at the published setting, over learning rates, and accuracy on the digits."""
    setting, figures = published(budget)
    return Evidence("diffgrad", [*setting, over_rates(budget), digits_finding(budget)], figures)


def follow(make: type[Optimizer], function: str, rates: Tensor, steps: int = STEPS) -> Tensor:
    """Points ``[steps + 1, rates]`` from -1: the update is a value, which each row takes with its own rate."""
    x = nn.Parameter(torch.full_like(rates, -1.0))
    optimizer = make([x], lr=1.0, betas=BETAS)  # type: ignore[call-arg]
    points = [x.detach().clone()]
    for _ in range(steps):
        (x.grad,) = torch.autograd.grad(FUNCTIONS[function](x).sum(), x)
        optimizer.apply({p: rates * u for p, u in optimizer.update().items()})
        points.append(x.detach().clone())
    return torch.stack(points)


def published(budget: Budget) -> tuple[list[Finding], list[Path]]:
    """The paper's learning rate, 0.1, and Adam with half of it."""
    rates = torch.tensor([0.1, 0.05], dtype=torch.float64)
    ends, path = {}, budget.path("values-on-three-functions.svg")
    with figure(path, x="step", y="value") as axes:
        for name, function in FUNCTIONS.items():
            adam, ours = (function(follow(make, name, rates)) for make in (Adam, DiffGrad))
            ends[name] = float(ours[-1, 0]), float(adam[-1, 0]), float(adam[-1, 1])
            (line,) = axes.semilogy(ours[:, 0] + 1e-10, label=f"{name}, diffGrad")
            axes.semilogy(adam[:, 0] + 1e-10, "--", color=line.get_color(), label=f"{name}, Adam")
    note = "learning rate 0.1, b1 0.95, 300 steps from -1; final values of diffGrad, Adam, Adam at 0.05: " + "; ".join(
        f"{name} {ours:.1e}, {adam:.1e}, {half:.1e}" for name, (ours, adam, half) in ends.items()
    )
    escaped = sum(ours < 0.02 for ours, _, _ in ends.values())
    stuck = sum(adam < 0.02 for _, adam, _ in ends.values())
    half = sum(h < 0.02 for _, _, h in ends.values())
    return [
        Finding(
            "diffGrad reaches the global minimum of three functions, Adam does not", "3", escaped, stuck,
            "functions solved", escaped == 3 and stuck < 3, f"a value below 0.02 counts; {note}",
        ),
        Finding(
            "It is the change of the gradient that does it, not a smaller step", "friction", escaped, half,
            "functions solved", escaped > half, f"baseline: Adam with half the learning rate; {note}",
        ),
    ], [path]  # fmt: skip


def over_rates(budget: Budget) -> Finding:
    """How many learning rates of a grid solve the functions, for either method."""
    rates = torch.logspace(-2, -0.3, budget.choose(smoke=8, full=60), dtype=torch.float64)
    solved = {
        make: sum(float((f(follow(make, name, rates)[-1]) < 0.02).double().mean()) for name, f in FUNCTIONS.items()) / 3
        for make in (Adam, DiffGrad)
    }
    return Finding(
        "diffGrad solves them over a wider range of learning rates (a claim of this library)", "not given",
        solved[DiffGrad], solved[Adam], "share of rates", solved[DiffGrad] > solved[Adam],
        f"{len(rates)} rates from 0.01 to 0.5, the same for both; since diffGrad's steps are nearly halved, its range "
        "lies further up",
    )  # fmt: skip


def digits_finding(budget: Budget) -> Finding:
    """Held-out accuracy, each method at its best learning rate."""
    ours, theirs, setting = beside_adam(budget, "diffGrad", lambda p, lr: DiffGrad(p, lr=lr))
    return Finding(
        "diffGrad generalizes better than Adam", "about a percent on CIFAR-10", ours.accuracy, theirs.accuracy,
        "held-out accuracy", ours.accuracy > theirs.accuracy + 0.005 if budget.name == "full" else None,
        f"{setting}; holds beyond 0.005",
    )  # fmt: skip
