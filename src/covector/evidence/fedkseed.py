"""FedKSeed: full-parameter federated tuning by K seeds and their scalars, less than 18 kB a round.

The network is small and trained from scratch, where the paper fine-tunes language models of 1 to 3 billion
parameters; at ``full`` a language model of 135 million is fine-tuned too.
"""

from __future__ import annotations

import copy
import functools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from covector import SeedPool, SketchPool, trees
from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits, Pairs, classifier
from covector.evidence.experiments.fedkseed_language import language_findings
from covector.evidence.experiments.fedkseed_protocol import EPS, LR, Bytes, bytes_findings, exact_findings
from covector.evidence.figures import COLORS, figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.federated import KSeedClient, KSeedServer, Replica, RoundMetrics, RunHeader, run
from covector.gradients import Pool
from covector.objective import Objective
from covector.random import derive, sample_without_replacement

CLIENTS, ACTIVE = 20, 5
SIZES = (128, 1024, 4096)
WIDE = 1024  # the pool of the comparisons at equal K

Scores = dict[str, list[float]]


@paper(
    "fedkseed",
    parts=[
        "covector.federated.KSeedServer",
        "covector.federated.KSeedClient",
        "covector.SeedPool",
        "covector.SketchPool",
        "covector.gradients.Ledger",
    ],
)
def evidence(budget: Budget) -> Evidence:
    """Bytes of encoded messages, exactness of the server's sum, and accuracy by pool, wire and sampling."""
    digits = Digits.load()
    findings, measured = bytes_findings(digits, clients=budget.choose(smoke=3, full=10))
    findings += exact_findings(digits, tau=budget.choose(smoke=40, full=200))
    comparison = Comparison(digits, budget)
    findings += comparison.findings()
    figures = [
        _draw_bytes(budget.path("bytes-per-client-and-round.svg"), measured),
        comparison.draw_pools(budget.path("accuracy-by-size-of-the-pool.svg")),
        comparison.draw_rounds(budget.path("accuracy-by-round.svg")),
    ]
    if budget.name == "full":
        more, drawn = language_findings(budget)
        findings, figures = findings + more, figures + drawn
    return Evidence("fedkseed", findings, figures)


class Comparison:
    """Held-out accuracy of variants of the run, each by seed and measured once."""

    def __init__(self, digits: Digits, budget: Budget) -> None:
        self.digits = digits
        self.full = budget.name == "full"
        self.seeds = [derive(budget.seed, "run", i) & 0xFFFF for i in range(budget.choose(smoke=1, full=3))]
        self.rounds, self.tau = budget.choose(smoke=(4, 20), full=(40, 40))
        self.every = budget.choose(smoke=2, full=5)
        self.curves: dict[str, list[list[float]]] = {}

    def curve(self, name: str, pool: Pool, wire: str = "compact", method: str = "kseed") -> list[list[float]]:
        """Accuracies of a variant, ``[seed][look]``."""
        if name not in self.curves:
            self.curves[name] = [self._train(seed, pool, wire, method) for seed in self.seeds]
        return self.curves[name]

    def final(self, *variant: object) -> list[float]:
        return [looks[-1] for looks in self.curve(*variant)]  # type: ignore[arg-type]

    def _train(self, seed: int, pool: Pool, wire: str, method: str) -> list[float]:
        objective = classifier(seed)
        replica = Replica(objective)
        header = RunHeader.kseed(
            replica.theta0, pool, LR, wire, method=method, local_steps=self.tau, eps=EPS, key=seed, weighting="examples"
        )
        server = KSeedServer(header, clients_per_round=ACTIVE)
        dealt = self.digits.clients(seed, CLIENTS)
        members = {name: KSeedClient(replica, own, header) for name, own in dealt.items()}
        looks = [self.digits.accuracy(objective)]

        def look(metrics: RoundMetrics) -> None:
            if metrics.round % self.every == 0:
                replica.show(server.ledger)
                looks.append(self.digits.accuracy(objective))

        run(server, members, self.rounds, callbacks=[look])
        return looks

    @functools.cached_property
    def averaged(self) -> list[list[float]]:
        """FedAvg of whole models by SGD at its own learning rate: as many local steps, clients and rounds."""
        return [self._average(seed) for seed in self.seeds]

    def _average(self, seed: int) -> list[float]:
        objective = classifier(seed)
        dealt = {name: own for name, own in self.digits.clients(seed, CLIENTS).items() if own}
        names = sorted(dealt)
        looks = [self.digits.accuracy(objective)]
        for number in range(1, self.rounds + 1):
            chosen = [names[i] for i in sample_without_replacement(derive(seed, number), len(names), ACTIVE)]
            counts = [sum(len(targets) for _, targets in dealt[name]) for name in chosen]
            models = [_sgd(objective, dealt[name], self.tau) for name in chosen]
            with torch.no_grad():
                for key, p in objective.params.items():
                    p.copy_(sum(c / sum(counts) * m[key] for c, m in zip(counts, models, strict=True)))  # type: ignore[arg-type]
            if number % self.every == 0:
                looks.append(self.digits.accuracy(objective))
        return looks

    def findings(self) -> list[Finding]:
        """The claims on accuracy; a smoke run is too short to decide them."""
        seeds = {size: self.final(f"rademacher {size}", SeedPool(1, size)) for size in self.sizes}
        sketch = {size: self.final(f"sketch {size}", SketchPool(1, size)) for size in self.sizes}
        uniform, wide = self.final(f"rademacher {WIDE}", SeedPool(1, WIDE)), f"K={WIDE}"
        normal = self.final("binomial", SeedPool(1, WIDE, "binomial"))
        exact = self.final("fp32", SeedPool(1, WIDE), "faithful")
        pro = self.final("pro", SeedPool(1, WIDE), "compact", "kseed-pro")
        pooled = self.final(f"sketch {WIDE}", SketchPool(1, WIDE))
        smallest, largest = seeds[min(self.sizes)], seeds[max(self.sizes)]
        mean = statistics.fmean
        full_average = [looks[-1] for looks in self.averaged]
        return [
            self._finding(
                f"More seeds learn better (K={max(self.sizes)} against {min(self.sizes)})", "better", largest, smallest,
                decided(largest, smallest, by=0.08),
                "holds from 0.08 on, undecided where twice the standard error of the difference covers that",
            ),
            self._finding(
                f"A sketch of N numbers replaces the pool, {wide} (a claim of this library)", "equal", pooled, normal,
                abs(mean(pooled) - mean(normal)) <= 0.06,
                f"baseline: the near-Gaussian pool; holds within 0.06; Rademacher pool: {mean(uniform):.3f}; sketches "
                "of " + ", ".join(f"{size}: {mean(values):.3f}" for size, values in sketch.items()),
            ),
            self._finding(
                f"Scalars of one byte cost no accuracy, {wide} (a claim of this library)", "equal", uniform, exact,
                mean(uniform) >= mean(exact) - 0.02, "baseline: fp32 scalars; holds from 0.02 below on",
            ),
            self._finding(
                f"FedKSeed-Pro beats uniform sampling, {wide}", "better", pro, uniform, decided(pro, uniform),
                "holds where the mean difference exceeds twice its standard error over the seeds",
            ),
            self._finding(
                "At equal rounds it beats what is practical today", "+7.26 % relative Rouge-L", largest, full_average,
                decided(largest, full_average),
                "baseline: FedAvg of all parameters, SGD of 0.1. The paper fine-tunes large models, where FedAvg of "
                "all parameters is out of reach and adapters are the baseline; here the network starts from scratch",
            ),
        ]  # fmt: skip

    @property
    def sizes(self) -> tuple[int, ...]:
        return SIZES if self.full else (SIZES[0], WIDE)

    def _finding(
        self, claim: str, reported: str, ours: list[float], other: list[float], holds: bool | None, note: str
    ) -> Finding:
        spread = f"; standard deviation {statistics.stdev(ours):.3f}" if len(ours) > 1 else ""
        setting = (
            f"digits, tanh network of 4,810 parameters, {CLIENTS} clients (Dirichlet 0.5), {ACTIVE} a round, "
            f"{self.rounds} rounds of {self.tau} steps, {len(ours)} seed(s){spread}"
        )
        if not self.full:
            holds, setting = None, f"too short to decide: {setting}"
        return Finding(
            claim, reported, statistics.fmean(ours), statistics.fmean(other), "held-out accuracy", holds,
            f"{note}; {setting}",
        )  # fmt: skip

    def draw_pools(self, path: Path) -> Path:
        with figure(path, x="K seeds, or N numbers of a sketch", y="held-out accuracy") as axes:
            for label, color in (("rademacher", COLORS[0]), ("sketch", COLORS[1])):
                finals = [[looks[-1] for looks in self.curves[f"{label} {size}"]] for size in self.sizes]
                low, high = zip(*[(min(values), max(values)) for values in finals], strict=True)
                means = [statistics.fmean(values) for values in finals]
                axes.fill_between(self.sizes, low, high, color=color, alpha=0.15, linewidth=0)
                axes.plot(self.sizes, means, "o-", color=color, label=f"{label} pool")
            axes.set_xscale("log", base=2)
            axes.set_xticks(self.sizes, [str(size) for size in self.sizes])
        return path

    def draw_rounds(self, path: Path) -> Path:
        largest = max(self.sizes)
        shown = {
            "FedAvg, all parameters": self.averaged,
            f"FedKSeed, K={largest}": self.curves[f"rademacher {largest}"],
            f"FedKSeed-Pro, K={WIDE}": self.curves["pro"],
            f"sketch, N={largest}": self.curves[f"sketch {largest}"],
        }
        with figure(path, x="round", y="held-out accuracy") as axes:
            for label, runs in shown.items():
                means = [statistics.fmean(looks) for looks in zip(*runs, strict=True)]
                axes.plot([self.every * i for i in range(len(means))], means, label=label)
        return path


def decided(ours: Sequence[float], other: Sequence[float], by: float = 0.0) -> bool | None:
    """Whether ours exceeds the other ``by`` so much; None within twice the standard error of the paired difference."""
    differences = [a - b for a, b in zip(ours, other, strict=True)]
    if len(differences) < 2:
        return None
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    return None if abs(mean - by) <= 2 * error else mean > by


def _sgd(objective: Objective, batches: list[Pairs], steps: int, lr: float = 0.1) -> trees.Params:
    """The parameters after some steps of SGD from those of the objective, which stay."""
    local = copy.deepcopy(objective)
    optimizer = torch.optim.SGD(local.params.values(), lr)
    for step in range(steps):
        optimizer.zero_grad()
        local(batches[step % len(batches)]).backward()
        optimizer.step()
    return trees.clone(local.params)


def _draw_bytes(path: Path, measured: dict[str, Bytes]) -> Path:
    labels = {
        "FedAvg": "FedAvg of this network\n(4,810 parameters)",
        "FedKSeed": "FedKSeed, K=4096",
        "FedKSeed-Pro": "FedKSeed-Pro, K=1024",
        "compact": "FedKSeed, K=4096,\none byte, derived ids",
    }
    with figure(path, x="bytes of one client in one round") as axes:
        names, start = [labels[name] for name in measured], [0.0] * len(measured)
        for label, values in (("up", [b.up for b in measured.values()]), ("down", [b.down for b in measured.values()])):
            axes.barh(names, values, left=start, label=label, height=0.6)
            start = values
        for row, found in enumerate(measured.values()):
            beside: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
            white = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            axes.annotate(f"{found.both:,.0f}", (found.both, row), **beside, bbox=white)
        axes.axvline(17_988, color=COLORS[6], linewidth=1, linestyle=":", label="17,988: the paper's count")
        axes.invert_yaxis()
        axes.margins(x=0.12)
    return path
