"""On the difficulty of training recurrent networks: clipping against explosion, a penalty against vanishing."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from covector.evidence.budget import Budget
from covector.evidence.experiments.temporal_order import Pass, forward_and_back, initial, sequences
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.nn import clip_norm_, explicit_penalty
from covector.trees import Params

BATCH = 20
ALPHA = 4.0


@dataclass
class Run:
    """One training run and what it left.

    Args:
        length: steps of a sequence.
        method: ``"SGD"``, ``"SGD-C"`` (clipped) or ``"SGD-CR"`` (clipped, with the penalty).
        iterations: batches of 20 sequences.
        rate: the learning rate.
        std: deviation of the initial weights.
        seed: of weights and sequences.
    """

    length: int
    method: str
    iterations: int
    rate: float = 0.01
    std: float = 0.1
    seed: int = 0
    errors: list[float] = field(default_factory=list)
    largest: float = 0.0
    profile: Tensor = field(default_factory=lambda: torch.zeros(0))

    def train(self) -> Run:
        """Train; a run whose gradient is not finite any more ends with the error of guessing."""
        generator = torch.Generator().manual_seed(self.seed + 1000)
        params = initial(self.seed, std=self.std)
        for _ in range(self.iterations):
            found = forward_and_back(params, *sequences(self.length, BATCH, generator))
            norm = self._step(params, found)
            self.errors.append(found.wrong)
            self.largest = max(self.largest, norm)
            if not math.isfinite(norm):
                self.errors += [0.75] * (self.iterations - len(self.errors))
                break
        self.profile = found.upstream.norm(dim=-1).mean(-1)
        return self

    def _step(self, params: Params, found: Pass) -> float:
        grads = found.grads
        if self.method == "SGD-CR":
            weight = params["weight_hh"].clone().requires_grad_()
            omega = explicit_penalty(weight, found.upstream, found.derivative)
            grads["weight_hh"] += ALPHA * torch.autograd.grad(omega, weight)[0]
        limit = 1e30 if self.method == "SGD" else 1.0
        norm = clip_norm_(grads, limit, "zero")
        for name, parameter in params.items():
            parameter.sub_(grads[name], alpha=self.rate)
        return norm

    @property
    def name(self) -> str:
        """How figures call it."""
        return f"T = {self.length}, {self.method}" + (", large start" if self.std > 0.1 else "")

    @property
    def error(self) -> float:
        """Share of wrong answers in the last sixth of the run, before each batch was learned from."""
        return statistics.fmean(self.errors[-max(1, self.iterations // 6) :])


@paper(
    "rnn-gradient-clipping",
    parts=["covector.nn.clip_norm_", "covector.nn.explicit_penalty", "covector.nn.VanishingGradientPenalty"],
)
def evidence(budget: Budget) -> Evidence:
    """The temporal-order task, short and long, from a small and from a large start."""
    if budget.name == "smoke":
        runs = [Run(20, method, 250, seed=budget.seed).train() for method in ("SGD-C", "SGD-CR")]
        findings = [penalty_finding(20, runs[:1], runs[1:], 0.7, 0.6)]
    else:
        runs, findings = full(budget.seed)
    path = budget.path("share-of-wrong-answers-by-iteration.svg")
    with figure(path, x="iteration", y="wrong answers") as axes:
        axes.set_ylim(0, 0.85)
        for run in runs:
            window = max(1, run.iterations // 30)
            smooth = torch.tensor(run.errors).unfold(0, window, window).mean(1)
            axes.plot(torch.arange(1, len(smooth) + 1) * window, smooth, label=run.name, linewidth=1.2)
    return Evidence("rnn-gradient-clipping", findings, [path, profiles(budget, runs)])


def full(seed: int) -> tuple[list[Run], list[Finding]]:
    """T = 20, where everything works, and T = 50, where only the penalty does."""
    short = [Run(20, method, 1500, seed=seed).train() for method in ("SGD", "SGD-C", "SGD-CR")]
    solved = Finding(
        "Short sequences, T = 20, are learned with and without the penalty", "yes", max(run.error for run in short),
        0.75, "wrong answers, worst method", all(run.error < 0.05 for run in short),
        "1500 iterations of 20 sequences; baseline: guessing. In the first 500 iterations: "
        + ", ".join(f"{run.method} {statistics.fmean(run.errors[:500]):.2f}" for run in short),
    )  # fmt: skip
    clipped = [Run(50, "SGD-C", 3000, rate, seed=seed).train() for rate in (0.01, 0.1)]
    penalized = [Run(50, "SGD-CR", 3000, seed=seed + s).train() for s in range(2)]
    best = min(clipped, key=lambda run: run.error)
    exploding, wild = explosion_finding(seed)
    return [best, penalized[0], *wild], [solved, penalty_finding(50, clipped, penalized, 0.7, 0.5), exploding]


def penalty_finding(length: int, clipped: list[Run], penalized: list[Run], above: float, below: float) -> Finding:
    """The error with the penalty against the best without it."""
    measured, baseline = statistics.fmean(run.error for run in penalized), min(run.error for run in clipped)
    each = ", ".join(f"{run.error:.2f}" for run in penalized)
    return Finding(
        f"With the penalty the order of two symbols is learned over T = {length} steps", "100 % up to T = 200",
        measured, baseline, "wrong answers", measured < below and baseline > above,
        f"{penalized[0].iterations} iterations of 20 sequences, penalty of {ALPHA:g}, rate 0.01, seeds: {each}; holds "
        f"below {below} against above {above}; baseline: clipping alone, best of rates "
        f"{', '.join(str(run.rate) for run in clipped)}, largest gradient norm "
        f"{max(run.largest for run in clipped):.2g}, so that the gradient vanishes",
    )  # fmt: skip


def explosion_finding(seed: int) -> tuple[Finding, list[Run]]:
    """A large start, from which gradients explode, at a learning rate that clipping makes possible."""
    length, iterations, seeds = 20, 800, 2
    runs = {
        method: [Run(length, method, iterations, 0.1, 0.3, seed + s).train() for s in range(seeds)]
        for method in ("SGD", "SGD-C")
    }
    errors = {method: statistics.fmean(run.error for run in found) for method, found in runs.items()}
    finding = Finding(
        "Where gradients explode, clipping lets the network learn", "yes", errors["SGD-C"], errors["SGD"],
        "wrong answers", errors["SGD-C"] < errors["SGD"] - 0.15,
        f"T = {length}, weights from N(0, 0.3), rate 0.1, {iterations} iterations, mean of {seeds} seeds; largest "
        f"norms {max(run.largest for run in runs['SGD-C']):.0f} before clipping to 1, "
        f"{max(run.largest for run in runs['SGD']):.0f} without",
    )  # fmt: skip
    return finding, [found[0] for found in runs.values()]


def profiles(budget: Budget, runs: list[Run]) -> Path:
    """How long the gradient is after its way back through time, at the end of training."""
    path = budget.path("length-of-the-gradient-by-step.svg")
    with figure(path, x="step of the sequence", y="|dE/dh_t|, last step = 1") as axes:
        for run in runs:
            axes.semilogy(range(1, run.length + 1), run.profile / run.profile[-1], label=run.name)
    return path
