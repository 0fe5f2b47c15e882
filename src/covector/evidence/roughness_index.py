"""Roughness index: the landscapes of the deep Galerkin and the deep Ritz method along training."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from covector.evidence.budget import Budget
from covector.evidence.experiments.poisson import Form, error, problem, trained
from covector.evidence.figures import COLORS, figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.landscape import filter_normalized, random_directions, roughness_index, slices, symmetric_grid

FORMS: tuple[Form, ...] = ("Galerkin", "Ritz")
RADII = (0.03, 0.1, 0.3, 1.0, 3.0)
PLAIN, FILTERS, ERROR = "not divided by the range", "filter-normalized directions", "standard error"
# the index by step, and by radius or by what else differs at radius 1
Indices = dict[tuple[int, float | str], float]


@paper(
    "roughness-index",
    parts=["covector.landscape.slices", "covector.landscape.roughness_index", "covector.landscape.total_variation"],
)
def evidence(budget: Budget) -> Evidence:
    """The index by radius at the end of training, and along training at radius 1."""
    full = budget.name == "full"
    steps = budget.choose(smoke=(0, 20, 60), full=(0, 10, 30, 100, 300, 1500))
    seeds = range(budget.choose(smoke=1, full=3))
    found = {form: [follow(budget, form, budget.seed + seed, steps) for seed in seeds] for form in FORMS}
    mean = {form: averaged(runs) for form, runs in found.items()}
    control = [follow(budget, "Ritz", budget.seed + seed, steps, fresh=True) for seed in seeds]
    solved = averaged(control)
    last = steps[-1]
    by_radius, along = draw(budget, mean, steps)
    lines = draw_slices(budget, steps)
    count, points = sizes(budget)
    note = (
        "-Laplace u = 2 pi^2 sin sin on the square, tanh network 2-20-20-1 that is 0 on the edge, Adam 1e-2, "
        f"{last} steps on 256 fixed points, each method's own loss along {count} isotropic directions of {points} "
        f"points, normalized variation, mean of {len(seeds)} seed(s); error of the solution: "
        + ", ".join(f"{form} {statistics.fmean(e for _, e in runs):.3f}" for form, runs in found.items())
        + "; standard error of one seed's index from its choice of directions: "
        + ", ".join(f"{form} {mean[form][last, ERROR]:.3f}" for form in FORMS)
    )
    other = {name: [mean[form][last, name] for form in FORMS] for name in (PLAIN, FILTERS)}
    agree = [name for name, (galerkin, ritz) in other.items() if galerkin < ritz]
    at_one = {form: [mean[form][step, 1.0] for step in steps] for form in FORMS}
    smoother = [radius for radius in RADII if mean["Galerkin"][last, radius] < mean["Ritz"][last, radius]]
    rises = all(peaks(values) for values in at_one.values())
    listed = "; ".join(f"{form} " + ", ".join(f"{value:.3f}" for value in values) for form, values in at_one.items())
    radii = "; ".join(
        f"radius {radius:g}: Galerkin {mean['Galerkin'][last, radius]:.3f}, Ritz {mean['Ritz'][last, radius]:.3f}"
        for radius in RADII
    )
    findings = [
        Finding("Near a minimizer the deep Galerkin landscape is less rough than the deep Ritz one, at radius 1",
                "less", at_one["Galerkin"][-1], at_one["Ritz"][-1], "roughness index",
                at_one["Galerkin"][-1] < at_one["Ritz"][-1] if full else None, note),
        Finding("And not because the energy of 256 points is overfitted (a claim of this library)", "not given",
                at_one["Galerkin"][-1], solved[last, 1.0], "roughness index, radius 1",
                at_one["Galerkin"][-1] < solved[last, 1.0] if full else None,
                "baseline: deep Ritz trained on fresh points at every step, error of the solution "
                f"{statistics.fmean(e for _, e in control):.3f}, seen on the same 256; by radius: "
                + ", ".join(f"{radius:g} {solved[last, radius]:.3f}" for radius in RADII)),
        Finding("The same at every radius", "one radius", len(smoother), len(RADII),
                "radii at which Galerkin is less rough", len(smoother) == len(RADII) if full else None, radii),
        Finding("The same by other normalizations, at radius 1 (a claim of this library)", "not given", len(agree),
                len(other), "normalizations by which Galerkin is less rough",
                len(agree) == len(other) if full else None,
                "; ".join(f"{name}: Galerkin {a:.3f}, Ritz {b:.3f}" for name, (a, b) in other.items())),
        Finding("The index first rises and then falls along training", "rise, then fall",
                max(at_one["Galerkin"][1:-1]), at_one["Galerkin"][-1], "roughness index",
                rises if full else None,
                f"measured: the largest on the way, Galerkin; baseline: at the end; at steps {steps}: {listed}"),
    ]  # fmt: skip
    return Evidence("roughness-index", findings, [by_radius, along, lines])


def averaged(runs: Sequence[tuple[Indices, float]]) -> Indices:
    """The index by step and radius, mean of the seeds."""
    return {key: statistics.fmean(run[key] for run, _ in runs) for key in runs[0][0]}


def peaks(values: Sequence[float]) -> bool:
    """Whether values rise to a largest one in the middle, and fall after it.

    >>> peaks([1.0, 3.0, 2.0]), peaks([1.0, 0.0, 3.0, 2.0])
    (True, False)
    """
    top = max(range(len(values)), key=values.__getitem__)
    rising = all(a <= b for a, b in pairwise(values[: top + 1]))
    return 0 < top < len(values) - 1 and rising and values[-1] < values[top]


def sizes(budget: Budget) -> tuple[int, int]:
    """Directions, and points of a slice."""
    return budget.choose(smoke=(8, 21), full=(50, 51))


def follow(budget: Budget, form: Form, seed: int, steps: tuple[int, ...], fresh: bool = False) -> tuple[Indices, float]:
    """The index by step and radius, and the error of the solution at the end."""
    objective = problem(form, seed)
    points = torch.rand(256, 2, generator=torch.Generator().manual_seed(seed))
    kept = trained(objective, points, steps[-1], steps[-1:] if fresh else steps, fresh)
    count, places = sizes(budget)
    rows = random_directions(objective.params, count, seed)
    found: Indices = {}
    for step, center in kept.items():
        for radius in RADII if step == steps[-1] else (1.0,):
            losses = slices(objective, points, rows, symmetric_grid(radius, places), center=center)
            found[step, radius] = roughness_index(losses, radius).index
            if step == steps[-1] and radius == 1.0:
                found[step, ERROR] = roughness_index(losses, radius).error
                found[step, PLAIN] = roughness_index(losses, radius, normalize=False).index
                filters = slices(
                    objective, points, filter_normalized(rows, center), symmetric_grid(1.0, places), center=center
                )
                found[step, FILTERS] = roughness_index(filters, 1.0).index
    return found, error(kept[steps[-1]])


def draw(budget: Budget, mean: dict[Form, Indices], steps: tuple[int, ...]) -> tuple[Path, Path]:
    """By radius, and along training."""
    by_radius, along = budget.path("roughness-by-radius.svg"), budget.path("roughness-along-training.svg")
    with figure(by_radius, x="radius of the slices", y="roughness index after training") as axes:
        for form in FORMS:
            axes.semilogx(RADII, [mean[form][steps[-1], radius] for radius in RADII], "o-", label=f"deep {form}")
    with figure(along, x="step", y="roughness index, radius 1") as axes:
        for form in FORMS:
            axes.plot(steps, [mean[form][step, 1.0] for step in steps], "o-", label=f"deep {form}")
        axes.set_xscale("symlog", linthresh=steps[1])
        axes.set_xticks(steps)
    return by_radius, along


def draw_slices(budget: Budget, steps: tuple[int, ...]) -> Path:
    """Some of the slices that the index is made of."""
    path = budget.path("ten-slices-after-training.svg")
    points = torch.rand(256, 2, generator=torch.Generator().manual_seed(budget.seed))
    with figure(path, x="distance from the parameters", y="loss above the lowest, over its range") as axes:
        for form, color in zip(FORMS, COLORS, strict=False):
            objective = problem(form, budget.seed)
            center = trained(objective, points, steps[-1], steps[-1:])[steps[-1]]
            rows = random_directions(center, 10, budget.seed)
            at = symmetric_grid(1.0, 51)
            losses = slices(objective, points, rows, at, center=center)
            low, high = losses.amin(1, keepdim=True), losses.amax(1, keepdim=True)
            drawn = axes.plot(at, ((losses - low) / (high - low)).mT, color=color, linewidth=0.9)
            drawn[0].set_label(f"deep {form}")
    return path
