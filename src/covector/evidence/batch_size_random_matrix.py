"""Learning rate as a function of batch size: do batch spectra and largest stable steps follow the formulas?"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from covector.curvature import Hessian
from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits, classifier
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.landscape import BatchSpectrum, batch_spectrum, marchenko_pastur_top, wigner_top
from covector.linalg import eigsh
from covector.objective import Objective
from covector.trees import clone, copy_

PARAMETERS = 400
CHANCE = math.log(10)  # the loss of guessing one digit of ten
SIZES = (2, 4, 8, 16, 32, 64, 128, 256)


@paper(
    "batch-size-random-matrix",
    parts=[
        "covector.landscape.BatchSpectrum",
        "covector.landscape.batch_spectrum",
        "covector.landscape.wigner_top",
        "covector.landscape.marchenko_pastur_top",
        "covector.landscape.lr_for_batch",
        "covector.landscape.heavy_ball",
    ],
)
def evidence(budget: Budget) -> Evidence:
    """Spiked random matrices; the batch Hessians of a network on digits; its largest stable learning rates."""
    draws = budget.choose(smoke=3, full=40)
    wigner = _simulated(_wigner, (2.0, 10.0), (4, 16, 64, 256), draws, budget.seed)
    pastur = _simulated(_pastur, (5.0,), (20, 50, 200, 800), draws, budget.seed)
    x, y = Digits.load().train
    objective = classifier(budget.seed, hidden=32)
    _train(objective, (x, y), steps=budget.choose(40, 150))
    sizes = budget.choose(smoke=(4, 32, 256), full=SIZES)
    batches = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 32 * (len(y) // 32), 32)]
    isotropic, spectrum = (
        batch_spectrum(objective, batches, along=along, probes=budget.choose(4, 64), seed=budget.seed)
        for along in ("random", "top")
    )
    tops = {size: _batch_tops(objective, (x, y), size, budget.choose(3, 12), budget.seed) for size in sizes}
    stable = {
        name: {size: _largest_stable(objective, (x, y), make, size, budget) for size in sizes}
        for name, make in (("SGD", torch.optim.SGD), ("Adam", torch.optim.Adam))
    }
    figures = [_tops_figure(budget, isotropic, spectrum, tops), _rates_figure(budget, spectrum, stable)]
    findings = [
        *_on_matrices(wigner, pastur, draws),
        *_on_batches(isotropic, spectrum, tops),
        *_on_rates(spectrum, stable),
    ]
    return Evidence("batch-size-random-matrix", findings, figures)


class Simulated(NamedTuple):
    """The mean largest eigenvalue of random matrices beside the formula's."""

    size: int
    mean: float
    formula: float


def _simulated(
    draw: Callable[[float, int, torch.Generator], tuple[float, float]],
    values: tuple[float, ...], sizes: tuple[int, ...], draws: int, seed: int,
) -> list[Simulated]:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    found = []
    for value in values:
        for size in sizes:
            pairs = [draw(value, size, generator) for _ in range(draws)]
            found.append(Simulated(size, statistics.fmean(top for top, _ in pairs), pairs[0][1]))
    return found


def _wigner(value: float, size: int, generator: torch.Generator) -> tuple[float, float]:
    deviation = 0.2
    raw = torch.randn(PARAMETERS, PARAMETERS, generator=generator, dtype=torch.float64) * deviation / math.sqrt(size)
    matrix = (raw + raw.mT) / math.sqrt(2)
    matrix[0, 0] += value
    return float(torch.linalg.eigvalsh(matrix)[-1]), wigner_top(value, PARAMETERS * deviation**2, size)


def _pastur(value: float, size: int, generator: torch.Generator) -> tuple[float, float]:
    variance = 0.05
    samples = torch.randn(size, PARAMETERS, generator=generator, dtype=torch.float64) * math.sqrt(variance)
    samples[:, 0] *= math.sqrt(value / variance)
    top = torch.linalg.matrix_norm(samples, 2).square() / size
    return float(top), marchenko_pastur_top(value, variance, PARAMETERS, size)


def _on_matrices(wigner: list[Simulated], pastur: list[Simulated], draws: int) -> list[Finding]:
    return [
        Finding(
            claim=f"The largest eigenvalue of {name} follows the formula",
            reported="equal for large matrices",
            measured=round(max(abs(row.mean / row.formula - 1) for row in rows), 4),
            baseline="none",
            unit="largest relative error of the mean",
            holds=max(abs(row.mean / row.formula - 1) for row in rows) <= 0.05,
            note=f"{PARAMETERS} parameters, {draws} draws each: "
            + "; ".join(f"B = {row.size}: {row.mean:.2f} ({row.formula:.2f})" for row in rows),
        )
        for name, rows in (("a matrix with symmetric noise", wigner), ("a sample covariance", pastur))
    ]


def _train(objective: Objective, batch: tuple[Tensor, Tensor], steps: int) -> None:
    optimizer = torch.optim.SGD(objective.params.values(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(batch).backward()
        optimizer.step()


def _batch_tops(objective: Objective, data: tuple[Tensor, Tensor], size: int, repeats: int, seed: int) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    tops = []
    for _ in range(repeats):
        chosen = torch.randperm(len(data[1]), generator=generator)[:size]
        operator = Hessian(objective, (data[0][chosen], data[1][chosen]))
        tops.append(float(eigsh(operator, 1, "LA", tol=1e-3).values[0]))
    return tops


def _on_batches(isotropic: BatchSpectrum, spectrum: BatchSpectrum, tops: dict[int, list[float]]) -> list[Finding]:
    means = {size: statistics.fmean(values) for size, values in tops.items()}
    falls = list(means.values())
    errors = [statistics.stdev(values) / math.sqrt(len(values)) for values in tops.values()]
    clear = falls[0] - falls[-1] > 2 * math.hypot(errors[0], errors[-1])
    risen = [
        later - before > 2 * math.hypot(*pair)
        for (before, later), pair in zip(itertools.pairwise(falls), itertools.pairwise(errors), strict=True)
    ]

    def row(found: BatchSpectrum, where: str) -> Finding:
        worst = math.exp(max(abs(math.log(mean / found.largest(size))) for size, mean in means.items()))
        return Finding(
            claim=f"The formula foretells the largest eigenvalue of batch Hessians, from their noise along {where}",
            reported="fits",
            measured=round(worst, 2),
            baseline=round(max(means.values()) / found.top, 2),
            unit="largest factor between formula and mean (baseline: taking the full Hessian's)",
            holds=worst <= 1.25,
            note="digits, network 64-32-10; "
            f"noise {found.noise:.2g} +- {found.error:.1g}, by pairs of batches of 32: "
            + "; ".join(f"B = {size}: {mean:.2f} ({found.largest(size):.2f})" for size, mean in means.items()),
        )

    return [
        row(isotropic, "random vectors, as the paper has it"),
        row(spectrum, "the top eigenvector"),
        Finding(
            claim="The largest eigenvalue of a batch's Hessian falls as the batch grows",
            reported="falls",
            measured=round(falls[0] / falls[-1], 2),
            baseline=1.0,
            unit="ratio of smallest to largest batch",
            holds=False if any(risen) else clear or None,
            note="mean over batches drawn anew; what is within two standard errors is no rise, and no fall: "
            + "; ".join(f"B = {size}: {means[size]:.2f} +- {e:.2f}" for size, e in zip(means, errors, strict=True)),
        ),
    ]


def _largest_stable(
    objective: Objective, data: tuple[Tensor, Tensor], make: Callable[..., torch.optim.Optimizer], size: int,
    budget: Budget,
) -> float:  # fmt: skip
    """The largest learning rate, on a grid of factors of sqrt 2, with which the run does not end above chance."""
    start = clone(objective.params)
    steps, repeats = budget.choose((40, 1), (150, 3))
    found = []
    for repeat in range(repeats):
        lr, factor = 2.0**-12, math.sqrt(2)
        best = lr / factor
        for _ in range(40):
            copy_(objective.params, start)
            generator = torch.Generator().manual_seed(budget.seed + repeat)
            optimizer = make(objective.params.values(), lr=lr)
            for _ in range(steps):
                chosen = torch.randint(len(data[1]), (size,), generator=generator)
                optimizer.zero_grad()
                objective((data[0][chosen], data[1][chosen])).backward()
                optimizer.step()
            after = _loss(objective, data)
            if not after < CHANCE:
                break
            best, lr = lr, lr * factor
        found.append(math.log(best))
    copy_(objective.params, start)
    return math.exp(statistics.fmean(found))


def _loss(objective: Objective, data: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        return float(objective(data))


def _on_rates(spectrum: BatchSpectrum, stable: dict[str, dict[int, float]]) -> list[Finding]:
    findings = []
    for name, reported, expected in (("SGD", "1, then 0", 1.0), ("Adam", "1/2, then 0", 0.5)):
        rates = stable[name]
        sizes = list(rates)
        middle = len(sizes) // 2
        small, large = (_slope(rates, part) for part in (sizes[: middle + 1], sizes[middle:]))
        findings.append(
            Finding(
                claim=f"{name}'s largest stable learning rate grows as B^{expected:g} while noise rules, then no more",
                reported=reported,
                measured=f"{small:.2f}, then {large:.2f}",
                baseline="none",
                unit=f"exponent over B from {sizes[0]} to {sizes[middle]}, and from there to {sizes[-1]}",
                holds=abs(small - expected) <= 0.25 and abs(large) <= 0.25,
                note="the largest rate with which the full loss ends below that of guessing; "
                f"the noise is foretold to rule below B = {spectrum.saturation:.1f}; "
                + "; ".join(f"B = {size}: {rate:.3g}" for size, rate in rates.items()),
            )
        )
    rates = stable["SGD"]
    logs = [math.log(rate / spectrum.largest_lr(size)) for size, rate in rates.items()]
    spread = max(logs) - min(logs)
    findings.append(
        Finding(
            claim="SGD's largest stable learning rate is 2 over the foretold eigenvalue of a batch",
            reported="in proportion",
            measured=round(math.exp(spread), 2),
            baseline=round(max(rates.values()) / min(rates.values()), 2),
            unit="factor by which the ratio of both varies over B (baseline: a rate for all)",
            holds=spread <= math.log(1.5),
            note=f"ratios from {math.exp(min(logs)):.2f} to {math.exp(max(logs)):.2f}",
        )
    )
    return findings


def _slope(rates: dict[int, float], sizes: list[int]) -> float:
    line = statistics.linear_regression([math.log(s) for s in sizes], [math.log(rates[s]) for s in sizes])
    return line.slope


def _tops_figure(
    budget: Budget, isotropic: BatchSpectrum, spectrum: BatchSpectrum, tops: dict[int, list[float]]
) -> Path:
    path = budget.path("largest-eigenvalue-by-batch-size.svg")
    with figure(path, x="batch size", y="largest eigenvalue of a batch's Hessian") as axes:
        for size, values in tops.items():
            axes.plot([size] * len(values), values, "o", ms=3, color="#0072b2", alpha=0.35)
        axes.plot(list(tops), [statistics.fmean(v) for v in tops.values()], "o-", color="#0072b2", label="mean")
        for found, color, label in (
            (spectrum, "#d55e00", "formula, noise along the top eigenvector"),
            (isotropic, "#009e73", "formula, noise along random vectors"),
        ):
            axes.plot(list(tops), [found.largest(size) for size in tops], "--", color=color, label=label)
        axes.axhline(spectrum.top, color="gray", lw=0.8, label="all examples")
        axes.set_xscale("log", base=2)
    return path


def _rates_figure(budget: Budget, spectrum: BatchSpectrum, stable: dict[str, dict[int, float]]) -> Path:
    path = budget.path("largest-stable-learning-rate-by-batch-size.svg")
    with figure(path, x="batch size", y="largest stable learning rate") as axes:
        for name, rates in stable.items():
            axes.plot(list(rates), list(rates.values()), "o-", label=name)
        sizes = list(stable["SGD"])
        axes.plot(sizes, [spectrum.largest_lr(s) for s in sizes], "--", color="gray", label="2 / foretold eigenvalue")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
    return path
