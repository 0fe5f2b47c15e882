"""GAM: are minima of a small gradient norm nearby flatter than SAM's, and do they generalize better?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from covector.evidence.budget import Budget
from covector.evidence.experiments.noisy_digits import SETTING, Make, Outcome, compare
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import ASAM, GAM, SAM, SGD, DisplacedGradient

LR = 0.1


def sgd(lr: float = LR) -> Make:
    """Plain SGD."""
    return lambda params: SGD(params, lr=lr)


def sam(rho: float) -> Make:
    """SAM."""

    def make(params: list[Tensor]) -> DisplacedGradient:
        return SAM(SGD(params, lr=LR), rho)

    return make


def asam(rho: float) -> Make:
    """Adaptive SAM."""
    return lambda params: ASAM(SGD(params, lr=LR), rho)


def gam(rho: float) -> Make:
    """GAM, its other numbers as published."""
    return lambda params: GAM(SGD(params, lr=LR), rho)


@paper("gam", parts=["covector.optim.GAM", "covector.optim.SAM", "covector.optim.ASAM", "covector.optim.displaced"])
def evidence(budget: Budget) -> Evidence:
    """Flatness at the published radii, and accuracy with all methods tuned."""
    rates = {f"lr {lr}": sgd(lr) for lr in (0.1, 0.05, 0.2, 0.4)}
    methods: dict[str, tuple[Mapping[str, Make], float]] = {
        "SGD": ({"lr 0.1": sgd()}, 1.0),
        "SAM": ({"rho 0.05": sam(0.05)}, 1.0),
        "GAM": ({"rho 0.02": gam(0.02)}, 1.0),
        "SGD, tuned": (rates, 1.0),
        "SGD, tuned, twice the epochs": (rates, 2.0),
        "SAM, tuned": ({f"rho {rho}": sam(rho) for rho in (0.05, 0.1, 0.3, 0.6)}, 1.0),
        "ASAM, tuned": ({f"rho {rho}": asam(rho) for rho in (0.5, 1.0, 2.0, 4.0)}, 1.0),
        "GAM, tuned": ({f"rho {rho}": gam(rho) for rho in (0.02, 0.1, 0.3, 0.6)}, 1.0),
    }
    epochs, seeds = budget.choose(smoke=(2, 1), full=(60, 3))
    if budget.name == "smoke":
        methods = {name: methods[name] for name in list(methods)[:3]} | {"SAM, tuned": methods["SAM, tuned"]}
    found = compare(budget, methods, epochs, seeds)
    findings = [*flatness(found, seeds)]
    if budget.name == "full":
        findings += accuracy(found, seeds)
    return Evidence("gam", findings, [draw(budget, found)])


def flatness(found: Mapping[str, Outcome], seeds: int) -> list[Finding]:
    """Largest eigenvalues at the published radii."""
    plain, first, second = found["SGD"], found["SAM"], found["GAM"]
    setting = f"{SETTING.split(';')[0]}, learning rate 0.1, SAM 0.05, GAM 0.02 and 0.2; {seeds} seed(s)"
    words = ", ".join(f"{name} {found[name].mean('loss'):.3f}" for name in ("SGD", "SAM", "GAM"))
    return [
        Finding(
            "GAM ends in flatter places than SAM", "lower", second.mean("sharpness"), first.mean("sharpness"),
            "largest eigenvalue of the Hessian", second.beats(first, "sharpness", lower=True), setting,
        ),
        Finding(
            "SAM ends in flatter places than SGD", "lower", first.mean("sharpness"), plain.mean("sharpness"),
            "largest eigenvalue of the Hessian", first.beats(plain, "sharpness", lower=True), setting,
        ),
        Finding(
            "GAM is flatter at no price in the training loss", "not claimed", second.mean("loss"), plain.mean("loss"),
            "training loss", second.beats(plain, "loss", lower=True), f"{setting}; {words}",
        ),
    ]  # fmt: skip


def accuracy(found: Mapping[str, Outcome], seeds: int) -> list[Finding]:
    """Held-out accuracies, tuned."""
    ours, second, plain = found["GAM, tuned"], found["SAM, tuned"], found["SGD, tuned"]
    longer, adaptive = found["SGD, tuned, twice the epochs"], found["ASAM, tuned"]
    chosen = ", ".join(f"{name.removesuffix(', tuned')}: {found[name].setting}" for name in found if "tuned" in name)
    setting = f"{SETTING}; {seeds} seeds; chosen: {chosen}"
    pairs = [
        ("GAM generalizes better than SAM", "0.5 to 2 points", ours, second),
        ("SAM generalizes better than SGD", "better", second, plain),
        ("SAM generalizes better than SGD with as many gradients", "not claimed", second, longer),
        ("ASAM generalizes better than SAM", "better", adaptive, second),
    ]
    return [
        Finding(
            claim, reported, a.mean("accuracy"), b.mean("accuracy"), "held-out accuracy", a.beats(b, "accuracy"),
            f"{setting}; undecided within two standard errors of the paired difference",
        )
        for claim, reported, a, b in pairs
    ]  # fmt: skip


def draw(budget: Budget, found: Mapping[str, Outcome]) -> Path:
    """Every run of every method, by its flatness and its accuracy."""
    path = budget.path("accuracy-by-largest-eigenvalue.svg")
    shown = {name: outcome for name, outcome in found.items() if name != "SGD" or "SGD, tuned" not in found}
    largest = max(run.sharpness for outcome in shown.values() for run in outcome.runs)
    with figure(path, x="largest eigenvalue of the Hessian at the end", y="held-out accuracy", size=(8.4, 4.4)) as axes:
        axes.set_xscale("log")
        for (name, outcome), marker in zip(shown.items(), "sDo^vP*X", strict=False):
            axes.plot(
                [run.sharpness for run in outcome.runs], [run.accuracy for run in outcome.runs], marker,
                markersize=6, alpha=0.8, label=f"{name}, {outcome.setting}",
            )  # fmt: skip
        axes.set_xlim(right=30 * largest)  # room for the legend
    return path
