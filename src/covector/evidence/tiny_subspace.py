"""How much of the gradient lies in the dominant eigenspace of the Hessian, and whether learning happens there."""

from __future__ import annotations

from pathlib import Path

import torch

from covector.curvature import Hessian
from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits, classifier
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.landscape import DominantSubspace, project
from covector.objective import Objective
from covector.trees import Params

K, HIDDEN = 10, 16
CHANCE = K / (64 * HIDDEN + HIDDEN + 10 * HIDDEN + 10)
SETTING = f"digits, tanh network 64-{HIDDEN}-10 (1210 parameters), SGD with batches of 32, Hessian of all training data"


@paper("tiny-subspace", parts=["covector.landscape.DominantSubspace", "covector.curvature.Hessian"])
def evidence(budget: Budget) -> Evidence:
    """Three learning rates, and updates without the dominant part or without the rest."""
    digits = Digits.load()
    fractions, drawn = fraction_findings(budget, digits)
    ablation, also = ablation_finding(budget, digits)
    return Evidence("tiny-subspace", [*fractions, ablation], [drawn, also])


def slope(objective: Objective, batch: object) -> Params:
    """The gradient on a batch, by name."""
    found = torch.autograd.grad(objective(batch), list(objective.params.values()))
    return dict(zip(objective.params, found, strict=True))


@torch.no_grad()
def descend(objective: Objective, gradient: Params, lr: float) -> None:
    """One step of SGD."""
    for name, p in objective.params.items():
        p.sub_(gradient[name], alpha=lr)


def fraction_findings(budget: Budget, digits: Digits) -> tuple[list[Finding], Path]:
    """The fraction of the gradient of all data in the top ten eigenvectors, along training."""
    steps, every = budget.choose(smoke=(20, 10), full=(300, 20))
    seeds = range(budget.seed, budget.seed + budget.choose(smoke=1, full=3))
    last: dict[float, list[float]] = {}
    overlaps, products, cold = [], [], 0
    path = budget.path("gradient-in-the-top-ten-eigenvectors.svg")
    with figure(path, x="step", y="fraction of the squared norm") as axes:
        for lr in (2.0, 0.5, 0.1):
            for seed in seeds:
                objective = classifier(seed, HIDDEN)
                space = DominantSubspace(Hessian(objective, digits.train), K)
                series, cold = [space.place(slope(objective, digits.train)).fraction], space.eigen.products
                for step in range(steps):
                    descend(objective, slope(objective, digits.batch(seed * 100_003 + step, 32)), lr)
                    if (step + 1) % every == 0:
                        kept = space.refresh()
                        products.append(space.eigen.products)
                        if lr == 2.0 and step + 1 > steps // 2:
                            overlaps.append(kept)
                        series.append(space.place(slope(objective, digits.train)).fraction)
                last.setdefault(lr, []).append(series[-1])
                if seed == budget.seed:
                    axes.plot(
                        range(0, steps + 1, every), series, marker="o", markersize=3, label=f"learning rate {lr:g}"
                    )
        axes.axhline(CHANCE, color="black", linestyle=":", linewidth=1, label="a random direction")
        axes.set_ylim(0, 1)
    mean = {lr: sum(values) / len(values) for lr, values in last.items()}
    full = budget.name == "full"
    spread = "; ".join(f"{lr:g}: " + ", ".join(f"{value:.2f}" for value in values) for lr, values in last.items())
    cost = sum(products) / len(products)
    return [
        Finding(
            "Most of the gradient lies in the top eigenvectors, as many as classes", "about 0.9", mean[2.0], CHANCE,
            "fraction of the squared norm", mean[2.0] > 0.5 if full else None,
            f"{SETTING}, learning rate 2, step {steps}; each seed by learning rate: {spread}; baseline: chance",
        ),
        Finding(
            "It does at any learning rate", "SGD in general", mean[0.1], mean[2.0], "fraction of the squared norm",
            mean[0.1] > 0.5 if full else None,
            f"the same at learning rate 0.1 (at 0.5: {mean[0.5]:.2f}); baseline: learning rate 2",
        ),
        Finding(
            "The subspace changes slowly", "preserved over long periods", sum(overlaps) / len(overlaps), CHANCE,
            f"overlap over {every} steps", sum(overlaps) / len(overlaps) > 0.5 if full else None,
            f"learning rate 2, second half of the run; following it takes {cost:.0f} products a refresh ({cold} for "
            f"the first); baseline: chance",
        ),
    ], path  # fmt: skip


def ablation_finding(budget: Budget, digits: Digits) -> tuple[Finding, Path]:
    """Train at 0.5; then go on with all of the gradient, its dominant part only, or without that part."""
    before, after, every, lr = *budget.choose(smoke=(20, 10), full=(300, 150)), 10, 0.5
    seeds = range(budget.seed, budget.seed + budget.choose(smoke=1, full=3))
    progress: dict[str, list[float]] = {"all": [], "dominant": [], "bulk": []}
    path = budget.path("loss-by-part-of-the-gradient.svg")
    labels = {"all": "SGD", "dominant": "dominant part only", "bulk": "without the dominant part"}
    with figure(path, x="step", y="training loss") as axes:
        for seed in seeds:
            for keep in progress:
                objective = classifier(seed, HIDDEN)
                for step in range(before):
                    descend(objective, slope(objective, digits.batch(seed * 100_003 + step, 32)), lr)
                space = DominantSubspace(Hessian(objective, digits.train), K)
                losses = [objective(digits.train).item()]
                for step in range(before, before + after):
                    if step > before and step % every == 0 and keep != "all":
                        space.refresh()
                    gradient = slope(objective, digits.batch(seed * 100_003 + step, 32))
                    descend(objective, gradient if keep == "all" else project(space.basis, gradient, keep), lr)
                    losses.append(objective(digits.train).item())
                progress[keep].append(losses[0] - losses[-1])
                if seed == budget.seed:
                    axes.plot(range(before, before + after + 1), losses, label=labels[keep])
    mean = {keep: sum(values) / len(values) for keep, values in progress.items()}
    share = mean["dominant"] / mean["bulk"]
    return Finding(
        "Learning happens in that subspace", "gradient descent happens in a tiny subspace", mean["dominant"],
        mean["bulk"], "decrease of the training loss", share > 1.0 if budget.name == "full" else None,
        f"{SETTING}; {before} steps at {lr}, then {after} with the dominant part of each gradient only (baseline: "
        f"without it), eigenvectors renewed each {every} steps; all of it: {mean['all']:.4f}; a later paper (Song, "
        f"Ahn, Yun, ICLR 2025) found the same",
    ), path  # fmt: skip
