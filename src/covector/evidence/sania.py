"""SANIA: Polyak steps in a metric of squared gradients: the same losses for the data in whatever units."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.breast_cancer import SETTING, BreastCancer
from covector.evidence.figures import COLORS, figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import SANIA, Adagrad, AdamW

Make = Callable[[Any], Any]
SPREAD = 6.0
RATES = (1e-3, 1e-2, 0.1, 1.0)
FLOOR = 1e-300


@paper("sania", parts=["covector.optim.SANIA", "covector.optim.SquaredGradients", "covector.optim.PolyakStep"])
def evidence(budget: Budget) -> Evidence:
    """Invariance to the scale of features, what it is worth, and the metrics that solve a quadratic problem."""
    invariance, drawn = invariance_findings(budget)
    return Evidence("sania", [*invariance, quadratic_finding(budget), *batch_findings(budget)], [drawn])


def apart(one: list[float], other: list[float]) -> float:
    """The largest difference of two curves."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def invariance_findings(budget: Budget) -> tuple[list[Finding], Path]:
    """Losses on standardized and on rescaled features."""
    steps, full = budget.choose(smoke=40, full=300), budget.name == "full"
    plain, scaled = BreastCancer.load(), BreastCancer.load(SPREAD, budget.seed)

    def both(make: Make) -> tuple[list[float], list[float]]:
        return plain.run(make, steps), scaled.run(make, steps)

    sqr = both(partial(SANIA, floor=FLOOR))
    adam_sqr = both(partial(SANIA, metric="adam_sqr", floor=FLOOR))
    floored = both(SANIA)
    adam = {lr: both(partial(AdamW, lr=lr, weight_decay=0.0)) for lr in RATES}
    adagrad = {lr: both(partial(Adagrad, lr=lr)) for lr in RATES}
    best = {
        name: [min(curves[kind][-1] for curves in runs.values()) for kind in (0, 1)]
        for name, runs in (("Adam", adam), ("Adagrad", adagrad))
    }
    rate = min(adam, key=lambda lr: adam[lr][0][-1])
    path = budget.path("loss-on-plain-and-rescaled-features.svg")
    with figure(path, x="step", y="training loss") as axes:
        shown = {"SANIA, AdagradSQR": sqr, "SANIA, floor 0.1": floored, f"Adam, lr {rate:g}": adam[rate]}
        for color, (name, (first, second)) in zip(COLORS, shown.items(), strict=False):
            axes.semilogy(first, color=color, label=f"{name}: plain")
            axes.semilogy(second, "--", color=color, linewidth=2.2, label=f"{name}: rescaled")
        axes.set_ylim(0.02, 8.0)  # room for the legend
    setting = f"{SETTING}, {steps} steps; rescaled: features times exp(U(-{SPREAD:g}, {SPREAD:g}))"
    early = apart(adam_sqr[0][:20], adam_sqr[1][:20])
    return [
        Finding(
            "Rescaled features change no loss (AdagradSQR)", "same curve", apart(*sqr), apart(*adam[rate]),
            "largest difference of the loss", apart(*sqr) < 1e-9,
            f"{setting}; floor {FLOOR:g}; final loss {sqr[0][-1]:.4f}; baseline: Adam at lr {rate:g}",
        ),
        Finding(
            "The same with AdamSQR", "same curve", early, apart(adam[rate][0][:20], adam[rate][1][:20]),
            "largest difference of the loss, 20 steps", early < 1e-6,
            f"{setting}; its steps amplify rounding: after {steps} steps {adam_sqr[0][-1]:.4f} and "
            f"{adam_sqr[1][-1]:.4f}",
        ),
        Finding(
            "With the published floor of 0.1 it is still invariant (a control of this library)", "not claimed",
            apart(*floored), apart(*sqr), "largest difference of the loss", apart(*floored) < 1e-3,
            f"{setting}; final losses {floored[0][-1]:.4f} and {floored[1][-1]:.4f}",
        ),
        *[
            Finding(
                f"On rescaled features it is better than {name} at its best learning rate", "degrade", sqr[1][-1],
                best[name][1], "training loss", sqr[1][-1] < best[name][1] if full else None,
                f"{setting}; {name} over lr {RATES}: {best[name][0]:.4f} on plain, {best[name][1]:.4f} on rescaled",
            )
            for name in best
        ],
        Finding(
            "On plain features it is level with tuned Adam", "competitive without lr", sqr[0][-1], best["Adam"][0],
            "training loss", sqr[0][-1] <= 1.1 * best["Adam"][0] if full else None,
            f"{setting}; Adam over lr {RATES}; AdamSQR {adam_sqr[0][-1]:.4f}",
        ),
    ], path  # fmt: skip


def quadratic_finding(budget: Budget) -> Finding:
    """One step in the metric of the Hessian."""
    generator = torch.Generator().manual_seed(budget.seed)
    root = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    hessian = root @ root.mT / 20 + 0.1 * torch.eye(20, dtype=torch.float64)
    left = {}
    for metric in ("newton", "identity"):
        x = nn.Parameter(torch.ones(20, dtype=torch.float64))
        SANIA([x], metric=metric).step(lambda x=x: x @ hessian @ x / 2)  # type: ignore[misc]
        left[metric] = float(x.detach() @ hessian @ x.detach()) / float(hessian.sum())
    return Finding(
        "In the Hessian's metric one step solves a quadratic problem", "one step", left["newton"], left["identity"],
        "share of the loss that is left", left["newton"] < 1e-6, "20 dimensions; baseline: the Euclidean metric",
    )  # fmt: skip


def batch_findings(budget: Budget) -> list[Finding]:
    """By batches, where no weights fit all examples, f* = 0 is wrong."""
    steps = budget.choose(smoke=40, full=600)
    problem = BreastCancer.load()
    seeds = range(budget.choose(smoke=1, full=3))

    def mean(make: Make) -> float:
        return sum(problem.run(make, steps, batch=32, seed=seed)[-1] for seed in seeds) / len(seeds)

    ours = {metric: mean(partial(SANIA, metric=metric, floor=0.1)) for metric in ("adagrad_sqr", "adam_sqr")}
    adam = {lr: mean(partial(AdamW, lr=lr, weight_decay=0.0)) for lr in (1e-3, 1e-2, 0.1)}
    best = min(adam.values())
    return [
        Finding(
            f"By batches of 32, {metric} is level with tuned Adam", "competitive", value, best, "training loss",
            value <= 1.1 * best if budget.name == "full" else None,
            f"{SETTING.removesuffix(', whole batches')}, {steps} batches, {len(seeds)} seeds, floor 0.1; Adam: "
            + ", ".join(f"{loss:.3g} at {lr:g}" for lr, loss in adam.items()),
        )
        for metric, value in ours.items()
    ]  # fmt: skip
