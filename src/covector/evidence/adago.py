"""AdaGrad meets Muon: a step for each matrix that falls by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.matrices_lm import REST, SETTING, TUNING, Tuned, adam, tuned
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import AdaGO, Muon
from covector.optim.optimizer import Optimizer


def adago(model: nn.Module, lr: float) -> Optimizer:
    """AdaGO with the sum starting at the size of these gradients."""
    return AdaGO(model, lr=lr, momentum=0.9, gamma=1.0, v0=1e-3, **REST)


def muon(model: nn.Module, lr: float) -> Optimizer:
    """Muon as AdaGO has it: no look-ahead, no factor by shape."""
    return Muon(model, lr=lr, momentum=0.9, nesterov=False, scale="none", **REST)


@paper("adago", parts=["covector.optim.AdaGO", "covector.optim.AdaGOStep", "covector.optim.Muon"])
def evidence(budget: Budget) -> Evidence:
    """Without a schedule and with one, and the exponent of the decay."""
    found = {
        "AdaGO": tuned(budget, adago, (0.15, 0.3, 0.6), cosine=False),
        "Muon": tuned(budget, muon, (0.0125, 0.025, 0.05), cosine=False),
        "Adam": tuned(budget, adam, (0.005, 0.01, 0.02), cosine=False),
    }
    decay, drawn = decay_finding(budget)
    findings = [*constant_findings(budget, found), schedule_finding(budget, found), decay]
    return Evidence("adago", findings, [drawn])


def constant_findings(budget: Budget, found: Mapping[str, Tuned]) -> list[Finding]:
    """Constant learning rates."""
    full, ours = budget.name == "full", found["AdaGO"].loss
    return [
        Finding(
            f"AdaGO beats {name} without a schedule", "lower loss", ours, found[name].loss, "validation loss, nats",
            (None if abs(ours - found[name].loss) < 0.01 else ours < found[name].loss) if full else None,
            f"{SETTING}, then a constant learning rate; {TUNING}; AdaGO with gamma 1, v0 1e-3; "
            "differences below 0.01 are noise",
        )
        for name in ("Muon", "Adam")
    ]  # fmt: skip


def schedule_finding(budget: Budget, found: Mapping[str, Tuned]) -> Finding:
    """What a cosine schedule adds, for AdaGO and for Muon, each at its best learning rate with and without."""
    scheduled = {"AdaGO": tuned(budget, adago, (0.3, 0.6, 1.2)), "Muon": tuned(budget, muon, (0.025, 0.05, 0.1))}
    gains = {name: found[name].loss - result.loss for name, result in scheduled.items()}
    words = [f"{name} {found[name].loss:.3f} constant, {scheduled[name].loss:.3f} with cosine" for name in scheduled]
    return Finding(
        "AdaGO gains less from a schedule than Muon does", "no schedule needed", gains["AdaGO"], gains["Muon"],
        "nats that a cosine schedule gains", gains["AdaGO"] < gains["Muon"] - 0.01 if budget.name == "full" else None,
        f"{'; '.join(words)}; {SETTING}; {TUNING}; negative where the schedule does harm, as it does in so short a run",
    )  # fmt: skip


def decay_finding(budget: Budget) -> tuple[Finding, Path]:
    """Step lengths under gradients of constant size."""
    p = nn.Parameter(torch.zeros(8, 8, dtype=torch.float64))
    optimizer = AdaGO([p], lr=1.0, min_step=0.0, v0=1e-9, method="svd")
    count, lengths = budget.choose(smoke=64, full=256), []
    for _ in range(count):
        p.grad = torch.eye(8, dtype=torch.float64)
        lengths.append(float(torch.linalg.matrix_norm(optimizer.update()[p], 2)))
    slope = math.log(lengths[-1] / lengths[3]) / math.log(count / 4)
    path = budget.path("step-by-number-of-steps.svg")
    with figure(path, x="step", y="length of the step") as axes:
        steps = range(1, count + 1)
        axes.loglog(steps, lengths, label="AdaGO")
        axes.loglog(steps, [t**-0.5 for t in steps], linestyle=":", color="black", label="1 / sqrt(t)")
        axes.loglog(steps, [1 / t for t in steps], linestyle="--", label="1 / t: the sum without its root")
    return Finding(
        "Steps fall as the root of the number of steps", -0.5, slope, -1.0, "exponent", abs(slope + 0.5) < 1e-6,
        f"gradients of constant size, {count} steps; baseline: dividing by the sum instead of its root, as one "
        "published implementation does",
    ), path  # fmt: skip
