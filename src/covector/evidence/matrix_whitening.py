"""What really matters in matrix-whitening optimizers: spectral normalization, and an adaptation to variance."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.matrices_lm import (
    REST,
    SETTING,
    TUNING,
    Make,
    Tuned,
    adam,
    draw_rates,
    signum,
    trial,
    tuned,
)
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import SOAP, AdaMuon, Muon, Shampoo, SPlus

BETAS = (0.9, 0.99)
NOISE = 0.01  # between equal methods at neighboring learning rates


def of(kind: Callable[..., Any], **options: Any) -> Make:
    """A preset at any learning rate."""
    return lambda model, lr: kind(model, lr=lr, **options)


soap = functools.partial(of, SOAP, betas=BETAS, weight_decay=0.0, adam_lr=3e-3)
muons = {"momentum": 0.9, "nesterov": False, **REST}
METHODS: dict[str, tuple[Make, tuple[float, ...]]] = {
    "Adam": (adam, (0.01, 0.02, 0.04)),
    "Signum": (signum, (0.002, 0.004, 0.008)),
    "SOAP": (soap(), (0.01, 0.02, 0.04)),
    "SOAP, low rank": (soap(variance="lowrank"), (0.01, 0.02, 0.04)),
    "SPlus": (of(SPlus, betas=BETAS, refresh=10, adam_lr=3e-3), (0.6, 1.2, 2.4)),
    "Shampoo": (of(Shampoo, betas=BETAS, refresh=10, adam_lr=3e-3), (0.01, 0.02, 0.04)),
    "Muon": (of(Muon, **muons), (0.025, 0.05, 0.1)),
    "AdaMuon": (of(AdaMuon, beta2=0.99, **muons), (0.004, 0.008, 0.016)),
    "AdaMuon, low rank": (of(AdaMuon, beta2=0.99, variance="lowrank", **muons), (0.004, 0.008, 0.016)),
}
WHITENING = ("SOAP", "SPlus", "Shampoo", "Muon", "AdaMuon")
PAIRS = (("Adam", "Signum"), ("SOAP", "SPlus"), ("AdaMuon", "Muon"))


@paper(
    "matrix-whitening",
    parts=[f"covector.optim.{name}" for name in ("SOAP", "SPlus", "Shampoo", "Muon", "AdaMuon")],
)
def evidence(budget: Budget) -> Evidence:
    """Nine optimizers at their best learning rates, steps saved, and the time that stacking saves."""
    chosen = budget.choose(smoke=["Adam", "SOAP", "SPlus", "Shampoo", "Muon", "AdaMuon"], full=list(METHODS))
    found = {name: tuned(budget, *METHODS[name]) for name in chosen}
    findings = [whitening_finding(budget, found), steps_finding(budget, found)]
    if budget.name == "full":
        findings += [*pair_findings(found), *rank_findings(found)]
    findings.append(stacking_finding(budget))
    rates = draw_rates(budget.path("validation-loss-by-learning-rate.svg"), found)
    return Evidence("matrix-whitening", findings, [rates])


def whitening_finding(budget: Budget, found: Mapping[str, Tuned]) -> Finding:
    """All whitening methods against Adam."""
    worst = max(WHITENING, key=lambda name: found[name].loss)
    return Finding(
        "Whitening optimizers reach a lower loss than Adam", "all do", found[worst].loss, found["Adam"].loss,
        "validation loss, nats", found[worst].loss < found["Adam"].loss if budget.name == "full" else None,
        f"the worst of {', '.join(WHITENING)}: {worst}; {SETTING}; {TUNING}",
    )  # fmt: skip


def steps_finding(budget: Budget, found: Mapping[str, Tuned]) -> Finding:
    """SOAP with four fifths of the steps."""
    seeds = range(budget.choose(smoke=1, full=2))
    make, lr = METHODS["SOAP"][0], found["SOAP"].lr
    short = statistics.fmean(trial(budget, make, lr, seed, share=0.8) for seed in seeds)
    return Finding(
        "SOAP needs four fifths of Adam's steps or fewer", "66 to 83 % of the steps", short, found["Adam"].loss,
        "validation loss, nats", short <= found["Adam"].loss if budget.name == "full" else None,
        f"SOAP with 0.8 of the steps and a schedule as long, Adam with all of them; {SETTING}",
    )  # fmt: skip


def pair_findings(found: Mapping[str, Tuned]) -> list[Finding]:
    """Each method that adapts to variance against its counterpart that takes signs."""
    return [
        Finding(
            f"{one} beats {other}: variance adaptation helps", "lower in every pair", found[one].loss,
            found[other].loss, "validation loss, nats",
            None if abs(found[one].loss - found[other].loss) < NOISE else found[one].loss < found[other].loss,
            f"{SETTING}; differences below {NOISE} are noise",
        )
        for one, other in PAIRS
    ]  # fmt: skip


def rank_findings(found: Mapping[str, Tuned]) -> list[Finding]:
    """Low-rank variance against the full one."""
    return [
        Finding(
            f"{name} with a low-rank variance is as good", "as good", found[f"{name}, low rank"].loss, found[name].loss,
            "validation loss, nats", found[f"{name}, low rank"].loss <= found[name].loss + 0.03,
            f"m + n numbers instead of m n; holds within 0.03; {SETTING}",
        )
        for name in ("SOAP", "AdaMuon")
    ]  # fmt: skip


def stacking_finding(budget: Budget) -> Finding:
    """A Muon step of many equal matrices, ours and torch's."""
    count, repeats = 64, budget.choose(smoke=3, full=15)

    def milliseconds(make: Callable[..., Any]) -> float:
        params = [nn.Parameter(torch.zeros(48, 48)) for _ in range(count)]
        for i, p in enumerate(params):
            p.grad = torch.randn(48, 48, generator=torch.Generator().manual_seed(i))
        optimizer, times = make(params), []
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            optimizer.step()
            times.append(1000 * (time.perf_counter() - begun))
        return statistics.median(times[1:])

    ours, theirs = milliseconds(Muon), milliseconds(torch.optim.Muon)
    return Finding(
        "Equal matrices stacked make a step faster (a claim of this library)", "none", ours, theirs,
        "milliseconds a step", ours < theirs,
        f"Muon on {count} matrices of 48 x 48 in float32, medians of {repeats}; baseline: torch.optim.Muon of torch "
        f"{torch.__version__.split('+')[0]}, which goes one matrix at a time, in bfloat16",
    )  # fmt: skip
