"""LANTON: learning rates by layer, from noise in each layer's dual norm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.matrices_lm import REST, SETTING, Make, trial
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import LANTON, Muon, NoiseAdaptive, Spectral, TrustRegion

SIGMAS = (0.0, 0.1, 1.0, 3.0)
SIZE, ALPHA = 24, 3.0
LRS = (0.025, 0.05, 0.1, 0.2)
ETAS = (0.125, 0.25, 0.5, 1.0, 2.0)

Errors = Mapping[float, tuple[float, list[float]]]


@paper("noise-adaptive-layerwise-lr", parts=["covector.optim.LANTON", "covector.optim.NoiseAdaptive"])
def evidence(budget: Budget) -> Evidence:
    """Four matrices of known noise, and the language model at learning rates up to four times the best."""
    ours, fixed = (errors(budget, adaptive) for adaptive in (True, False))
    best = min(ours, key=lambda eta: ours[eta][0])
    findings = [
        order_finding(budget, ours[best][1]),
        *synthetic_findings(budget, ours, fixed),
        *language_findings(budget),
    ]
    return Evidence("noise-adaptive-layerwise-lr", findings, [draw(budget, ours, fixed)])


def errors(budget: Budget, adaptive: bool) -> Errors:
    """Error and multipliers by base learning rate: factors of two, then fourths of an octave around the best."""
    found = {eta: synthetic(budget, eta, adaptive) for eta in budget.choose(smoke=(0.5, 2.0), full=ETAS)}
    best = min(found, key=lambda eta: found[eta][0])
    around = [best * 2 ** (k / 4) for k in (-2, -1, 1, 2)] if budget.name == "full" else []
    return dict(sorted({**found, **{eta: synthetic(budget, eta, adaptive) for eta in around}}.items()))


def synthetic(budget: Budget, eta: float, adaptive: bool) -> tuple[float, list[float]]:
    """Mean nuclear norm of the error of four matrices, and the multipliers, at the end."""
    steps = budget.choose(smoke=40, full=300)
    targets = [gaussian(budget, 1_000_000 + i) for i in range(4)]
    layers = [nn.Parameter(torch.zeros(SIZE, SIZE, dtype=torch.float64)) for _ in SIGMAS]
    norm = Spectral("svd")
    optimizer = LANTON(layers, norm=norm, alpha=ALPHA) if adaptive else TrustRegion(layers, norm=norm)
    for t in range(1, steps + 1):
        for i, (layer, target, sigma) in enumerate(zip(layers, targets, SIGMAS, strict=True)):
            drawn = gaussian(budget, 10 * t + i)
            layer.grad = layer.detach() - target + sigma / math.sqrt(SIZE) * drawn
        optimizer.param_groups[0]["lr"] = eta / math.sqrt(t)
        optimizer.step()
    errors = [float(torch.linalg.svdvals(w.detach() - t).sum()) for w, t in zip(layers, targets, strict=True)]
    found = optimizer.multipliers() if isinstance(optimizer, LANTON) else {}
    return sum(errors) / len(errors), [found.get(layer, 1.0) for layer in layers]


def gaussian(budget: Budget, seed: int) -> torch.Tensor:
    """A matrix of normal numbers."""
    generator = torch.Generator().manual_seed(10_000_000 * budget.seed + seed)
    return torch.randn(SIZE, SIZE, dtype=torch.float64, generator=generator)


def order_finding(budget: Budget, multipliers: Sequence[float]) -> Finding:
    """Multipliers against the known noise."""
    ordered = all(a >= b for a, b in itertools.pairwise(multipliers))
    return Finding(
        "Noisier layers take shorter steps", "by construction", multipliers[-1], multipliers[0], "multiplier", ordered,
        f"four {SIZE} x {SIZE} matrices with noise {SIGMAS} over sqrt({SIZE}): multipliers "
        f"{', '.join(f'{value:.2f}' for value in multipliers)}; alpha {ALPHA}; baseline: the layer without noise",
    )  # fmt: skip


def synthetic_findings(budget: Budget, ours: Errors, fixed: Errors) -> list[Finding]:
    """Best learning rates, and one that is too large."""
    full, large = budget.name == "full", ETAS[-1]
    (lr, best), (other, base) = (
        min(((e, v[0]) for e, v in found.items()), key=lambda x: x[1]) for found in (ours, fixed)
    )
    setting = "four matrices, learning rates falling as 1 / sqrt(t), mean nuclear norm of the error at the end"
    return [
        Finding(
            "Each at its best learning rate, LANTON ends nearer to the solution", "fewer samples", best, base,
            "nuclear norm of the error", best < base if full else None,
            f"{setting}; {lr:.2f} and {other:.2f}, the best to a fourth of an octave; all matrices have as far to go, "
            "so that a shorter step for some is no advantage in itself",
        ),
        Finding(
            "LANTON stands a base learning rate that is too large", "none", ours[large][0], fixed[large][0],
            "nuclear norm of the error", ours[large][0] < fixed[large][0] if full else None, f"{setting}; at {large}",
        ),
    ]  # fmt: skip


def language_findings(budget: Budget) -> list[Finding]:
    """Muon with and without the rule."""

    def muon(adaptive: bool) -> Make:
        def make(model: nn.Module, lr: float) -> Muon:
            scales = (NoiseAdaptive(alpha=0.1),) if adaptive else ()
            return Muon(model, lr=lr, momentum=0.9, nesterov=False, scales=scales, **REST)

        return make

    lrs = budget.choose(smoke=LRS[-1:], full=LRS)
    seeds = range(budget.choose(smoke=1, full=2))
    losses = {
        adaptive: [sum(trial(budget, muon(adaptive), lr, seed) for seed in seeds) / len(seeds) for lr in lrs]
        for adaptive in (True, False)
    }
    full, ours, base = budget.name == "full", losses[True], losses[False]
    note = f"{SETTING}; two matrices of one norm, alpha 0.1, two seeds; differences below 0.01 are noise"
    findings = [
        Finding(
            f"Muon with LANTON's rule loses less at learning rate {lrs[-1]}", "none", ours[-1], base[-1],
            "validation loss, nats", decided(ours[-1], base[-1]) if full else None, f"baseline: Muon; {note}",
        )
    ]  # fmt: skip
    if full:
        best, other = min(ours), min(base)
        findings.append(
            Finding(
                "LANTON reaches a lower loss, each at its best learning rate", "up to 1.5 times fewer samples", best,
                other, "validation loss, nats", decided(best, other),
                f"of {LRS}; baseline: Muon; {note}",
            )
        )  # fmt: skip
    return findings


def decided(ours: float, theirs: float) -> bool | None:
    """Whether ours is lower; None where the difference is noise."""
    return None if abs(ours - theirs) < 0.01 else ours < theirs


def draw(budget: Budget, ours: Errors, fixed: Errors) -> Path:
    """Error by base learning rate."""
    path = budget.path("error-by-base-learning-rate.svg")
    with figure(path, x="base learning rate", y="nuclear norm of the error") as axes:
        for found, label in ((ours, "LANTON"), (fixed, "the same for all layers")):
            axes.loglog(list(found), [error for error, _ in found.values()], marker="o", label=label)
    return path
