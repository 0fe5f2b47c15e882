"""An overview of gradient descent optimization algorithms: its two pictures, and every method against torch's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from covector.compare.tuning import Listed, search
from covector.evidence.budget import Budget
from covector.evidence.experiments.asynchronous import parallel_part
from covector.evidence.experiments.digits import Digits
from covector.evidence.experiments.planes import BEALE, BEALE_MINIMUM, SADDLE, Make, arc, walk
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import SGD, Adadelta, Adagrad, Adam, AdaMax, NAdam, RMSprop

METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "SGD": (SGD, {}),
    "momentum": (SGD, {"momentum": 0.9}),
    "Nesterov": (SGD, {"momentum": 0.9, "nesterov": True}),
    "Adagrad": (Adagrad, {}),
    "Adadelta": (Adadelta, {}),
    "RMSprop": (RMSprop, {"alpha": 0.9}),
    "Adam": (Adam, {}),
}
ADAPTIVE = ("Adagrad", "Adadelta", "RMSprop", "Adam")
# where a full search over powers of ten ends up, for the short run
FOUND = {"SGD": 1e-2, "momentum": 1e-3, "Nesterov": 1e-3, "Adagrad": 1.0, "Adadelta": 1.0, "RMSprop": 0.1, "Adam": 1.0}


LIMIT = 1500


@paper(
    "gradient-descent-overview",
    parts=[f"covector.optim.{name}" for name in ("SGD", "Adagrad", "Adadelta", "RMSprop", "Adam", "AdaMax", "NAdam")],
)
def evidence(budget: Budget) -> Evidence:
    """Beale's function, the saddle, the distance to torch's own optimizers, and workers that do not wait."""
    rates, paths = tune(budget)
    beale, drawn = beale_findings(budget, rates, paths)
    saddle, times = saddle_findings(budget, rates)
    asynchronous, figures = parallel_part(Digits.load(), budget)
    findings = [*beale, *saddle, torch_finding(), *asynchronous]
    return Evidence("gradient-descent-overview", findings, [drawn, times, *figures])


def make(name: str, lr: float) -> Make:
    """A method of the survey with a learning rate."""
    kind, options = METHODS[name]
    return lambda params: kind(params, lr=lr, **options)


def tune(budget: Budget) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The power of ten as learning rate with which each method reaches Beale's minimum in the fewest steps."""
    grid = [10.0**k for k in range(-4, 1)]
    rates, paths = {}, {}
    for name in METHODS:
        tuner = Listed(budget.choose(smoke=[FOUND[name]], full=grid))
        rates[name], tried = search(tuner, lambda lr, name=name: walk(BEALE, make(name, lr), LIMIT), late)  # type: ignore[misc]
        paths[name] = tried[rates[name]][0]
    return rates, paths


def late(walked: tuple[Tensor, bool]) -> float:
    """Orders walks: those that arrive before those that stay in sight, by their steps, and then by where they end."""
    path, there = walked
    away = distance(path) / 9
    return math.inf if not away < 1 else len(path) + away + (0 if there else 2 * LIMIT)


def distance(path: Tensor) -> float:
    """From the end of a path to Beale's minimum."""
    return float((path[-1] - BEALE_MINIMUM).norm())


def beale_findings(budget: Budget, rates: dict[str, float], paths: dict[str, Tensor]) -> tuple[list[Finding], Path]:
    """How many steps to the minimum, and how far round about."""
    steps = {name: len(path) - 1 for name, path in paths.items()}
    detours = {name: arc(path) for name, path in paths.items()}
    path = budget.path("paths-on-beale-s-function.svg")
    x, y = torch.meshgrid(torch.linspace(-0.5, 4.2, 160), torch.linspace(-1.6, 2.2, 160), indexing="xy")
    with figure(path, x="x", y="y", size=(6.4, 4.6)) as axes:
        axes.contour(x, y, BEALE.value(torch.stack([x, y], -1)).log1p(), 24, linewidths=0.4, colors="gray")
        for name, points in paths.items():
            axes.plot(
                points[:, 0], points[:, 1], linewidth=1.2, label=f"{name}: {steps[name]} steps, {detours[name]:.1f}"
            )
        axes.plot(3.0, 0.5, "*", color="black")
        axes.set_xlim(-0.5, 4.2)
        axes.set_ylim(-1.6, 2.2)
    setting = "; ".join(f"{name} {rates[name]:g}: {steps[name]} steps, {detours[name]:.2f}" for name in METHODS)
    note = (
        f"from (1, 1.5) to within 0.1 of (3, 0.5), the best power of ten as learning rate of each; {LIMIT} steps: "
        f"did not arrive (Adadelta, whose steps there stay larger than the distance); {setting}"
    )
    straight = [detours[name] for name in ("Adagrad", "Adadelta", "RMSprop")]
    rolling = [detours["momentum"], detours["Nesterov"]]
    return [
        Finding(
            "Adagrad, Adadelta and RMSprop head straight for the minimum; momentum and Nesterov are led off the track",
            "a picture", max(straight), min(rolling), "path length over distance", max(straight) < min(rolling),
            f"measured: the longest of the three, baseline: the shorter of the two; {note}",
        ),
        Finding(
            "Nesterov's look-ahead corrects the course sooner than momentum", "more responsive", detours["Nesterov"],
            detours["momentum"], "path length over distance", detours["Nesterov"] < detours["momentum"], note,
        ),
        Finding(
            "Adaptive methods need the fewest steps", "converge fast", min(steps[name] for name in ADAPTIVE),
            min(steps[name] for name in METHODS if name not in ADAPTIVE), "steps",
            min(steps[name] for name in ADAPTIVE) < min(steps[name] for name in METHODS if name not in ADAPTIVE),
            f"the best of the four adaptive methods against the best of the three others; {note}",
        ),
    ], path  # fmt: skip


def saddle_findings(budget: Budget, rates: dict[str, float]) -> tuple[list[Finding], Path]:
    """Steps until the saddle is left, by how close to its ridge the walk begins."""
    offsets = budget.choose(smoke=[1e-3, 1e-6], full=[1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9])
    times = {
        name: [len(walk(SADDLE, make(name, rates[name]), 3000, (1.0, offset))[0]) - 1 for offset in offsets]
        for name in METHODS
    }
    path = budget.path("steps-to-leave-a-saddle.svg")
    with figure(path, x="distance from the ridge at the start", y="steps until |y| > 1") as axes:
        for name, values in times.items():
            axes.loglog(offsets, values, "o-", markersize=3, label=name)
    slowest, fastest = max(times[n][0] for n in ADAPTIVE), min(v[0] for n, v in times.items() if n not in ADAPTIVE)
    extra = {name: values[-1] - values[0] for name, values in times.items()}
    note = "x^2 - y^2 from (1, 0.001), learning rates as on Beale's function; " + "; ".join(
        f"{name} {values[0]}" for name, values in times.items()
    )
    adaptive = max(extra[name] for name in ADAPTIVE)
    return [
        Finding(
            "Adagrad, Adadelta and RMSprop leave the saddle first", "a picture", slowest, fastest, "steps",
            slowest < fastest, f"the slowest adaptive method against the fastest of the others; {note}",
        ),
        Finding(
            "SGD is stuck at the saddle longest", "a picture", times["SGD"][0], times["momentum"][0], "steps",
            times["SGD"][0] >= max(v[0] for v in times.values()),
            f"baseline: momentum, whose best learning rate on Beale's function is ten times smaller; {note}",
        ),
        Finding(
            "Adaptive methods hardly mind how close to the ridge they start (a claim of this library)", "not given",
            adaptive, extra["SGD"], "more steps", 10 * adaptive < extra["SGD"],
            f"from {offsets[-1]:g} in place of {offsets[0]:g} beside the ridge: the worst adaptive method against SGD",
        ),
    ], path  # fmt: skip


def torch_finding() -> Finding:
    """The largest distance after 200 steps in float64, over all methods that torch has."""
    pairs = [(METHODS[n], getattr(torch.optim, METHODS[n][0].__name__)) for n in METHODS]
    pairs += [((AdaMax, {}), torch.optim.Adamax)]
    worst = max(apart(kind, theirs, options) for (kind, options), theirs in pairs)
    torch.set_default_dtype(torch.float64)  # in which torch's NAdam keeps the product of its momenta
    try:
        worst = max(worst, apart(NAdam, torch.optim.NAdam, {}))
    finally:
        torch.set_default_dtype(torch.float32)
    return Finding(
        "In torch's form each method is torch's (a claim of this library)", 0, worst, "none", "largest difference",
        worst < 1e-12, "200 steps in float64, a time-dependent gradient; SGD with and without momentum and Nesterov, "
        "Adagrad, Adadelta, RMSprop, Adam, AdaMax, NAdam",
    )  # fmt: skip


def apart(ours: Any, theirs: Any, options: dict[str, Any]) -> float:
    """The largest difference of two optimizers' parameters after 200 steps."""
    ends = []
    for kind in (ours, theirs):
        p = nn.Parameter(torch.linspace(-2, 3, 7, dtype=torch.float64))
        optimizer = kind([p], lr=1e-2, **options)
        for t in range(200):
            p.grad = p.detach().sin() * (1.2 + 0.7 * torch.cos(torch.tensor(0.7 * t, dtype=torch.float64)))
            optimizer.step()
        ends.append(p.detach())
    return float((ends[0] - ends[1]).abs().max())
