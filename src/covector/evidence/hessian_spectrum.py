"""The Hessian of networks: a bulk near zero, outliers that the data decide, and one basin for all batch sizes."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from covector.curvature import GaussNewton, Hessian
from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits, classifier
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.landscape import barrier, line, near_zero, outliers, spectrum
from covector.linalg import Spectrum, slq
from covector.objective import Objective
from covector.trees import Params, clone

SETTING = "clusters in 20 dimensions (means of norm 3, unit noise, 600 points), tanh network, 100 steps of GD at 0.1"


@paper("hessian-spectrum", parts=["covector.landscape.spectrum", "covector.landscape.outliers", "covector.linalg.slq"])
def evidence(budget: Budget) -> Evidence:
    """Gaussian clusters by number of classes and by width; small and large batches on the digits."""
    classes, drawn = class_finding(budget)
    basin, also = basin_finding(budget)
    return Evidence(
        "hessian-spectrum", [classes, *width_findings(budget), quadrature_finding(budget), basin], [drawn, also]
    )


def trained(classes: int, width: int, seed: int) -> tuple[Objective, tuple[Tensor, Tensor]]:
    """A network on Gaussian clusters, one a class, trained to a moderate loss."""
    torch.manual_seed(seed)
    centers = 3 * nn.functional.normalize(torch.randn(classes, 20), dim=1)
    labels = torch.arange(600) % classes
    batch = (centers[labels] + torch.randn(600, 20), labels)
    net = nn.Sequential(nn.Linear(20, width), nn.Tanh(), nn.Linear(width, classes))
    objective = Objective(net, nn.functional.cross_entropy)
    for _ in range(100):
        gradients = torch.autograd.grad(objective(batch), list(objective.params.values()))
        with torch.no_grad():
            for p, g in zip(objective.params.values(), gradients, strict=True):
                p.sub_(g, alpha=0.1)
    return objective, batch


def dense(classes: int, width: int, seed: int) -> Spectrum:
    """All eigenvalues of the Hessian there."""
    return spectrum(Hessian(*trained(classes, width, seed)), "dense")


def class_finding(budget: Budget) -> tuple[Finding, Path]:
    """Where the widest gap among the first 2 k eigenvalues lies, for k classes."""
    seeds = range(budget.seed, budget.seed + budget.choose(smoke=1, full=5))
    numbers = budget.choose(smoke=(2, 3), full=(2, 3, 5, 8))
    width = budget.choose(smoke=8, full=24)
    found: dict[int, list[int]] = {}
    path = budget.path("largest-eigenvalues-by-number-of-classes.svg")
    with figure(path, x="rank", y="eigenvalue") as axes:
        for classes in numbers:
            for seed in seeds:
                values = dense(classes, width, seed).nodes[0]
                found.setdefault(classes, []).append(outliers(values, among=2 * classes).number)
                if seed == budget.seed:
                    axes.plot(range(1, 21), values.flip(0)[:20], marker="o", markersize=3, label=f"{classes} classes")
        axes.set_xticks((1, 5, 10, 15, 20))
    right = [number in (classes - 1, classes) for classes, each in found.items() for number in each]
    words = "; ".join(f"{classes} classes: {', '.join(map(str, each))}" for classes, each in found.items())
    chance = statistics.fmean(1 / classes for classes in numbers)
    return Finding(
        "There are about as many outliers as classes", "about the number of classes", 100 * statistics.fmean(right),
        100 * chance, "% of runs with the gap at k - 1 or k",
        statistics.fmean(right) > 0.7 if budget.name == "full" else None,
        f"{SETTING}, width {width}; widest ratio among the first 2 k eigenvalues, each seed: {words}; baseline: a gap "
        "at random",
    ), path  # fmt: skip


def width_findings(budget: Budget) -> list[Finding]:
    """What more parameters add."""
    seeds, widths = range(budget.seed, budget.seed + budget.choose(smoke=1, full=3)), budget.choose((4, 8), (8, 32))
    tops: dict[int, list[float]] = {width: [] for width in widths}
    flat: dict[int, list[float]] = {width: [] for width in widths}
    for width in widths:
        for seed in seeds:
            found = dense(3, width, seed)
            tops[width].append(float(found.nodes[0, -1]))
            flat[width].append(near_zero(found).value)
    small, large = widths
    ratio = statistics.fmean(b / a for a, b in zip(tops[small], tops[large], strict=True))
    full = budget.name == "full"
    return [
        Finding(
            "More parameters leave the outliers where they are", "only the bulk grows", ratio, large / small,
            "ratio of the largest eigenvalues", 0.7 < ratio < 1.4 if full else None,
            f"{SETTING}, 3 classes, widths {small} and {large}, {len(seeds)} seeds; baseline: ratio of the widths",
        ),
        Finding(
            "They are added near zero", "the bulk at zero grows", statistics.fmean(flat[large]),
            statistics.fmean(flat[small]), "fraction of the eigenvalues below a thousandth of the largest",
            statistics.fmean(flat[large]) > statistics.fmean(flat[small]) if full else None,
            f"as above; baseline: width {small}",
        ),
    ]  # fmt: skip


def quadrature_finding(budget: Budget) -> Finding:
    """The density of the Hessian by quadrature, against all eigenvalues."""
    objective, batch = trained(3, budget.choose(smoke=8, full=32), budget.seed)
    op = Hessian(objective, batch)
    exact = spectrum(op, "dense")
    op.products = 0
    estimate = slq(op, probes=4, steps=budget.choose(smoke=16, full=40), seed=budget.seed)
    low, high = float(exact.nodes.min()), float(exact.nodes.max())
    grid = torch.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), 2000)
    sigma = (high - low) / 50
    off = float(torch.trapezoid((estimate.density(grid, sigma) - exact.density(grid, sigma)).abs(), grid.double())) / 2
    rest = spectrum(op - GaussNewton(objective, batch), "dense").trace().value / exact.trace().value
    return Finding(
        "A few Lanczos runs show the whole spectrum", "the spectrum in full", off, op.products / op.shape[0],
        "mass of the density in the wrong place", off < 0.1 if budget.name == "full" else None,
        f"{op.shape[0]} parameters, {op.products} products, Gaussians of a fiftieth of the range; baseline: products "
        f"by number of parameters; the part of the trace that Gauss-Newton misses is {rest:.2f}",
    )  # fmt: skip


def basin_finding(budget: Budget) -> tuple[Finding, Path]:
    """The line between the solutions of a small and a large batch, and between two initializations."""
    digits, steps = Digits.load(), budget.choose(smoke=30, full=1500)

    def solution(seed: int, batch: int, lr: float) -> tuple[Objective, Params]:
        objective = classifier(seed, 32)
        for step in range(steps):
            data = digits.batch(1000 * batch + step, batch)
            gradients = torch.autograd.grad(objective(data), list(objective.params.values()))
            with torch.no_grad():
                for p, g in zip(objective.params.values(), gradients, strict=True):
                    p.sub_(g, alpha=lr)
        return objective, clone(objective.params)

    objective, small = solution(budget.seed, 16, 0.1)
    _, large = solution(budget.seed, 512, 0.1)
    _, other = solution(budget.seed + 1, 512, 0.1)
    at = torch.linspace(-0.5, 1.5, budget.choose(smoke=9, full=81), dtype=torch.float64)
    between = line(objective, digits.train, small, large, at)
    across = line(objective, digits.train, other, large, at)
    path = budget.path("loss-between-solutions.svg")
    with figure(path, x="0: first solution, 1: large batch", y="training loss") as axes:
        axes.plot(at, between, label="from the small batch")
        axes.plot(at, across, label="from another initialization")
    return Finding(
        "Small and large batches end in one basin", "no barrier", barrier(between, at), barrier(across, at),
        "rise of the loss between them", barrier(between, at) < 0.01 if budget.name == "full" else None,
        f"digits, tanh network 64-32-10, {steps} steps at 0.1 with batches of 16 and of 512 from one start; baseline: "
        f"two starts",
    ), path  # fmt: skip
