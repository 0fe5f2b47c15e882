"""Weight conditioning: training that does not mind how the rows of its weights are scaled, and what it does not buy."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import torch
from torch import nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.nn import condition, condition_numbers

RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
HEAD = "8"
Accuracies = dict[float, float]


@paper(
    "weight-conditioning",
    parts=["covector.nn.condition", "covector.nn.condition_numbers", "covector.nn.strip"],
)
def evidence(budget: Budget) -> Evidence:
    """Condition numbers and accuracies over learning rates, for well and badly scaled rows; and an image to fit."""
    digits = Digits.load()
    steps, seeds = budget.choose(smoke=(60, 1), full=(300, 3))
    sigmas = budget.choose(smoke=(1.0,), full=(0.0, 1.0, 2.0))
    rates = budget.choose(smoke=(0.003, 0.1), full=RATES)
    findings, figures = [], []
    for sigma in sigmas:
        plain, conditioned = (
            sweep(digits, sigma, conditioned, rates, steps, seeds, budget.seed) for conditioned in (False, True)
        )
        findings += scaling_findings(sigma, plain, conditioned, steps, seeds, budget.seed)
        figures.append(draw(budget, sigma, plain, conditioned))
    if budget.name == "full":
        findings.append(image_finding(budget.seed))
    return Evidence("weight-conditioning", findings, figures)


def network(sigma: float, conditioned: bool, seed: int) -> nn.Sequential:
    """Four hidden ReLU layers, He's start, rows multiplied by ``exp(sigma N(0, 1))``."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(4):
        layer = nn.Linear(64, 64)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        layer.weight.data *= torch.exp(sigma * torch.randn(64, 1))
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    if conditioned:
        condition(model, gain=math.sqrt(2), keep=[HEAD])
    return model


def sweep(
    digits: Digits, sigma: float, conditioned: bool, rates: tuple[float, ...], steps: int, seeds: int, seed: int
) -> Accuracies:
    """Mean held-out accuracy by learning rate."""
    return {
        rate: statistics.fmean(
            train(digits, network(sigma, conditioned, seed + s), rate, steps, seed + s) for s in range(seeds)
        )
        for rate in rates
    }


def train(digits: Digits, model: nn.Module, rate: float, steps: int, seed: int) -> float:
    """SGD with momentum on batches of 64; the accuracy of a run that diverges is that of guessing."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for step in range(steps):
        inputs, targets = digits.batch(seed * 100_003 + step, 64)
        loss = nn.functional.cross_entropy(model(inputs), targets)
        if not math.isfinite(loss.item()):
            return 0.1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    inputs, targets = digits.held_out
    with torch.no_grad():
        return float((model(inputs).argmax(1) == targets).double().mean())


def scaling_findings(
    sigma: float, plain: Accuracies, conditioned: Accuracies, steps: int, seeds: int, seed: int
) -> list[Finding]:
    """Condition numbers at the start, and at how many learning rates training works."""
    kappas = [
        statistics.median(value for name, value in condition_numbers(network(sigma, c, seed)).items() if name != HEAD)
        for c in (True, False)
    ]
    good = 0.9 * max(conditioned.values())
    works = [sum(value > good for value in values.values()) for values in (conditioned, plain)]
    listed = ", ".join(f"{value:.3f}" for value in plain.values())
    ours = ", ".join(f"{value:.3f}" for value in conditioned.values())
    best = [max(values.values()) for values in (conditioned, plain)]
    rows = f"rows scaled by exp({sigma:g} N(0, 1))"
    return [
        Finding(
            f"Conditioning lowers the condition number, {rows}", "lower", kappas[0], kappas[1], "median of layers",
            kappas[0] < 0.5 * kappas[1], "at the start; holds below half",
        ),
        Finding(
            f"Training works at more learning rates, {rows}", "not claimed", works[0], works[1],
            f"of {len(plain)} learning rates", works[0] > works[1],
            f"works: 0.9 of the best accuracy; digits, {steps} steps, mean of {seeds} seeds; learning rates "
            f"{', '.join(map(str, plain))}: conditioned {ours}; plain {listed}",
        ),
        Finding(
            f"The best accuracy is higher, {rows}", "a few percent", best[0], best[1], "held-out accuracy",
            None if abs(best[0] - best[1]) < 0.015 else best[0] > best[1],
            "each at its best learning rate; differences below 0.015 are undecided",
        ),
    ]  # fmt: skip


def draw(budget: Budget, sigma: float, plain: Accuracies, conditioned: Accuracies) -> Path:
    path = budget.path(f"accuracy-by-learning-rate-with-rows-scaled-by-exp-{sigma:g}-normal.svg")
    with figure(path, x="learning rate", y="held-out accuracy") as axes:
        axes.set_ylim(0, 1.02)
        axes.semilogx(list(conditioned), list(conditioned.values()), marker="o", label="conditioned")
        axes.semilogx(list(plain), list(plain.values()), marker="s", label="plain")
    return path


def image_finding(seed: int) -> Finding:
    """A network from coordinates to gray values (the paper's NeRF in small), well scaled, with Adam."""
    image = picture(48)
    grid = torch.linspace(-1, 1, 48)
    coordinates = torch.cartesian_prod(grid, grid)
    frequencies = 2.0 ** torch.arange(4) * math.pi
    angles = (coordinates.unsqueeze(-1) * frequencies).flatten(1)
    features = torch.cat([angles.sin(), angles.cos()], 1)
    best = {
        conditioned: max(fit(features, image, conditioned, rate, seed) for rate in (1e-3, 3e-3, 1e-2))
        for conditioned in (True, False)
    }
    return Finding(
        "A coordinate network fits an image better", "about 1 dB", best[True], best[False], "PSNR, dB",
        None if abs(best[True] - best[False]) < 0.2 else best[True] > best[False],
        "48 x 48, four hidden layers of 64, 400 steps of Adam, best of 3 learning rates; the paper's is a NeRF; "
        "differences below 0.2 dB are undecided",
    )  # fmt: skip


def picture(size: int) -> torch.Tensor:
    """Smooth shading, a sharp disk and fine stripes, ``[size * size, 1]``."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    disk = ((x - 0.3) ** 2 + (y + 0.2) ** 2 < 0.2).float()
    stripes = torch.where(x < 0, torch.sin(25 * (x + y)), torch.zeros_like(x))
    return (0.4 * (x * y + 1) + 0.4 * disk + 0.1 * stripes).reshape(-1, 1)


def fit(features: torch.Tensor, image: torch.Tensor, conditioned: bool, rate: float, seed: int) -> float:
    """Peak signal-to-noise ratio after training on all pixels."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for width in (features.shape[1], 64, 64, 64):
        layer = nn.Linear(width, 64)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 1))
    if conditioned:
        condition(model, gain=math.sqrt(2), keep=[HEAD])
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(400):
        loss = nn.functional.mse_loss(model(features), image)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = nn.functional.mse_loss(model(features), image)
    return float(10 * torch.log10(1 / error))
