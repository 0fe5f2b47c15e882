"""Old optimizer, new norm: Adam, Shampoo and Prodigy without averages are steepest descent in three norms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.matrices_lm import SETTING, TUNING, Tuned, composed, draw_rates, tuned
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import RMS2RMS, Adam, BiasRMS, ColNorm, Frobenius, MaxAbs, Prodigy, RowNorm, Shampoo, Spectral
from covector.optim.ema import MOMENTUM
from covector.optim.lmo import LMO
from covector.optim.norms import MatrixNorm
from covector.optim.slots import Slots

TABLE: tuple[MatrixNorm, ...] = (
    Frobenius(), BiasRMS(), MaxAbs(), MaxAbs(fan=True), Spectral("svd"), RMS2RMS("svd"), RMS2RMS("svd", taps=9),
    *(kind(p=p) for kind in (RowNorm, ColNorm) for p in (1.0, 1.5, 2.0, 4.0, math.inf)),
)  # fmt: skip
GRIDS: dict[str, tuple[MatrixNorm, tuple[float, ...]]] = {
    "spectral": (Spectral("newton-schulz"), (0.025, 0.05, 0.1)),
    "largest element": (MaxAbs(), (0.002, 0.004, 0.008)),
    "Frobenius": (Frobenius(), (0.35, 0.7, 1.4)),
}


@paper(
    "old-optimizer-new-norm",
    parts=["covector.optim.Spectral", "covector.optim.MaxAbs", "covector.optim.Prodigy", "covector.optim.Shampoo"],
)
def evidence(budget: Budget) -> Evidence:
    """The table of norms as identities, three equivalences, and the norms in training."""
    findings = [table_finding(budget), adam_finding(budget), shampoo_finding(budget)]
    prodigy, escape = prodigy_finding(budget)
    found = {
        name: tuned(budget, composed(Slots(MOMENTUM, maps=(LMO(norm),)), momentum=0.9), lrs)
        for name, (norm, lrs) in GRIDS.items()
    }
    findings += [prodigy, order_finding(budget, found)]
    rates = draw_rates(budget.path("validation-loss-by-norm.svg"), found)
    return Evidence("old-optimizer-new-norm", findings, [escape, rates])


def gradient(budget: Budget, *shape: int, seed: int = 0) -> Tensor:
    """A random gradient in double precision."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1000 * budget.seed + seed))


def table_finding(budget: Budget) -> Finding:
    """``||T(G)|| = 1`` and ``<G, T(G)> = ||G||_*``."""
    worst = 0.0
    for norm in TABLE:
        for seed, shape in enumerate([(16, 16), (9, 25), (25, 9), (1, 30)]):
            g = gradient(budget, *shape, seed=seed)
            t = norm.lmo(g)
            dual = float(norm.dual(g))
            worst = max(worst, abs(float(norm.norm(t)) - 1), abs(float((g * t).sum()) - dual) / dual)
    return Finding(
        "Each norm's direction has norm 1 and reaches the dual norm", 0, worst, "none", "largest relative error",
        worst < 1e-5, f"{len(TABLE)} norms, four shapes, float64",
    )  # fmt: skip


def adam_finding(budget: Budget) -> Finding:
    """Adam's direction without averages against the sign."""
    p = nn.Parameter(torch.zeros(20, 30, dtype=torch.float64))
    p.grad = gradient(budget, 20, 30)
    update = Adam([p], lr=1.0, betas=(0.0, 0.0), eps=0.0).update()[p]
    error = float((update + MaxAbs().lmo(p.grad)).abs().max())
    return Finding(
        "Adam without averages steps along the largest element's norm", 0, error, 1.0, "largest difference",
        error < 1e-12, "Adam's update with betas (0, 0) and eps 0 against the sign; baseline: the step's size",
    )  # fmt: skip


def shampoo_finding(budget: Budget) -> Finding:
    """Shampoo's direction for one gradient against the polar factor."""
    p = nn.Parameter(torch.zeros(24, 24, dtype=torch.float64))
    p.grad = gradient(budget, 24, 24)
    update = Shampoo([p], lr=1.0, betas=(0.0, 0.9), graft="none", refresh=1, ridge=0.0).update()[p]
    error = float((update + Spectral("svd").lmo(p.grad)).abs().max())
    return Finding(
        "Shampoo without averages steps along the spectral norm", 0, error, 1.0, "largest difference", error < 1e-6,
        "inverse fourth roots by eigh of one gradient's second moments against U V^T by SVD, float64; baseline: the "
        "step's spectral norm",
    )  # fmt: skip


def prodigy_finding(budget: Budget) -> tuple[Finding, Path]:
    """Prodigy without averages: signs, and a step that grows until it leaves the start."""
    target = gradient(budget, 40, seed=5)
    p = nn.Parameter(torch.zeros(40, dtype=torch.float64))
    optimizer = Prodigy([p], betas=(0.0, 0.0), beta3=1.0, eps=0.0, d0=1e-6)
    steps, worst = [], 0.0
    for _ in range(80):
        p.grad = p.detach() - target
        update = optimizer.update()[p]
        steps.append(float(optimizer.param_groups[0]["d"]))
        worst = max(worst, float((update / steps[-1] + p.grad.sign()).abs().max()))
        optimizer.apply({p: update})
    distance = float((target**2).mean().sqrt())
    path = budget.path("step-of-prodigy-without-averages.svg")
    with figure(path, x="step", y="d") as axes:
        axes.semilogy(steps, label="step length d")
        axes.axhline(distance, color="black", linewidth=1, linestyle=":", label="root mean square of the distance")
    growth = max(b / a for a, b in itertools.pairwise(steps))
    return Finding(
        "Prodigy without averages is sign descent that escapes its start", "exponential growth", steps[-1] / steps[0],
        distance / steps[0], "growth of the step", worst < 1e-9 and 0.01 * distance < steps[-1] < 3 * distance,
        f"quadratic in 40 dimensions, d0 = 1e-6, 80 steps; updates are signs to {worst:.0e}; at most {growth:.3g} fold "
        "a step; baseline: what the distance to the solution asks for",
    ), path  # fmt: skip


def order_finding(budget: Budget, found: Mapping[str, Tuned]) -> Finding:
    """Hidden matrices in three norms."""
    losses = {name: result.loss for name, result in found.items()}
    order = list(losses.values())
    return Finding(
        "Hidden matrices do best in the spectral norm", "by design, not measured", losses["spectral"],
        min(losses["largest element"], losses["Frobenius"]), "validation loss, nats",
        order[0] < min(order[1:]) - 0.01 if budget.name == "full" else None,
        f"{', '.join(f'{name} {loss:.3f}' for name, loss in losses.items())}; momentum 0.9, then a step of fixed "
        f"length in the norm; {SETTING}; {TUNING}",
    )  # fmt: skip
