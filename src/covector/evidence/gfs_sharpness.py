"""The sharpness at the end of gradient flow, along gradient descent that oscillates."""

from __future__ import annotations

import statistics
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import hessian, vmap

from covector.curvature import Hessian
from covector.evidence.budget import Budget
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.landscape import ScalarNetwork, Sharpness, gradient_flow, monotone
from covector.objective import Objective

DEPTHS = (2, 3, 4, 6)
RATES = (1.9, 2.2, 2.6, 2.82)  # in units of one over the sharpness of the first gradient flow solution


@paper("gfs-sharpness", parts=["covector.landscape.ScalarNetwork", "covector.landscape.gradient_flow"])
def evidence(budget: Budget) -> Evidence:
    """Scalar networks by the hundred, and a small network on twenty points."""
    scalar, drawn = scalar_findings(budget)
    network, also = network_finding(budget)
    return Evidence("gfs-sharpness", [*scalar, network], [drawn, also])


def starts(count: int, depth: int, seed: int) -> Tensor:
    """Weights uniform in [0.2, 2.4] whose product is at most 2, ``[count, depth]``."""
    draws = 0.2 + 2.2 * torch.rand(
        60 * count, depth, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return draws[draws.prod(1) <= 2.0][:count]


def scalar_findings(budget: Budget) -> tuple[list[Finding], Path]:
    """All depths and learning rates; runs whose product turns negative leave the theorem's set and do not count."""
    network, count = ScalarNetwork(), budget.choose(smoke=2, full=50)
    short, long = budget.choose(smoke=200, full=600), budget.choose(smoke=500, full=100_000)
    runs = falls = loss_falls = large = ended = 0
    rises, ends, shown = [], [], []
    for depth in DEPTHS:
        for rate in RATES:
            w = starts(count, depth, budget.seed + depth)
            first = network.solution_sharpness(w)
            lr, inside = rate / first, torch.ones(len(w), dtype=torch.bool)
            visited = [w]
            for _ in range(short):
                w = network.step(w, lr)
                inside &= (w.prod(1) > 0) & w.isfinite().all(1)
                w = torch.where(inside[:, None], w, torch.ones_like(w))
                visited.append(w)
            trajectories = torch.stack(visited, 1)[inside]
            phi, loss = network.solution_sharpness(trajectories), network.loss(trajectories)
            runs += len(phi)
            falls += sum(monotone(row, 1e-9).holds for row in phi)
            counts = [monotone(row).rises for row in loss]
            loss_falls += counts.count(0)
            rises += [100 * number / short for number in counts] if rate > 2 else []
            if depth == 4 and rate == 2.6 and len(phi):
                hessians = vmap(hessian(network.loss))(trajectories[0])
                shown = [lr[inside][0] * each for each in (phi[0], torch.linalg.eigvalsh(hessians)[:, -1])]
            if 2 < rate < 2.8:
                w, lr = w[inside], lr[inside]
                for _ in range(long):
                    w = network.step(w, lr)
                end = network.solution_sharpness(w) * lr
                settled = network.loss(w) < 1e-12
                large, ended = large + len(w), ended + int((settled & (end <= 2.0)).sum())
                ends += end[settled].tolist()
    path = budget.path("scalar-network-of-depth-four.svg")
    with figure(path, x="step", y="sharpness times learning rate") as axes:
        for series, label, width in zip(shown, ("gradient flow solution", "here"), (2.0, 0.6), strict=False):
            axes.plot(series[:200], linewidth=width, zorder=2 + width, label=label)
        axes.axhline(2.0, color="black", linestyle=":", linewidth=1)
    setting = f"depths {DEPTHS}, learning rates {RATES} over the first sharpness, weights uniform in [0.2, 2.4] with a "
    full = budget.name == "full"
    return [
        Finding(
            "The sharpness of the gradient flow solution never increases", "never", 100 * falls / runs,
            100 * loss_falls / runs, "% of runs", falls == runs,
            f"{runs} scalar networks, {short} steps: {setting}product up to 2; a rise counts above 1e-9; baseline: "
            f"runs whose loss never rises; above 2 it rises in {sum(rises) / max(len(rises), 1):.0f} % of the steps",
        ),
        Finding(
            "Descent from beyond 2 / lr ends at a minimum just below it", "slightly below 2 / lr",
            statistics.median(ends) if ends else "none", 2.0, "final sharpness times learning rate, median",
            statistics.median(ends) > 1.9 if full else None,
            f"rates 2.2 and 2.6, {long} more steps: {ended} of {large} have converged, all of them below 2; "
            f"{min(ends, default=0):.2f} to {max(ends, default=0):.3f}, {sum(end < 1.9 for end in ends)} below 1.9",
        ),
    ], path  # fmt: skip


def network_finding(budget: Budget) -> tuple[Finding, Path]:
    """A tanh network 4-16-1 in float64 on twenty points; the flow is followed to a loss of 1e-5."""
    torch.manual_seed(budget.seed)
    inputs = torch.randn(20, 4, dtype=torch.float64)
    batch = (inputs, torch.sin(inputs.sum(1, keepdim=True)))
    objective = Objective(nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)).double(), nn.functional.mse_loss)
    sharpness = Sharpness(Hessian(objective, batch))
    lr = 2.2 / sharpness.measure()
    steps, every, tolerance = budget.choose(smoke=(1, 1, 1e-1), full=(200, 10, 1e-5))
    solution, local, losses = [], [], []
    for step in range(steps + 1):
        losses.append(objective(batch).item())
        if step % every == 0:
            flow = gradient_flow(objective, batch, alpha=1.0, tol_loss=tolerance)
            solution.append(lr * flow.sharpness)
            local.append(lr * sharpness.measure())
        gradients = torch.autograd.grad(objective(batch), list(objective.params.values()))
        with torch.no_grad():
            for p, g in zip(objective.params.values(), gradients, strict=True):
                p.sub_(g, alpha=lr)
    path = budget.path("network-on-twenty-points.svg")
    with figure(path, x="step", y="sharpness times learning rate") as axes:
        at = range(0, steps + 1, every)
        axes.plot(at, solution, marker="o", markersize=3, label="gradient flow solution")
        axes.plot(at, local, marker="s", markersize=3, label="here")
        axes.axhline(2.0, color="black", linestyle=":", linewidth=1)
    found, loss = monotone(solution, 0.01), monotone(losses)
    return Finding(
        "Nor does it in a network, within the error of the flow", "never increases (squared error)",
        100 * found.worst, 100 * monotone(local, 0.01).worst, "% of the largest rise between measurements",
        found.holds if budget.name == "full" else None,
        f"tanh 4-16-1, 20 points, learning rate 2.2 over the first sharpness, {steps} steps, measured each {every}; "
        f"rises above 1 % count; from {solution[0]:.2f} to {solution[-1]:.2f}; the loss rises at {loss.rises} steps; "
        f"baseline: the sharpness at the parameters themselves",
    ), path  # fmt: skip
