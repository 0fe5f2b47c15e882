"""GrassWalk and GrassJump: Adam in a random subspace, with moments that are transported and a rest that is recovered.

The model is a character language model of 0.1 million parameters, where the paper pre-trains LLaMA of 1 to 7 billion.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from covector.compare.tuning import Listed, search
from covector.evidence.budget import Budget
from covector.evidence.figures import COLORS, figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.evidence.tasks import CharLM, charlm, train
from covector.optim import Adam, Optimizer, SubspaceAdam
from covector.optim.grassmann import captured_energy, leading
from covector.optim.roles import grouped

RANK, REST = 16, 3e-3
MARGIN = 0.03  # nats; smaller differences are taken as noise
BARE = {"adaptive": False, "recover": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "GaLore": {"update": "svd", **BARE},
    "GaLore + AO + RS": {"update": "svd"},
    "SubTrack++": {"update": "track"},
    "GrassWalk": {"update": "walk"},
    "GrassJump": {"update": "jump"},
    "GrassWalk bare": {"update": "walk", **BARE},
    "GrassJump bare": {"update": "jump", **BARE},
}
FULL_RANK = "Adam"
RATES = (0.01, 0.02, 0.04, 0.08)
FULL_RANK_RATES = (0.0025, 0.005, 0.01, 0.02)


@paper(
    "grasswalk",
    parts=[
        "covector.optim.SubspaceAdam",
        "covector.optim.GradientSubspace",
        "covector.optim.grassmann.captured_energy",
    ],
)
def evidence(budget: Budget) -> Evidence:
    """Validation loss of each renewal with and without transport and recovery, memory, and the captured energy."""
    table = Table(budget)
    energy = Energy(budget)
    figures = [table.draw(budget.path("validation-loss-by-renewal.svg"))]
    figures.append(energy.draw(budget.path("energy-in-the-leading-subspace-by-step.svg")))
    return Evidence("grasswalk", [*table.findings(), *energy.findings()], figures)


def optimizer_for(task: CharLM, name: str, rate: float, interval: int) -> Optimizer:
    """A variant for the hidden matrices; embedding, head and biases always get Adam at 3e-3."""
    if name == FULL_RANK:
        return Adam(grouped(task.model, {"lr": rate}, {"lr": REST}), eps=1e-6)
    return SubspaceAdam(task.model, rate, REST, RANK, interval=interval, **VARIANTS[name])


@dataclass(frozen=True)
class Score:
    """A variant at its best learning rate: losses by seed."""

    rate: float
    losses: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.losses)

    @property
    def said(self) -> str:
        spread = f", {min(self.losses):.3f} to {max(self.losses):.3f}" if len(self.losses) > 1 else ""
        return f"{self.mean:.3f} at {self.rate:g}{spread}"


class Table:
    """The ablation: the learning rate is chosen on the first seed, the other seeds only judge."""

    def __init__(self, budget: Budget) -> None:
        self.full = budget.name == "full"
        self.steps, self.interval = budget.choose(smoke=(15, 5), full=(300, 50))
        self.seeds = [budget.seed + i for i in range(budget.choose(smoke=1, full=3))]
        self.scores = {name: self._score(name) for name in [*VARIANTS, FULL_RANK]}
        self.numbers = {name: state_numbers(name) for name in (FULL_RANK, "GrassJump")}

    def _score(self, name: str) -> Score:
        grid = FULL_RANK_RATES if name == FULL_RANK else RATES
        tuner = Listed(grid if self.full else grid[2:3])
        best, tried = search(tuner, lambda rate: self._run(name, rate, self.seeds[0]))
        return Score(best, [tried[best], *(self._run(name, best, seed) for seed in self.seeds[1:])])

    def _run(self, name: str, rate: float, seed: int) -> float:
        task = charlm(seed)
        return train(task, optimizer_for(task, name, rate, self.interval), self.steps)

    def findings(self) -> list[Finding]:
        ratio = self.numbers[FULL_RANK] / self.numbers["GrassJump"]
        return [
            self._compare("GrassJump reaches a lower loss than GaLore", "GrassJump", "GaLore"),
            self._compare("GrassWalk reaches a lower loss than GaLore", "GrassWalk", "GaLore"),
            self._compare("GrassJump reaches a lower loss than SubTrack++", "GrassJump", "SubTrack++"),
            self._compare("GrassWalk reaches a lower loss than SubTrack++", "GrassWalk", "SubTrack++"),
            self._compare("With AO and RS, a random subspace beats the SVD's", "GrassJump", "GaLore + AO + RS"),
            self._compare("Without them, it is worse than the SVD's", "GaLore", "GrassJump bare"),
            self._compare("A random walk too needs AO and RS", "GrassWalk", "GrassWalk bare"),
            self._near("GrassJump comes near Adam with full moments (a claim of this library)", "GrassJump", ratio),
            self._near("GrassWalk comes near Adam with full moments (a claim of this library)", "GrassWalk", ratio),
        ]

    def _compare(self, claim: str, better: str, worse: str) -> Finding:
        one, other = self.scores[better], self.scores[worse]
        gain = other.mean - one.mean
        holds = None if abs(gain) < MARGIN or not self.full else gain > 0
        note = f"{better}: {one.said}; {worse}: {other.said}; decided from {MARGIN} nats on; {self.setting}"
        return Finding(claim, "lower", one.mean, other.mean, "validation loss, nats", holds, note)

    def _near(self, claim: str, name: str, ratio: float) -> Finding:
        one, other = self.scores[name], self.scores[FULL_RANK]
        holds = one.mean - other.mean < MARGIN if self.full else None
        note = (
            f"{name}: {one.said}; Adam: {other.said}; holds within {MARGIN}; "
            f"1/{ratio:.1f} of its states for these matrices; {self.setting}"
        )
        return Finding(claim, "near", one.mean, other.mean, "validation loss, nats", holds, note)

    @property
    def setting(self) -> str:
        text = (
            f"char-LM, matrices of 192 x 256 and 192 x 192, rank {RANK}, renewed every {self.interval} of {self.steps} "
            f"steps, {len(self.seeds)} seed(s); best of {len(RATES)} learning rates on the first"
        )
        return text if self.full else f"too short to decide, one learning rate: {text}"

    def draw(self, path: Path) -> Path:
        order = sorted(self.scores, key=lambda name: self.scores[name].mean, reverse=True)
        with figure(path, x="validation loss, nats (points: seeds)") as axes:
            for row, name in enumerate(order):
                losses = self.scores[name].losses
                color = COLORS[1] if name in ("GrassWalk", "GrassJump") else COLORS[0]
                axes.plot(losses, [row] * len(losses), "o", color=color, alpha=0.6)
                axes.plot([self.scores[name].mean], [row], "|", color=color, markersize=18)
            axes.set_yticks(range(len(order)), order)
        return path


def state_numbers(name: str) -> int:
    """Numbers an optimizer keeps for the two hidden matrices."""
    task = charlm(0)
    optimizer = optimizer_for(task, name, 0.01, interval=1)
    train(task, optimizer, steps=1)
    states = [optimizer.state[p] for p in (task.model.first.weight, task.model.second.weight)]
    return sum(value.numel() for state in states for value in state.values() if isinstance(value, Tensor))


class Energy:
    """How much of each gradient lies in its own leading subspace, and in the one in use."""

    def __init__(self, budget: Budget) -> None:
        self.full = budget.name == "full"
        self.steps, self.interval = budget.choose(smoke=(15, 5), full=(300, 50))
        self.every = budget.choose(smoke=1, full=5)
        self.seen: dict[str, list[tuple[int, float]]] = {}
        for name, rate in (("GaLore + AO + RS", 0.04), ("GrassJump", 0.04)):
            task = charlm(budget.seed)
            optimizer = optimizer_for(task, name, rate, self.interval)
            train(task, optimizer, self.steps, after=self._look(task, optimizer, name))

    def _look(self, task: CharLM, optimizer: Optimizer, name: str) -> Callable[[int, float], None]:
        def look(step: int, loss: float) -> None:
            if step % self.every:
                return
            for layer in ("first", "second"):
                weight = getattr(task.model, layer).weight
                grad = weight.grad.detach()
                in_use = captured_energy(optimizer.state[weight]["subspace"], grad)
                self.seen.setdefault(f"{name}, {layer}", []).append((step, float(in_use)))
                if name == "GrassJump":
                    own = captured_energy(leading(grad, RANK), grad)
                    self.seen.setdefault(f"its own leading {RANK}, {layer}", []).append((step, float(own)))

        return look

    def findings(self) -> list[Finding]:
        own = f"its own leading {RANK}, second"
        start, end = self.seen[own][0][1], statistics.fmean(e for _, e in self.seen[own][-5:])
        used = self.seen["GaLore + AO + RS, second"]
        late = statistics.fmean(e for step, e in used if step % self.interval >= self.interval - 2 * self.every)
        fresh = statistics.fmean(e for step, e in used if step % self.interval == 0)
        setting = f"char-LM, second hidden matrix, 192 x 192, {self.steps} steps, one seed"
        return [
            Finding(
                "The share of a gradient's energy in its leading directions falls along training",
                "high, then towards 0.5", end, start, "share of square norm",
                end < start if self.full else None,
                f"of the batch's gradient in its own {RANK} leading directions; baseline: at the first step; {setting}",
            ),
            Finding(
                "A subspace taken from a gradient soon loses what it captured", "lower", late, fresh,
                "share of square norm", late < fresh - MARGIN if self.full else None,
                f"GaLore + AO + RS, just before the next renewal (baseline: at a renewal); {setting}",
            ),
        ]  # fmt: skip

    def draw(self, path: Path) -> Path:
        with figure(path, x="step", y="share of the gradient's square norm") as axes:
            lines = [name for name in self.seen if name.endswith("second")]
            for name, color in zip(lines, COLORS, strict=False):
                axes.plot(*zip(*self.seen[name], strict=True), color=color, label=name.removesuffix(", second"))
            axes.set_ylim(0, 1)
        return path
