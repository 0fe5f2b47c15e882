"""Riemannian adaptive optimizers on hierarchies in the Poincare ball, each tuned over the same learning rates.

The paper embeds all 82,115 nouns of WordNet; here it is a balanced tree, and the 1,182 nouns under "mammal".
"""

from __future__ import annotations

import functools
import statistics
from pathlib import Path
from typing import Any

from covector.evidence.budget import Budget
from covector.evidence.experiments.hierarchies import Hierarchy, Outcome, balanced_tree, embed, mammals
from covector.evidence.figures import COLORS, figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import RiemannianAdagrad, RiemannianAdam, RiemannianAMSGrad, RiemannianSGD

GRID = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "RSGD": (RiemannianSGD, {"update": "retract"}),
    "RAdagrad": (RiemannianAdagrad, {"update": "retract"}),
    "RAdam": (RiemannianAdam, {"update": "retract"}),
    "RAMSGrad": (RiemannianAMSGrad, {"update": "retract"}),
    "RAdam, exp": (RiemannianAdam, {"update": "exp"}),
    "RAdam, lazy": (RiemannianAdam, {"update": "retract", "lazy": True}),
}


@paper(
    "riemannian-adaptive",
    parts=[
        "covector.optim.RiemannianSGD",
        "covector.optim.RiemannianAdagrad",
        "covector.optim.RiemannianAdam",
        "covector.optim.RiemannianAMSGrad",
        "covector.optim.manifolds.PoincareBall",
    ],
)
def evidence(budget: Budget) -> Evidence:
    """Loss and reconstruction by method and learning rate, on a tree and on a part of WordNet."""
    tree = Comparison(budget.choose(smoke=balanced_tree(2, 3), full=balanced_tree()), budget, (20, 800), 64)
    nouns = Comparison(mammals(budget.choose(smoke="primate", full="mammal")), budget, (20, 800), 256)
    findings, figures = [], []
    for short, comparison in (("tree", tree), ("WordNet", nouns)):
        findings += comparison.findings(short)
        figures.append(comparison.draw_rates(budget.path(f"loss-by-learning-rate-{short.lower()}.svg")))
        figures.append(comparison.draw_steps(budget.path(f"loss-by-step-{short.lower()}.svg")))
    return Evidence("riemannian-adaptive", findings, figures)


class Comparison:
    """One hierarchy: a learning rate is chosen by the final loss of the first seed, the others only judge."""

    def __init__(self, hierarchy: Hierarchy, budget: Budget, steps: tuple[int, int], batch: int) -> None:
        self.hierarchy, self.batch = hierarchy, batch
        self.full = budget.name == "full"
        self.steps = budget.choose(*steps)
        self.grid = budget.choose(smoke=(0.03, 0.3), full=GRID)
        self.seeds = [budget.seed + i for i in range(budget.choose(smoke=1, full=3))]
        self.tried = {name: {lr: self._run(name, lr, self.seeds[0]) for lr in self.grid} for name in METHODS}

    def _run(self, name: str, lr: float, seed: int) -> Outcome:
        cls, options = METHODS[name]
        return embed(self.hierarchy, functools.partial(cls, lr=lr, **options), self.steps, self.batch, seed)

    def best(self, name: str) -> float:
        return min(self.grid, key=lambda lr: self.tried[name][lr].losses[-1])

    @functools.cached_property
    def outcomes(self) -> dict[str, list[Outcome]]:
        """Runs at the best learning rate, one a seed."""
        return {
            name: [self.tried[name][self.best(name)], *(self._run(name, self.best(name), s) for s in self.seeds[1:])]
            for name in METHODS
        }

    def losses(self, name: str) -> list[float]:
        return [outcome.losses[-1] for outcome in self.outcomes[name]]

    def findings(self, short: str) -> list[Finding]:
        return [
            self._lower(f"{short}: RAdam reaches a lower loss than RSGD", "RAdam", "RSGD"),
            self._lower(f"{short}: RAMSGrad reaches a lower loss than RSGD", "RAMSGrad", "RSGD"),
            self._lower(f"{short}: RAMSGrad reaches a lower loss than RAdagrad", "RAMSGrad", "RAdagrad"),
            self._lower(f"{short}: the retraction does better than the exponential map", "RAdam", "RAdam, exp"),
            self._lower(f"{short}: lazy rows reach a lower loss (a claim of this library)", "RAdam, lazy", "RAdam"),
            self._precise(short),
            self._ranked(short),
            self._robust(short),
        ]

    def _lower(self, claim: str, one: str, other: str) -> Finding:
        ours, theirs = self.losses(one), self.losses(other)
        note = f"{self._said(one)}; {self._said(other)}; decided where no two seeds cross; {self.setting}"
        return Finding(
            claim, "lower", statistics.fmean(ours), statistics.fmean(theirs), "loss", self._below(ours, theirs), note
        )

    def _precise(self, short: str) -> Finding:
        ours, theirs = ([o.precision for o in self.outcomes[name]] for name in ("RAdam", "RSGD"))
        precision = ", ".join(
            f"{name} {statistics.fmean(o.precision for o in self.outcomes[name]):.3f}" for name in METHODS
        )
        return Finding(
            f"{short}: RAdam reconstructs the closure more precisely than RSGD", "better", statistics.fmean(ours),
            statistics.fmean(theirs), "mean average precision", self._below(theirs, ours),
            f"{precision}; {self.setting}",
        )  # fmt: skip

    def _ranked(self, short: str) -> Finding:
        ours, theirs = ([o.rank for o in self.outcomes[name]] for name in ("RAdam", "RSGD"))
        said = ", ".join(f"{name} {statistics.fmean(o.rank for o in self.outcomes[name]):.2f}" for name in METHODS)
        return Finding(
            f"{short}: RAdam ranks related nodes higher than RSGD", "better", statistics.fmean(ours),
            statistics.fmean(theirs), "mean rank", self._below(ours, theirs), f"{said}; {self.setting}",
        )  # fmt: skip

    def _robust(self, short: str) -> Finding:
        ours, theirs = self._worst("RAdam"), self._worst("RSGD")
        return Finding(
            f"{short}: RAdam forgives a wrong learning rate more than RSGD (a claim of this library)", "smaller ratio",
            ours, theirs, "loss at half a decade off / best", ours < theirs if self.full else None,
            f"the worse of the two neighbors of the best learning rate on the grid, first seed; {self.setting}",
        )  # fmt: skip

    def _worst(self, name: str) -> float:
        place = self.grid.index(self.best(name))
        near = self.grid[max(0, place - 1) : place + 2]
        return max(self.tried[name][lr].losses[-1] for lr in near) / self.tried[name][self.best(name)].losses[-1]

    def _below(self, ours: list[float], theirs: list[float]) -> bool | None:
        if not self.full or not (max(ours) < min(theirs) or max(theirs) < min(ours)):
            return None
        return max(ours) < min(theirs)

    def _said(self, name: str) -> str:
        losses = self.losses(name)
        return f"{name}: {min(losses):.4f} to {max(losses):.4f} at {self.best(name):g}"

    @property
    def setting(self) -> str:
        text = (
            f"{self.hierarchy.name}, 5-D ball, batches of {self.batch}, {self.steps} steps, constant learning rate, "
            f"best of {len(self.grid)} on the first of {len(self.seeds)} seed(s)"
        )
        return text if self.full else f"too short to decide: {text}"

    def draw_rates(self, path: Path) -> Path:
        with figure(path, x="learning rate", y="final loss on all pairs") as axes:
            for (name, tried), color in zip(self.tried.items(), COLORS, strict=False):
                style = "o--" if "," in name else "o-"
                axes.loglog(
                    list(tried), [tried[lr].losses[-1] for lr in tried], style, color=color, label=name, markersize=4
                )
        return path

    def draw_steps(self, path: Path) -> Path:
        with figure(path, x="step", y="loss on all pairs (best learning rate)") as axes:
            for (name, outcomes), color in zip(self.outcomes.items(), COLORS, strict=False):
                for place, outcome in enumerate(outcomes):
                    stride = self.steps / len(outcome.losses)
                    steps = [stride * (i + 1) for i in range(len(outcome.losses))]
                    style = "--" if "," in name else "-"
                    axes.semilogy(steps, outcome.losses, style, color=color, linewidth=1, label=None if place else name)
        return path
