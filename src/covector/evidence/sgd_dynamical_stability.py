"""The implicit regularization of dynamical stability: a large learning rate leaves SGD only minima of small trace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from covector.evidence.budget import Budget
from covector.evidence.figures import COLORS, figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.landscape import Stability

EXAMPLES, WIDTH, SPARSE = 40, 100, 4
STOCHASTIC, PLAIN = (0.005, 0.01, 0.02, 0.03, 0.05), (0.02, 0.05, 0.1, 0.2)
SETTING = (
    "diagonal network f = <a * b, x>, a = 0.6, b = 0 at the start, loss (f - y)^2 / 2, "
    "40 examples of 100 normal inputs, 4-sparse target"
)


@dataclass(frozen=True)
class Runs:
    """Where each run ended; one row a run.

    Args:
        lr: learning rates.
        loss: of the training examples.
        error: distance to the target.
        minima: stability there; None where the run diverged.
    """

    lr: list[float]
    loss: list[float]
    error: list[float]
    minima: list[Stability | None]

    def of(self, lr: float, value: str) -> list[float]:
        """A quantity of the runs of one learning rate: "trace", "sharpness" or "error"."""
        rows = [i for i, own in enumerate(self.lr) if own == lr and self.minima[i] is not None]
        return [self.error[i] if value == "error" else float(getattr(self.minima[i], value)) for i in rows]


@paper("sgd-dynamical-stability", parts=["covector.landscape.Stability"])
def evidence(budget: Budget) -> Evidence:
    """SGD and gradient descent on a diagonal network, at learning rates from small to the edge."""
    seeds = range(budget.seed, budget.seed + budget.choose(smoke=1, full=5))
    sgd = descend(STOCHASTIC, seeds, budget.choose(smoke=3000, full=60_000), stochastic=True)
    plain = descend(PLAIN, seeds, budget.choose(smoke=500, full=12_000), stochastic=False)
    drawn = draw(budget, sgd, plain)
    return Evidence(
        "sgd-dynamical-stability", [*bound_findings(budget, sgd, plain), *bias_findings(budget, sgd)], [drawn]
    )


def descend(rates: tuple[float, ...], seeds: range, steps: int, stochastic: bool) -> Runs:
    """All learning rates and seeds at once; one example a step, drawn with replacement, or all of them."""
    rows = [(lr, seed) for lr in rates for seed in seeds]
    problems = {seed: _problem(seed) for seed in seeds}
    inputs, targets, truth = (torch.stack([problems[seed][k] for _, seed in rows]) for k in range(3))
    lr = torch.tensor([lr for lr, _ in rows], dtype=torch.float64)[:, None]
    a, b = torch.full((len(rows), WIDTH), 0.6, dtype=torch.float64), torch.zeros(len(rows), WIDTH, dtype=torch.float64)
    draw, index = torch.Generator().manual_seed(seeds[0]), torch.arange(len(rows))
    for _ in range(steps):
        if stochastic:
            chosen = torch.randint(EXAMPLES, (len(rows),), generator=draw)
            x = inputs[index, chosen]
            slope = x * ((a * b * x).sum(1) - targets[index, chosen])[:, None]
        else:
            residual = (inputs @ (a * b)[:, :, None])[:, :, 0] - targets
            slope = (residual[:, None, :] @ inputs)[:, 0] / EXAMPLES
        a, b = a - lr * slope * b, b - lr * slope * a
    residual = (inputs @ (a * b)[:, :, None])[:, :, 0] - targets
    loss = residual.square().mean(1) / 2
    minima = [
        Stability.from_factors(torch.cat([x * own_b, x * own_a], 1)) if bool(value < 1e6) else None
        for x, own_a, own_b, value in zip(inputs, a, b, loss, strict=True)
    ]
    return Runs([own for own, _ in rows], loss.tolist(), (a * b - truth).norm(dim=1).tolist(), minima)


def _problem(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(EXAMPLES, WIDTH, generator=draw, dtype=torch.float64)
    truth = torch.zeros(WIDTH, dtype=torch.float64)
    truth[:SPARSE] = 1.0
    return x, x @ truth, truth


def bound_findings(budget: Budget, sgd: Runs, plain: Runs) -> list[Finding]:
    """Trace against 2 / lr for SGD, sharpness against 2 / lr for gradient descent, and the exact condition."""
    full = budget.name == "full"
    settled = [
        (lr, m) for lr, m, loss in zip(sgd.lr, sgd.minima, sgd.loss, strict=True) if m is not None and loss < 1e-8
    ]
    descended = [(lr, m) for lr, m, loss in zip(plain.lr, plain.minima, plain.loss, strict=True) if m and loss < 1e-8]
    trace = max((lr * m.trace / 2 for lr, m in settled), default=0.0)
    plain_trace = max((lr * m.trace / 2 for lr, m in descended), default=0.0)
    sharp = max((lr * m.sharpness / 2 for lr, m in descended), default=0.0)
    exact = max((lr / m.max_lr(1, "with_replacement") for lr, m in settled), default=0.0)
    reached = (
        f"{len(settled)} of {len(sgd.lr)} runs of SGD and {len(descended)} of {len(plain.lr)} of gradient descent "
        "reached a loss below 1e-8"
    )
    return [
        Finding(
            "A minimum at which SGD stays has Tr H <= 2 / lr", "at most 1", trace, plain_trace, "largest lr Tr H / 2",
            trace <= 1.0 if full and settled else None,
            f"{SETTING}, batches of one; beside it gradient descent; {reached}",
        ),
        Finding(
            "Gradient descent needs only lambda_1 <= 2 / lr", "at most 1", sharp, plain_trace,
            "largest lr lambda_1 / 2, and lr Tr H / 2 of the same runs",
            sharp <= 1.0 < plain_trace if full else None, reached,
        ),
        Finding(
            "SGD stays only where the exact condition lets it", "at most 1", exact, trace,
            "largest lr / largest stable lr, and of the trace bound", exact <= 1.0 if full and settled else None,
            "the largest stable learning rate by Stability.max_lr(1, 'with_replacement')",
        ),
    ]  # fmt: skip


def bias_findings(budget: Budget, sgd: Runs) -> list[Finding]:
    """What a larger learning rate does to the trace and to the distance to the target."""
    small, large = STOCHASTIC[0], STOCHASTIC[-1]
    found = {name: (_mean(sgd.of(large, name)), _mean(sgd.of(small, name))) for name in ("trace", "error")}
    claims = {
        "trace": ("With a larger learning rate SGD ends at a smaller trace", "Tr H, mean over seeds"),
        "error": ("and closer to the target", "distance to the target, mean over seeds"),
    }
    return [
        Finding(
            claims[name][0], "smaller", high, low, claims[name][1],
            high < low if budget.name == "full" else None, f"learning rate {large}, beside {small}; {SETTING}",
        )
        for name, (high, low) in found.items()
    ]  # fmt: skip


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def draw(budget: Budget, sgd: Runs, plain: Runs) -> Path:
    """Traces where the runs ended, below and above the bound."""
    path = budget.path("trace-by-learning-rate.svg")
    with figure(path, x="learning rate", y="trace of the Hessian") as axes:
        line = torch.logspace(-2.4, -0.6, 60)
        axes.plot(line, 2 / line, color="black", linewidth=1.0, label="2 / learning rate")
        for runs, label, color, mark in ((sgd, "SGD", COLORS[0], "o"), (plain, "gradient descent", COLORS[1], "s")):
            shown = [(lr, m.trace) for lr, m in zip(runs.lr, runs.minima, strict=True) if m is not None]
            axes.plot(*zip(*shown, strict=True), mark, color=color, markersize=5, alpha=0.7, label=label)
        axes.set(xscale="log", yscale="log")
    return path
