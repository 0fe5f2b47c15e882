"""On the convergence of Adam and beyond: the problem on which Adam ends at the worst point, and AMSGrad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.tuned import beside_adam
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import Adam, AdamNC, AMSGrad, Divergence, StepGrowth, adam_divergence, effective_step_monotone


@paper(
    "amsgrad",
    parts=["covector.optim.AMSGrad", "covector.optim.AdamNC", "covector.optim.adam_divergence",
           "covector.optim.effective_step_monotone", "covector.optim.Box"],
)  # fmt: skip
def evidence(budget: Budget) -> Evidence:
    """Where the methods end, their regret, the condition that tells them apart, and the digits."""
    steps = budget.choose(smoke=1200, full=20_000)
    findings, drawn = theorem(budget, steps)
    return Evidence("amsgrad", [*findings, stochastic(budget), digits_finding(budget)], [drawn])


def follow(problem: Divergence, kind: str, lr: float, steps: int) -> tuple[Tensor, Tensor, StepGrowth]:
    """Points ``[steps]``, slopes, and the watch of the effective steps; learning rates fall with the root of t."""
    x = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    common: dict[str, Any] = {"lr": lr, "constraint": problem.box, "eps": 1e-12}
    optimizer: Any
    if kind == "Adam":
        optimizer = Adam([x], betas=problem.betas, **common)
    elif kind == "AMSGrad":
        optimizer = AMSGrad([x], betas=problem.betas, form="paper", sqrt_decay=True, **common)
    else:
        optimizer = AdamNC([x], b1=problem.betas[0], **common)
    watch = effective_step_monotone(optimizer)
    points, slopes = torch.empty(steps, dtype=torch.float64), problem.slopes(steps)
    for t in range(steps):
        points[t] = x.item()
        x.grad = slopes[t : t + 1]
        if kind == "Adam":
            optimizer.param_groups[0]["lr"] = lr * (t + 1) ** -0.5
        optimizer.step()
    return points, slopes, watch


def theorem(budget: Budget, steps: int) -> tuple[list[Finding], Path]:
    """Theorem 1 with C = 3: every third slope is 3, the others -1, on [-1, 1]; -1 is best."""
    problem, lr = adam_divergence(3.0), 0.3
    runs = {kind: follow(problem, kind, lr, steps) for kind in ("Adam", "AMSGrad", "AdamNC")}
    path = budget.path("position-by-step.svg")
    with figure(path, x="step", y="x (best: -1)") as axes:
        for kind, (points, _, _) in runs.items():
            axes.semilogx(range(1, steps + 1), points, label=kind)
    ends = {kind: float(points[-1]) for kind, (points, _, _) in runs.items()}
    regret = {kind: problem.regret(points, slopes) for kind, (points, slopes, _) in runs.items()}
    note = f"C = 3, learning rate {lr:g} over the root of t, {steps:,} steps from 0, projected onto [-1, 1]"
    tenth = steps // 10
    slower = float(regret["AMSGrad"][-1] / regret["AMSGrad"][tenth])
    return [
        Finding(
            "Adam converges to the worst point of a convex problem", 1, ends["Adam"], -1, "position",
            ends["Adam"] > 0.9, f"{note}; baseline: the best point",
        ),
        Finding(
            "AMSGrad converges to the best point", -1, ends["AMSGrad"], ends["Adam"], "position",
            ends["AMSGrad"] < -0.9, f"{note}; AdamNC ends at {ends['AdamNC']:.4f}; baseline: Adam",
        ),
        Finding(
            "AMSGrad's mean regret vanishes, Adam's does not", "O(1 / sqrt T)", slower,
            float(regret["Adam"][-1] / regret["Adam"][tenth]), "mean regret at the end over that at a tenth",
            slower < 0.5 and float(regret["Adam"][-1]) > 0.5,
            f"{note}; mean regret at the end: AMSGrad {float(regret['AMSGrad'][-1]):.4f}, Adam "
            f"{float(regret['Adam'][-1]):.4f}",
        ),
        Finding(
            "The effective step of AMSGrad never grows, that of Adam does", "0", runs["AMSGrad"][2].worst,
            runs["Adam"][2].worst, "largest share of coordinates",
            runs["AMSGrad"][2].worst == 0.0 and runs["Adam"][2].worst > 0.0,
            f"{note}; AdamNC: {runs['AdamNC'][2].worst:g}; the quantity of equation 2, seen after each step",
        ),
    ], path  # fmt: skip


def stochastic(budget: Budget) -> Finding:
    """Slope 1010 with chance 0.01, else -10."""
    steps = budget.choose(smoke=1500, full=40_000)
    problem, lr = adam_divergence(problem="stochastic"), 0.5
    ends = {kind: float(follow(problem, kind, lr, steps)[0][-1]) for kind in ("Adam", "AMSGrad")}
    return Finding(
        "The same with random slopes", "Adam 1, AMSGrad -1", ends["AMSGrad"], ends["Adam"], "position",
        True if ends["AMSGrad"] < -0.9 and ends["Adam"] > 0.9 else False if ends["AMSGrad"] > 0.9 else None,
        f"1010 with chance 0.01, else -10; learning rate {lr:g} over the root of t, b1 0.9, b2 0.99, {steps:,} steps; "
        "undecided while AMSGrad is on its way: the mean slope is 0.2 against a deviation of 100",
    )  # fmt: skip


def digits_finding(budget: Budget) -> Finding:
    """Training loss, each method at its best learning rate."""
    ours, theirs, setting = beside_adam(budget, "AMSGrad", lambda p, lr: AMSGrad(p, lr=lr))
    return Finding(
        "AMSGrad trains a network to a lower loss", "slightly lower", ours.loss, theirs.loss, "training loss",
        ours.loss < 0.98 * theirs.loss if budget.name == "full" else None,
        f"{setting}; accuracy {ours.accuracy:.4f} and {theirs.accuracy:.4f}; holds beyond 2 %",
    )  # fmt: skip
