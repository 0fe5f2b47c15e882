"""PSGD: a valley without a line search, whitened gradients in small models, and what fewer updates cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits
from covector.evidence.experiments.tuned import Outcome, compare
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.evidence.tasks import charlm, train
from covector.optim import PSGD, SGD, Adam, AdamW, HessianFitter

WIDTH, STEPS = 96, 150


@paper(
    "psgd-lie-group",
    parts=["covector.optim.PSGD", "covector.optim.HessianFitter"],
)
def evidence(budget: Budget) -> Evidence:
    """Newton's pairs, whitening, and what fewer updates cost."""
    valley, drawn = valley_findings(budget)
    return Evidence(
        "psgd-lie-group", [*valley, white_finding(budget), *digits_findings(budget), *language(budget)], [drawn]
    )


def rosenbrock(x: Tensor) -> Tensor:
    """Fifty valleys of two dimensions each."""
    return (100 * (x[1::2] - x[::2] ** 2) ** 2 + (1 - x[::2]) ** 2).sum()


def descend(make: Callable[[Any], Any], steps: int, size: int) -> list[float]:
    """Values by step, from the origin; 1e9 from where it diverged."""
    x = nn.Parameter(torch.zeros(size, dtype=torch.float64))
    optimizer = make([x])
    values: list[float] = []

    def closure() -> Tensor:
        x.grad = None
        value = rosenbrock(x)
        if not isinstance(optimizer, PSGD):
            value.backward()
        return value

    for _ in range(steps + 1):
        value = float(optimizer.step(closure).detach())
        if not value < 1e9:
            return [*values, *[1e9] * (steps + 1 - len(values))]
        values.append(value)
    return values


def valley_findings(budget: Budget) -> tuple[list[Finding], Path]:
    """Rosenbrock's function in 100 variables: Newton's pairs beside descent and Adam at their best rates."""
    steps, size = budget.choose(smoke=(60, 20), full=(2000, 100))
    newton = partial(PSGD, lr=1.0, pair="newton", fit_lr=0.5)
    curves = {"PSGD, dense": descend(partial(newton, structure="dense"), steps, size)}
    if budget.name == "full":
        # a smaller rate, as rank 10 cannot hold fifty valleys
        curves["PSGD, rank 10"] = descend(partial(newton, structure="lra", lr=0.1, fit_lr=0.1), steps, size)
    grids: dict[str, tuple[Callable[..., Any], tuple[float, ...]]] = {
        "descent": (partial(SGD), (3e-4, 1e-3, 2e-3)),
        "momentum 0.9": (partial(SGD, momentum=0.9), (1e-4, 3e-4, 1e-3)),
        "Adam": (partial(Adam), (3e-3, 1e-2, 3e-2, 0.1)),
    }
    for name, (make, rates) in grids.items():
        runs = [descend(partial(make, lr=lr), steps, size) for lr in rates]
        curves[name] = min(runs, key=lambda values: values[-1])
    path = budget.path("value-by-step-in-the-valley.svg")
    with figure(path, x="step", y="value") as axes:
        for name, values in curves.items():
            axes.semilogy([max(value, 1e-12) for value in values], label=name)
    ends = {name: values[-1] for name, values in curves.items()}
    ours, best = ends["PSGD, dense"], min(value for name, value in ends.items() if not name.startswith("PSGD"))
    note = (
        f"Rosenbrock's function in {size} variables from 0, {steps} steps, no line search, momentum 0.9; "
        + ", ".join(f"{name} {value:.1e}" for name, value in ends.items())
    )
    return [
        Finding(
            "Newton's pairs cross a valley that first-order methods crawl through, untuned", "orders of magnitude",
            ours, best, "final value", ours < 1e-2 * best if budget.name == "full" else None,
            f"{note}; the others at the best of three or four rates",
        )
    ], path  # fmt: skip


def white_finding(budget: Budget) -> Finding:
    """The covariance of preconditioned gradients whose true covariance is a Kronecker product."""
    steps = budget.choose(smoke=300, full=4000)
    generator = torch.Generator().manual_seed(budget.seed)
    rows, columns = (torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0] for n in (4, 6))
    rows, columns = rows * torch.logspace(0, 1, 4).double(), columns * torch.logspace(0, 1, 6).double()

    def draw() -> Tensor:
        return rows @ torch.randn(4, 6, generator=generator, dtype=torch.float64) @ columns.mT

    fitter = HessianFitter("kron", max_skew=1e9)
    for step in range(steps):
        fitter.lr = max(0.5 / (1 + step / 50), 0.01)
        fitter.update(None, draw())

    def spread(apply: Callable[[Tensor], Tensor]) -> float:
        sample = torch.stack([apply(draw()).flatten() for _ in range(1000)])
        values = torch.linalg.eigvalsh(sample.mT @ sample)
        return float(values[-1] / values[0])

    white, raw = spread(fitter.apply), spread(lambda g: g)
    return Finding(
        "Preconditioned gradients become white", 1.0, white, raw, "condition number of the covariance",
        white < 4.0 if budget.name == "full" else None,
        f"gradients of 4 x 6 with a covariance of condition number 10,000, {steps} updates; 1000 white samples have "
        "about 2 by chance",
    )  # fmt: skip


def digits_findings(budget: Budget) -> list[Finding]:
    """A small network on the digits: every structure, each at its best rate."""
    steps, seeds = budget.choose(smoke=10, full=300), budget.choose(smoke=(0,), full=(0, 1))
    kron, lra = (3e-3, 1e-2, 3e-2), (1e-3, 3e-3, 1e-2)
    grids: dict[str, tuple[Any, Any]] = {
        "kron": (lambda ps, lr: PSGD(ps, lr=lr), kron),
        "diagonal": (lambda ps, lr: PSGD(ps, lr=lr, max_skew=0.0), lra),
        "AdamW": (lambda ps, lr: AdamW(ps, lr=lr, weight_decay=0.0), (3e-3, 1e-2, 3e-2, 0.1)),
    }
    if budget.name == "full":
        grids["rank 10"] = (lambda ps, lr: PSGD(ps, lr=lr, structure="lra"), lra)
    found: Mapping[str, Outcome] = compare(Digits.load(), grids, seeds, steps)
    full, ours, theirs = budget.name == "full", found["kron"], found["AdamW"]
    note = f"digits, 64 - 64 - 10, {steps} batches of 32, {len(seeds)} seeds, momentum 0.9; " + ", ".join(
        f"{name} {outcome.loss:.2e} at {outcome.lr:g}" for name, outcome in found.items()
    )
    return [
        Finding(
            "In a small network Kronecker whitening trains faster than tuned AdamW", "above SGD, Adam, Shampoo",
            ours.loss, theirs.loss, "training loss", ours.loss < theirs.loss if full else None, note,
        ),
        Finding(
            "Held-out accuracy is no lower for it", "above", ours.accuracy, theirs.accuracy, "accuracy, 360 images",
            ours.accuracy >= theirs.accuracy - 0.005 if full else None, note,
        ),
    ]  # fmt: skip


def language(budget: Budget) -> list[Finding]:
    """A character language model: PSGD beside AdamW, and with fewer updates."""
    steps, width = budget.choose(smoke=(8, 12), full=(STEPS, WIDTH))
    seeds = budget.choose(smoke=(0,), full=(0, 1))

    def best(make: Callable[[nn.Module, float], Any], rates: tuple[float, ...]) -> tuple[float, float]:
        tried = {}
        for lr in budget.choose(smoke=rates[:1], full=rates):
            losses = []
            for seed in seeds:
                task = charlm(seed, width=width)
                losses.append(train(task, make(task.model, lr), steps=steps, warmup=max(steps // 10, 1)))
            tried[lr] = sum(losses) / len(losses)
        lr = min(tried, key=lambda key: tried[key])
        return lr, tried[lr]

    every = best(lambda model, lr: PSGD(model, lr=lr), (1e-2, 2e-2, 4e-2))
    few = best(lambda model, lr: PSGD(model, lr=lr, update_probability=0.1), (1e-2, 2e-2, 4e-2))
    adam = best(lambda model, lr: AdamW(model, lr=lr, weight_decay=0.0), (6e-3, 1.2e-2, 2.4e-2))
    full = budget.name == "full"
    note = (
        f"character language model on Python's help texts, hidden width {width}, {steps} steps, {len(seeds)} seeds, "
        f"three rates each; best rates: PSGD {every[0]:g}, one update in ten {few[0]:g}, AdamW {adam[0]:g}"
    )
    return [
        Finding(
            "On a small language model it is better than tuned AdamW at equal steps", "above", every[1], adam[1],
            "validation loss, nats", every[1] < adam[1] - 0.01 if full else None, note,
        ),
        Finding(
            "One update in ten steps costs little", "little", few[1], every[1], "validation loss, nats",
            few[1] < every[1] + 0.03 if full else None, note,
        ),
    ]  # fmt: skip
