"""Sensitivity analysis on the loss landscape: input derivatives up to the third order beside rank correlation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from covector import data
from covector.attribution import input_derivatives
from covector.evidence.budget import Budget
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.optim import Adam


@paper("loss-landscape-sensitivity", parts=["covector.attribution.input_derivatives"])
def evidence(budget: Budget) -> Evidence:
    """A function whose sensitivities are known, and the strength of concrete."""
    known, known_path = planted(budget)
    real, real_path = concrete(budget)
    return Evidence("loss-landscape-sensitivity", [*known, *real], [known_path, real_path])


def trained(x: Tensor, y: Tensor, seed: int, steps: int) -> nn.Module:
    """A tanh network with 32 hidden units, fitted to the whole of a regression task."""
    torch.manual_seed(seed)
    first, last = nn.Linear(x.shape[1], 32), nn.Linear(32, 1)
    for layer in (first, last):
        nn.init.xavier_normal_(layer.weight)
    model = nn.Sequential(first, nn.Tanh(), last)
    optimizer = Adam(model, lr=1e-2)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(x), (128,), generator=generator)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[rows])[:, 0], y[rows]).backward()
        optimizer.step()
    return model


def wrapped(out: Tensor, y: Tensor) -> Tensor:
    """The paper's loss: tanh of the squared error."""
    return (out[:, 0] - y).square().tanh()


def retrained(x: Tensor, y: Tensor, budget: Budget, loss: bool) -> Tensor:
    """Mean derivatives ``[retrainings, order, features]`` of the output or of the wrapped loss."""
    steps, count = budget.choose(smoke=(150, 1), full=(2000, 5))
    found = []
    for seed in range(count):
        model = trained(x, y, budget.seed + seed, steps)
        chosen, labels = (wrapped, y) if loss else (None, None)
        found.append(torch.stack(input_derivatives(model, x, chosen, labels=labels, reduce="mean")))
    return torch.stack(found)


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Rank correlation of each column of ``x`` with ``y``; equal values share their mean rank.

    >>> spearman(torch.tensor([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]), torch.tensor([0.0, 1.0, 5.0]))
    tensor([ 1., -1.])
    """
    ranks = []
    for column in [*x.T, y]:
        _, places, counts = column.unique(return_inverse=True, return_counts=True)
        ranks.append((counts.cumsum(0) - (counts - 1) / 2.0)[places])
    correlations: Tensor = torch.corrcoef(torch.stack(ranks).double())[-1, :-1].float()
    return correlations


def planted(budget: Budget) -> tuple[list[Finding], Path]:
    """``y = 2 x1 - x2 + x3^2 / 2``, and five features that do nothing."""
    generator = torch.Generator().manual_seed(budget.seed)
    x = torch.randn(1000, 8, generator=generator)
    y = 2 * x[:, 0] - x[:, 1] + 0.5 * x[:, 2] ** 2 + 0.1 * torch.randn(1000, generator=generator)
    runs, ranks = retrained(x, y, budget, loss=False), spearman(x, y)
    first, second, third = runs.mean(0)
    exact = torch.zeros(2, 8)
    exact[0, 0], exact[0, 1], exact[1, 2] = 2.0, -1.0, 1.0
    exact[0, 2] = x[:, 2].mean()
    error = float((runs.mean(0)[:2] - exact).abs().max())
    others = float(second[[0, 1, 3, 4, 5, 6, 7]].abs().max())
    path = budget.path("sensitivities-of-a-known-function.svg")
    bars(path, {"|Spearman|": ranks.abs(), "first": first.abs(), "second": second.abs(), "third": third.abs()},
         [f"x{k}" for k in range(1, 9)])  # fmt: skip
    note = (
        f"y = 2 x1 - x2 + x3^2 / 2 + noise 0.1, 1,000 points, x4 to x8 do nothing; network 8-32-1 with tanh, mean over "
        f"points and {len(runs)} retraining(s); |Spearman| of x1, x2, x3: "
        + ", ".join(f"{float(value):.2f}" for value in ranks[:3].abs())
        + "; first " + ", ".join(f"{float(value):.2f}" for value in first[:3])
        + "; second " + ", ".join(f"{float(value):.2f}" for value in second[:3])
    )  # fmt: skip
    full = budget.name == "full"
    return [
        Finding("The second derivative finds what a rank correlation misses (a claim of this library)", "not given",
                float(second[2]), float(ranks[2].abs()), "second derivative of x3, and |Spearman|",
                float(second[2]) > 3 * others and float(ranks[2].abs()) < 0.1 if full else None,
                f"the largest second derivative of another feature is {others:.2f}; {note}"),
        Finding("Derivatives of a trained network are those of the function (a claim of this library)", "not given",
                error, 1.0, "largest error over features, first and second order", error < 0.15 if full else None,
                f"exact: 2, -1, the mean of x3, and 1 for x3's second; baseline: that second derivative; {note}"),
    ], path  # fmt: skip


def concrete(budget: Budget) -> tuple[list[Finding], Path]:
    """The compressive strength of 1,030 mixtures, by 8 columns."""
    table = data.load("concrete", standardize=True)
    x, y = table.x, (table.y - table.y.mean()) / table.y.std()
    ranks = spearman(x, y)
    losses, outputs = retrained(x, y, budget, loss=True), retrained(x, y, budget, loss=False)
    mean = losses.mean(0).abs()
    agreement = {
        "loss, first": mean[0], "loss, second": mean[1], "loss, third": mean[2],
        "output, first": outputs.mean(0)[0].abs(),
    }  # fmt: skip
    agreed = {name: float(spearman(values[:, None], ranks.abs())[0]) for name, values in agreement.items()}
    spread = {
        name: float((runs[:, 1].std(0) / runs[:, 1].mean(0).abs().max()).max()) if len(runs) > 1 else 0.0
        for name, runs in (("loss", losses), ("output", outputs))
    }
    path = budget.path("sensitivities-of-the-strength-of-concrete.svg")
    columns = {"|Spearman|": ranks.abs(), "loss, first": mean[0], "loss, second": mean[1],
               "output, first": agreement["output, first"]}  # fmt: skip
    bars(path, columns, [name.replace("_", " ") for name in table.features])
    note = (
        f"concrete, 1,030 mixtures, 8 standardized columns; network 8-32-1 with tanh, Glorot's start, fitted to all "
        f"rows; mean over rows and {len(losses)} retraining(s); rank agreement with |Spearman|: "
        + ", ".join(f"{name} {value:.2f}" for name, value in agreed.items())
    )
    full = budget.name == "full"
    return [
        Finding("Second derivatives of a tanh-wrapped loss order the features as Spearman's correlation does",
                "visualise similarly", agreed["loss, second"], agreed["output, first"],
                "rank correlation of 8 features", agreed["loss, second"] > 0.7 if full else None,
                f"baseline: first derivatives of the output; holds beyond 0.7, exceeded by chance in 3 of 100; {note}"),
        Finding("The analysis is the same after training again", "averaged over retrainings", spread["loss"],
                spread["output"], "largest standard deviation over the largest mean, second order",
                spread["loss"] < 0.25 if full else None, f"baseline: of the output; {len(losses)} retraining(s)"),
    ], path  # fmt: skip


def bars(path: Path, columns: dict[str, Tensor], names: list[str]) -> None:
    """Each feature's measures side by side, each measure scaled to its largest."""
    width = 0.8 / len(columns)
    with figure(path, y="share of the largest", size=(7.6, 3.8)) as axes:
        for k, (name, values) in enumerate(columns.items()):
            places = [i + (k - (len(columns) - 1) / 2) * width for i in range(len(values))]
            axes.bar(places, (values / values.max()).tolist(), width, label=name)
        slanted: dict[str, Any] = (
            {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
        )
        axes.set_xticks(range(len(names)), names, **slanted)
        axes.set_ylim(0, 1.25)  # room for the legend
