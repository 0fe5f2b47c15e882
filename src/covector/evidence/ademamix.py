"""AdEMAMix: Rosenbrock's valley with long memory, and how slowly a batch that was seen once is forgotten."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits, classifier
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import Adam, AdamW, AdEMAMix, Optimizer

METHODS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "Adam, b1 0.9": lambda params: Adam(params, lr=1.0),
    "Adam, b1 0.999": lambda params: Adam(params, lr=1.0, betas=(0.999, 0.999)),
    "AdEMAMix": lambda params: AdEMAMix(params, lr=1.0, betas=(0.9, 0.999, 0.999), alpha=9.0),
}
RATES = (1e-3, 3e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)


@paper("ademamix", parts=["covector.optim.AdEMAMix", "covector.optim.Optimizer"])
def evidence(budget: Budget) -> Evidence:
    """Two claims that can be checked in minutes; the language models are beyond them."""
    valley, drawn = rosenbrock(budget)
    forgetting, curve = forgets(budget)
    return Evidence("ademamix", [*valley, *forgetting], [drawn, curve])


def arrivals(make: Callable[[list[nn.Parameter]], Optimizer], limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each learning rate, the steps to within 0.01 of (1, 1), and to stay there; and all distances.

    The update is taken as a value at rate 1, so that one run serves all rates: a row of the points each.
    """
    rates = torch.tensor(RATES, dtype=torch.float64)[:, None]
    x = nn.Parameter(torch.tensor([[-3.0, 5.0]] * len(RATES), dtype=torch.float64))
    optimizer, distances = make([x]), []
    for _ in range(limit):
        a, b = x.detach().unbind(1)
        inner = b - a * a
        x.grad = torch.stack([-2 * (1 - a) - 400 * a * inner, 200 * inner], 1)
        optimizer.apply({p: rates * update for p, update in optimizer.update().items()})
        distances.append((x.detach() - 1).norm(dim=1).nan_to_num(1e9))
    seen = torch.stack(distances)
    near = seen < 1e-2
    steps = torch.arange(1, limit + 1)[:, None]
    first = torch.where(near, steps, limit).min(0).values
    settled = torch.where(near, 0, steps).max(0).values + 1  # the step after the last one outside
    return first, settled, seen


def rosenbrock(budget: Budget) -> tuple[list[Finding], Path]:
    """From (-3, 5), each method at its best learning rate, to arrive and to stay."""
    limit = budget.choose(smoke=600, full=16_000)
    runs = {name: arrivals(make, limit) for name, make in METHODS.items()}
    first, settled = ({name: int(run[i].min()) for name, run in runs.items()} for i in (0, 1))
    path = budget.path("distance-in-rosenbrock-s-valley.svg")
    with figure(path, x="step", y="distance to the minimum") as axes:
        for name, run in runs.items():
            best = int(run[1].argmin())
            axes.semilogy(run[2][:, best], label=f"{name}, lr {RATES[best]:g}", linewidth=1)
    enough = budget.name == "full"
    setting = f"from (-3, 5) to within 0.01 of (1, 1), within {limit:,} steps, best of lr {RATES}"
    listed = ["; ".join(f"{name}, lr {RATES[int(run[i].argmin())]:g}" for name, run in runs.items()) for i in (0, 1)]
    return [
        Finding(
            "A long memory beside a short one crosses Rosenbrock's valley faster than Adam", "faster",
            first["AdEMAMix"], first["Adam, b1 0.9"], "steps to arrive",
            first["AdEMAMix"] < first["Adam, b1 0.9"] if enough else None,
            f"{setting}; perhaps in passing; {listed[0]}; Adam, b1 0.999: {first['Adam, b1 0.999']:,}",
        ),
        Finding(
            "It also settles there sooner", "not given", settled["AdEMAMix"], settled["Adam, b1 0.9"], "steps to stay",
            settled["AdEMAMix"] < settled["Adam, b1 0.9"] if enough else None, f"{setting}; {listed[1]}",
        ),
        Finding(
            "A long memory alone does not do it: Adam with b1 = 0.999 oscillates", "oscillates",
            settled["Adam, b1 0.999"], settled["Adam, b1 0.9"], "steps to stay",
            settled["Adam, b1 0.999"] > settled["Adam, b1 0.9"] if enough else None, f"{setting}; {listed[1]}",
        ),
    ], path  # fmt: skip


def forgets(budget: Budget) -> tuple[list[Finding], Path]:
    """A batch is seen once, late in the training; what it gained, against a run that did not see it."""
    seeds, before, after = budget.choose(smoke=([0], 60, 30), full=([0, 1, 2, 3], 1000, 400))
    makes: dict[str, Callable[[Any], Optimizer]] = {
        "AdamW": lambda params: AdamW(params, lr=1e-3, weight_decay=0.0),
        "AdEMAMix": lambda params: AdEMAMix(params, lr=1e-3, betas=(0.9, 0.999, 0.999), alpha=5.0, warmup_steps=before),
    }
    digits = Digits.load()
    gains = {
        name: torch.stack([gain(digits, make, seed, before, after) for seed in seeds]) for name, make in makes.items()
    }
    means = {name: g.mean(0) / g.mean(0).max() for name, g in gains.items()}
    path = budget.path("gain-on-a-batch-seen-once.svg")
    with figure(path, x="steps after it was seen", y="gain, share of the largest") as axes:
        for name, values in means.items():
            axes.plot(range(1, after + 1), values, label=name)
    left = {name: remaining(g, after) for name, g in gains.items()}
    mean = {name: statistics.fmean(values) for name, values in left.items()}
    apart = [a - b for a, b in zip(left["AdEMAMix"], left["AdamW"], strict=True)]
    decided = budget.name == "full" and abs(statistics.fmean(apart)) > 2 * statistics.stdev(apart) / len(apart) ** 0.5
    return [
        Finding(
            "AdEMAMix forgets a batch more slowly than AdamW", "slower", mean["AdEMAMix"], mean["AdamW"],
            "share of the gain that is left", mean["AdEMAMix"] > mean["AdamW"] if decided else None,
            f"digits, 64-64-10, lr 1e-3 for both, a batch of 32 seen once after {before} steps; its loss against a run "
            f"without it, mean over the last half of {after} steps, as a share of the largest gain; {len(seeds)} "
            "seed(s); decided beyond two standard errors",
        )
    ], path  # fmt: skip


def remaining(gains: Tensor, after: int) -> list[float]:
    """Mean gain in the last half, as a share of the largest, for each seed."""
    return [float(g[after // 2 :].mean() / g.max().clamp(min=1e-12)) for g in gains]


def gain(digits: Digits, make: Callable[[Any], Optimizer], seed: int, before: int, after: int) -> Tensor:
    """By how much the loss on the batch is lower than without it, after each step ``[after]``."""
    special = digits.batch(99_991 + seed, 32)
    losses = []
    for seen in (False, True):
        objective = classifier(seed)
        params: Any = list(objective.params.values())
        optimizer, curve = make(params), []
        for step in range(before + after):
            batch = special if seen and step == before else digits.batch(seed * 100_003 + step, 32)
            grads = torch.autograd.grad(objective(batch), params)
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            optimizer.step()
            if step >= before:
                with torch.no_grad():
                    curve.append(float(objective(special)))
        losses.append(torch.tensor(curve, dtype=torch.float64))
    return losses[0] - losses[1]
