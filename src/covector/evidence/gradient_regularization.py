"""Gradient regularization: is looking uphill better than looking downhill, or than the exact product?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits
from covector.evidence.experiments.noisy_digits import SETTING, Make, NoisyDigits, Outcome, compare
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import SGD, GradientRegularization, flooding

LR = 0.1


def regularized(gamma: float, eps: float = 0.05, mode: str = "forward") -> Make:
    """SGD by a regularized gradient."""
    return lambda params: GradientRegularization(SGD(params, lr=LR), gamma, eps, mode)


def sgd(lr: float) -> Make:
    """Plain SGD."""
    return lambda params: SGD(params, lr=lr)


@paper("gradient-regularization", parts=["covector.optim.GradientRegularization", "covector.optim.flooding"])
def evidence(budget: Budget) -> Evidence:
    """Accuracy by mode and by eps, the price of a step, flooding, and the bias on a diagonal network."""
    places = ((0.3, 0.1), (0.1, 0.1), (1.0, 0.1), (0.3, 0.5))
    methods: dict[str, tuple[Mapping[str, Make], float]] = {
        "SGD": ({f"lr {lr}": sgd(lr) for lr in (0.1, 0.05, 0.2, 0.4)}, 1.0),
        "forward": ({f"gamma {g}, eps {e}": regularized(g, e) for g, e in places}, 1.0),
        "backward": ({f"gamma {g}, eps {e}": regularized(g, e, "backward") for g, e in places}, 1.0),
        "exact": ({f"gamma {g}": regularized(g, mode="exact") for g in (0.3, 0.1, 1.0, 0.6)}, 1.0),
    }
    epochs, seeds = budget.choose(smoke=(2, 1), full=(60, 3))
    found = compare(budget, methods, epochs, seeds)
    bias, norms = diagonal(budget)
    findings = [*accuracy(found, seeds), price(budget), flooded(budget.seed), bias]
    return Evidence("gradient-regularization", findings, [by_eps(budget), norms])


def accuracy(found: Mapping[str, Outcome], seeds: int) -> list[Finding]:
    """Held-out accuracies, tuned."""
    chosen = "; ".join(f"{name}: {outcome.setting}" for name, outcome in found.items())
    pairs = [("backward", "backward regularization"), ("exact", "double backpropagation"), ("SGD", "SGD")]
    return [
        Finding(
            f"Forward regularization generalizes better than {words}", "better", found["forward"].mean("accuracy"),
            found[name].mean("accuracy"), "held-out accuracy", found["forward"].beats(found[name], "accuracy"),
            f"{SETTING}; {seeds} seed(s); chosen: {chosen}; undecided within two standard errors of the paired "
            "difference",
        )
        for name, words in pairs
    ]  # fmt: skip


def by_eps(budget: Budget) -> Path:
    """Accuracy by how far the second look goes, at one strength."""
    epochs, seeds = budget.choose(smoke=(1, 1), full=(60, 3))
    distances = budget.choose(smoke=(0.1,), full=(0.01, 0.03, 0.1, 0.3, 1.0))
    tasks = [NoisyDigits.load(Digits.load(), budget.seed + seed) for seed in range(seeds)]

    def mean(make: Make) -> float:
        return statistics.fmean(task.run(make, epochs, budget.seed + i).accuracy for i, task in enumerate(tasks))

    path = budget.path("accuracy-by-eps.svg")
    with figure(path, x="eps", y=f"held-out accuracy, gamma 0.3, mean of {seeds}") as axes:
        axes.set_xscale("log")
        for mode, form in (("forward", "o-"), ("backward", "s-")):
            axes.plot(distances, [mean(regularized(0.3, eps, mode)) for eps in distances], form, label=mode)
        axes.axhline(mean(regularized(0.3, mode="exact")), color="black", linestyle="--", label="exact")
        plain = mean(sgd(LR))
        axes.axhline(plain, color="grey", linestyle=":", label="SGD")
        axes.set_ylim(bottom=plain - 0.04)  # what learns nothing at all leaves the picture
    return path


def price(budget: Budget) -> Finding:
    """Processor time of a step by a difference of gradients and by differentiating twice."""
    torch.manual_seed(budget.seed)
    model = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 10))
    x, y = torch.randn(256, 64), torch.randint(10, (256,))

    def loss() -> Tensor:
        model.zero_grad()
        return nn.functional.cross_entropy(model(x), y)

    def gradient() -> Tensor:
        value = loss()
        value.backward()
        return value

    forward = GradientRegularization(SGD(model, lr=1e-6))
    exact = GradientRegularization(SGD(model, lr=1e-6), mode="exact")
    calls: dict[str, Callable[[], object]] = {
        "gradient": gradient, "forward": lambda: forward.step(gradient), "exact": lambda: exact.step(loss)
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(budget.choose(smoke=3, full=41)):
        for name, call in calls.items():
            begun = time.thread_time()
            call()
            seconds[name].append(time.thread_time() - begun)
    one, ours, theirs = (statistics.median(times) for times in seconds.values())
    return Finding(
        "A difference of gradients costs less than differentiating twice", "less", ours / one, theirs / one,
        "gradients, in time, of a step", ours < theirs if budget.name == "full" else None,
        "network 64-256-256-10, batch 256, float32, one thread, medians; both with SGD's step",
    )  # fmt: skip


def flooded(seed: int) -> Finding:
    """Two steps on a flooded loss, and the backward term they are."""
    torch.manual_seed(seed)
    eta, w = 0.05, torch.randn(20, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return (x.sin() * x.roll(1)).sum() + x.pow(4).sum() / 4

    def gradient(x: Tensor, level: float | None = None) -> Tensor:
        x = x.clone().requires_grad_()
        value = loss(x) if level is None else flooding(loss(x), level)
        return torch.autograd.grad(value, x)[0]

    level = float(loss(w) + loss(w - eta * gradient(w))) / 2
    once = w - eta * gradient(w, level)
    twice = once - eta * gradient(once, level)
    expected = -eta * (gradient(w) - gradient(w - eta * gradient(w)))
    error = float((twice - w - expected).norm() / expected.norm())
    return Finding(
        "Two steps on a flooded loss are one step of backward regularization", "equal", error, 0.0,
        "relative difference", error < 1e-12, "a quartic in 20 dimensions, float64, a level that both steps cross",
    )  # fmt: skip


def diagonal(budget: Budget) -> tuple[Finding, Path]:
    """Interpolation by a diagonal network ``beta = u^2 - v^2``: the L1 norm reached, by eps."""
    draw = torch.Generator().manual_seed(budget.seed)
    truth = torch.zeros(100, dtype=torch.float64)
    truth[:5] = 1.0
    x = torch.randn(40, 100, generator=draw, dtype=torch.float64)
    y, steps = x @ truth, budget.choose(smoke=20, full=4000)

    def reached(gamma: float, eps: float) -> float:
        u, v = (nn.Parameter(torch.full((100,), 0.5, dtype=torch.float64)) for _ in range(2))
        base = SGD([u, v], lr=0.005)
        optimizer = GradientRegularization(base, gamma, eps) if gamma else base

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (x @ (u.square() - v.square()) - y).square().mean() / 4
            loss.backward()
            return loss

        for _ in range(steps):
            optimizer.step(closure)
        beta = (u.square() - v.square()).detach()
        return float(beta.abs().sum()) if bool(beta.isfinite().all()) else float("nan")

    distances = budget.choose(smoke=(0.1,), full=(0.01, 0.03, 0.1, 0.2))
    norms = [reached(0.05, eps) for eps in distances]
    plain = reached(0.0, 0.0)
    path = budget.path("l1-norm-by-eps-of-a-diagonal-network.svg")
    with figure(path, x="eps", y="L1 norm of the solution") as axes:
        axes.set_xscale("log")
        axes.plot(distances, norms, "o-", label="forward, gamma 0.05")
        axes.axhline(plain, color="grey", linestyle=":", label="gradient descent")
        axes.axhline(5.0, color="black", linestyle="--", label="the sparse truth")
    return Finding(
        "Looking further uphill finds sparser solutions", "sparser", norms[-1], plain, "L1 norm of the solution",
        norms[-1] < 0.99 * plain and norms[-1] < norms[0] if budget.name == "full" else None,
        f"diagonal network u^2 - v^2 from 0.5, 40 equations, 100 unknowns, 5 of them 1, {steps} steps of 0.005, gamma "
        f"0.05; by eps {', '.join(f'{e}: {n:.3f}' for e, n in zip(distances, norms, strict=True))}; baseline: gradient "
        "descent",
    ), path  # fmt: skip
