"""LANTON: learning rates by layer, from noise in each layer's dual norm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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


@paper("noise-adaptive-layerwise-lr", parts=["covector.optim.LANTON", "covector.optim.NoiseAdaptive"])
def evidence(budget: Budget) -> Evidence:
    """Four matrices of known noise, and the language model at learning rates up to four times the best."""
    etas = budget.choose(smoke=(0.5, 2.0), full=(0.25, 0.5, 1.0, 2.0))
    ours, multipliers = zip(*(synthetic(budget, eta, adaptive=True) for eta in etas), strict=True)
    fixed = [synthetic(budget, eta, adaptive=False)[0] for eta in etas]
    drawn = draw(budget, etas, ours, fixed)
    findings = [
        order_finding(budget, multipliers[etas.index(min(etas, key=lambda e: ours[etas.index(e)]))]),
        *synthetic_findings(budget, etas, ours, fixed),
        *language_findings(budget),
    ]
    return Evidence("noise-adaptive-layerwise-lr", findings, [drawn])


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


def synthetic_findings(
    budget: Budget, etas: Sequence[float], ours: Sequence[float], fixed: Sequence[float]
) -> list[Finding]:
    """Best learning rates, and one that is too large."""
    full = budget.name == "full"
    setting = f"four matrices, learning rates {tuple(etas)} / sqrt(t), mean nuclear norm of the error at the end"
    return [
        Finding(
            "Each at its best learning rate, LANTON ends nearer to the solution", "fewer samples", min(ours),
            min(fixed), "nuclear norm of the error", min(ours) < min(fixed) if full else None,
            f"{setting}; all matrices have as far to go, so that a shorter step for some is no advantage in itself",
        ),
        Finding(
            "LANTON stands a base learning rate that is too large", "none", ours[-1], fixed[-1],
            "nuclear norm of the error", ours[-1] < fixed[-1] if full else None, f"{setting}; at {etas[-1]}",
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


def draw(budget: Budget, etas: Sequence[float], ours: Sequence[float], fixed: Sequence[float]) -> Path:
    """Error by base learning rate."""
    path = budget.path("error-by-base-learning-rate.svg")
    with figure(path, x="base learning rate", y="nuclear norm of the error") as axes:
        axes.loglog(etas, ours, marker="o", label="LANTON")
        axes.loglog(etas, fixed, marker="o", label="the same for all layers")
    return path
