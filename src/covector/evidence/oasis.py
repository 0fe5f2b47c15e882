"""OASIS: a metric from the Hessian's diagonal, and steps without a learning rate, on well and on badly scaled data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.breast_cancer import SETTING, BreastCancer
from covector.evidence.experiments.digits import Digits, classifier
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import OASIS, SGD, AdamW, AdGD

Make = Callable[[Any], Any]
SPREAD = 6.0
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
# the same on every problem of this file but for the floor, which has the unit of a curvature
OPTIONS: dict[str, Any] = {"beta2": 0.99, "eta0": 1e-2, "probes": 30}


@paper("oasis", parts=["covector.optim.OASIS", "covector.optim.AdGD", "covector.optim.HutchinsonDiagonal"])
def evidence(budget: Budget) -> Evidence:
    """Logistic regression twice, a diagonal problem, and a small network by batches."""
    logistic, drawn = logistic_findings(budget)
    return Evidence("oasis", [*logistic, exact_finding(), *network_findings(budget)], [drawn])


def logistic_findings(budget: Budget) -> tuple[list[Finding], Path]:
    """OASIS, AdGD, gradient descent at 1 / L and Adam at its best rate; standardized, and rescaled."""
    steps, full = budget.choose(smoke=60, full=300), budget.name == "full"
    curves: dict[str, dict[str, list[float]]] = {}
    rates: dict[str, float] = {}
    for name, spread in (("standardized", 0.0), ("rescaled", SPREAD)):
        problem = BreastCancer.load(spread, budget.seed)
        makes: dict[str, Make] = {
            "OASIS": partial(OASIS, stochastic=False, floor=1e-30, seed=budget.seed, **OPTIONS),
            "AdGD": partial(AdGD, stochastic=False, eta0=OPTIONS["eta0"] / problem.smoothness()),
            "descent at 1 / L": partial(SGD, lr=1 / problem.smoothness()),
        }
        curves[name] = {key: problem.run(make, steps) for key, make in makes.items()}
        adam = {lr: problem.run(partial(AdamW, lr=lr, weight_decay=0.0), steps) for lr in RATES}
        rates[name] = min(adam, key=lambda lr: adam[lr][-1])
        curves[name]["Adam"] = adam[rates[name]]
    path = budget.path("loss-standardized-and-rescaled.svg")
    draw(path, curves)
    ends = {name: {key: curve[-1] for key, curve in own.items()} for name, own in curves.items()}
    words = {name: ", ".join(f"{key} {value:.4f}" for key, value in own.items()) for name, own in ends.items()}
    notes = {
        name: f"{SETTING}, {steps} steps; {words[name]} (Adam at its best of {len(RATES)} rates, {rates[name]:g})"
        for name in ends
    }
    plain, scaled = ends["standardized"], ends["rescaled"]
    return [
        Finding(
            "On standardized data OASIS is level with AdGD or better", "matches or beats", plain["OASIS"],
            plain["AdGD"], "training loss", plain["OASIS"] <= 1.1 * plain["AdGD"] if full else None,
            notes["standardized"],
        ),
        Finding(
            "On badly scaled data OASIS beats AdGD, with its hyperparameters unchanged", "beats", scaled["OASIS"],
            scaled["AdGD"], "training loss", scaled["OASIS"] <= 0.6 * scaled["AdGD"] if full else None,
            f"features times exp(U(-{SPREAD:g}, {SPREAD:g})); AdGD starts at 0.01 / L; {notes['rescaled']}",
        ),
        *[
            Finding(
                f"Without tuning it matches Adam at its best learning rate, {name} data", "matches or beats",
                ends[name]["OASIS"], ends[name]["Adam"], "training loss",
                ends[name]["OASIS"] <= ends[name]["Adam"] if full else None, notes[name],
            )
            for name in ends
        ],
    ], path  # fmt: skip


def draw(path: Path, curves: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Losses by step: standardized as lines, rescaled dashed."""
    with figure(path, x="step", y="training loss") as axes:
        for name, style in (("standardized", "-"), ("rescaled", "--")):
            axes.set_prop_cycle(None)
            for place, (key, curve) in enumerate(curves[name].items()):
                axes.semilogy(curve, style, color=f"C{place}", label=f"{key}, {name}")
        axes.set_ylim(0.02, 8.0)  # room for the legend


def exact_finding() -> Finding:
    """A diagonal quadratic problem of condition number a million."""
    curvatures = torch.logspace(-3, 3, 20, dtype=torch.float64)
    x = nn.Parameter(torch.ones(20, dtype=torch.float64))
    optimizer = OASIS([x], floor=1e-12, eta0=0.5, probes=1, stochastic=False)
    for _ in range(40):
        optimizer.step(lambda: (curvatures * x.square()).sum() / 2)
    left = float(x.detach().abs().max())
    return Finding(
        "On a diagonal quadratic problem every step halves the distance, whatever its condition number",
        0.5, left ** (1 / 40), "none", "ratio of distances a step", abs(left ** (1 / 40) - 0.5) < 1e-3,
        "20 curvatures from 1e-3 to 1e3, 40 steps; products with signs are the diagonal, and eta is 1/2",
    )  # fmt: skip


def network_findings(budget: Budget) -> list[Finding]:
    """A small network on the digits by batches: OASIS as it comes, AdamW at its best rate."""
    digits, steps = Digits.load(), budget.choose(smoke=10, full=400)
    seeds = budget.choose(smoke=(0,), full=(0, 1))

    def train(make: Make, seed: int) -> float:
        objective = classifier(seed)
        optimizer = make(list(objective.params.values()))
        for step in range(steps):
            batch = digits.batch(seed * 100_003 + step, 128)

            def closure(batch: Any = batch) -> Any:
                loss = objective(batch)
                if isinstance(optimizer, AdamW):
                    optimizer.zero_grad()
                    loss.backward()
                return loss

            optimizer.step(closure)
        with torch.no_grad():
            loss = float(objective(digits.train))
        return loss if loss < 1e9 else 1e9

    def mean(make: Make) -> float:
        return sum(train(make, seed) for seed in seeds) / len(seeds)

    floors = {
        floor: mean(partial(OASIS, floor=floor, **OPTIONS)) for floor in budget.choose((1e-2,), (1e-3, 1e-2, 0.1))
    }
    adam = {lr: mean(partial(AdamW, lr=lr, weight_decay=0.0)) for lr in budget.choose((1e-2,), (3e-3, 1e-2, 3e-2))}
    ours, theirs = min(floors.values()), min(adam.values())
    words = ", ".join(f"{value:.3g} with floor {floor:g}" for floor, value in floors.items())
    others = ", ".join(f"{value:.3g} at {lr:g}" for lr, value in adam.items())
    return [
        Finding(
            "In a small network, by batches, it is competitive with tuned Adam", "competitive", ours, theirs,
            "training loss", ours <= 1.1 * theirs if budget.name == "full" else None,
            f"digits, 64 - 64 - 10, {steps} batches of 128, {len(seeds)} seeds; OASIS {words}; AdamW {others}; "
            "a step of OASIS takes a second gradient and a product besides",
        )
    ]  # fmt: skip
