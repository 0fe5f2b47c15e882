"""A precise characterization of SGD stability: the coherence of the examples' Hessians, and what decides exactly."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.landscape import Stability, stability
from covector.objective import Objective

EXAMPLES = 12
SIZES = (1, 2, 3, 4, 6, 9, 11)
GONE = 1e6  # the loss, in those of the start, at which a minimum counts as left


@paper("sgd-stability-coherence", parts=["covector.landscape.Stability", "covector.landscape.stability"])
def evidence(budget: Budget) -> Evidence:
    """Synthetic Hessians from orthogonal to equal, and a small network that fits its digits."""
    found = families(budget.seed)
    network, drawn = network_finding(budget)
    findings = [*theorem_findings(found), *sampling_findings(found), network]
    return Evidence("sgd-stability-coherence", findings, [draw(budget, found), drawn])


def families(seed: int) -> dict[str, Stability]:
    """Examples of one output each whose mean Hessian has the largest eigenvalue 1."""
    draw = torch.Generator().manual_seed(seed)
    normal = torch.randn(EXAMPLES, EXAMPLES, generator=draw, dtype=torch.float64)
    factors = {
        "orthogonal": torch.eye(EXAMPLES, dtype=torch.float64),
        "random": normal,
        "aligned": torch.ones(EXAMPLES, EXAMPLES, dtype=torch.float64) + 0.2 * normal,
    }
    return {name: Stability.from_factors(_unit(rows)) for name, rows in factors.items()}


def _unit(rows: Tensor) -> Tensor:
    return rows / math.sqrt(Stability.from_factors(rows).sharpness)


def theorem_findings(found: dict[str, Stability]) -> list[Finding]:
    """The theorem's bound beside the exact learning rate, and what coherence does to it."""
    ratios = {
        (name, size): own.max_lr(size, "bernoulli")
        / min(own.bounds(size, "bernoulli")[k] for k in ("coherence", "gradient_descent"))
        for name, own in found.items()
        for size in SIZES
    }
    low, high = found["orthogonal"], found["aligned"]
    return [
        Finding(
            "Above the smaller of 2 / lambda_1 and sigma / (lambda_1 sqrt(n/B - 1)) a minimum is unstable", "at most 1",
            max(ratios.values()), min(ratios.values()), "exact largest learning rate / bound, largest and smallest",
            max(ratios.values()) <= 1.0 + 1e-5,
            f"Bernoulli batches of {SIZES} of 12 examples of one output: orthogonal, random and aligned gradients",
        ),
        Finding(
            "The bound is nearly tight", "near 1", max(v for (name, _), v in ratios.items() if name == "orthogonal"),
            max(v for (name, _), v in ratios.items() if name == "random"),
            "exact / bound at the best batch size: orthogonal, beside it random", ratios["orthogonal", 6] > 0.999,
            "equal for orthogonal gradients in batches of half the examples",
        ),
        Finding(
            "Incoherent examples are unstable at a smaller sharpness", "smaller", low.max_lr(1, "bernoulli"),
            high.max_lr(1, "bernoulli"), "largest stable learning rate, sharpness 1: orthogonal, beside it aligned",
            low.max_lr(1, "bernoulli") < high.max_lr(1, "bernoulli"),
            f"batches of one; coherence {low.coherence:.2f} and {high.coherence:.2f} of at most 12",
        ),
    ]  # fmt: skip


def sampling_findings(found: dict[str, Stability]) -> list[Finding]:
    """The paper's batches have a random number of examples; real ones have not."""
    own = found["aligned"]
    real, paper_s = own.max_lr(1), own.max_lr(1, "bernoulli")
    return [
        Finding(
            "Batches of random size stand for batches drawn without replacement",
            "a good model",
            paper_s,
            real,
            "largest stable learning rate, aligned gradients, batch size 1: Bernoulli, beside it without replacement",
            abs(paper_s / real - 1) < 0.1,
            "not for coherent examples: there it is the random number of examples that makes SGD unstable",
        )
    ]


def network_finding(budget: Budget) -> tuple[Finding, Path]:
    """A network at a minimum of all its examples: SGD just below and above the largest stable learning rate."""
    count, steps = budget.choose(smoke=(8, 100), full=(40, 2000))
    objective, batch = fitted(budget.seed, count, budget.choose(smoke=200, full=3000))
    minimum = stability(objective, batch)
    largest = minimum.max_lr(1)
    start = {name: p.detach().clone() for name, p in objective.params.items()}
    curves: dict[tuple[float, int], list[float]] = {}
    for factor, size in ((0.7, 1), (1.0, 1), (1.4, 1), (2.0, 1), (2.0, count)):
        with torch.no_grad():
            for name, p in objective.params.items():
                p.copy_(start[name])
        curves[factor, size] = walk(objective, batch, factor * largest, size, steps, budget.seed)
    path = budget.path("loss-from-a-minimum.svg")
    with figure(path, x="step", y="loss / loss at the start") as axes:
        for (factor, size), values in curves.items():
            label = f"{factor:g} x the largest stable rate" + (", all examples" if size > 1 else "")
            axes.plot(range(0, len(values) * 10, 10), values, label=label)
        axes.set(yscale="log", ylim=(1e-5, 1e13))  # room for the legend above
    below, above, full = (curves[key][-1] for key in ((0.7, 1), (2.0, 1), (2.0, count)))
    setting = (
        f"64-16-10 tanh network, squared error, fitted to {count} digits, parameters then moved by 1e-4; "
        f"{steps} steps; largest stable learning rate for batches of one {largest:.3g}, for gradient descent "
        f"{2 / minimum.sharpness:.3g}; coherence {minimum.coherence:.3g}"
    )
    finding = Finding(
        "SGD leaves a minimum above the largest stable learning rate, and stays below", "grows, falls",
        math.log10(above), math.log10(below),
        "log10 of loss / loss at the start (6: left), batches of one: at twice the largest stable rate, beside it 0.7",
        below < 1.0 < above if budget.name == "full" else None,
        f"{setting}; gradient descent at the same twice: {math.log10(full):.2f}; at 1.4 times, batches of one: "
        f"{math.log10(curves[1.4, 1][-1]):.2f}",
    )  # fmt: skip
    return finding, path


def fitted(seed: int, count: int, steps: int) -> tuple[Objective, tuple[Tensor, Tensor]]:
    """A small network at a minimum of all examples, by L-BFGS, moved away a little."""
    torch.manual_seed(seed)
    x, y = Digits.load().train
    inputs, targets = x[:count].double(), nn.functional.one_hot(y[:count], 10).double()
    batch = (inputs - inputs.mean(0)) / inputs.std(), targets - targets.mean(0)
    module = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).double()
    objective = Objective(module, nn.functional.mse_loss)
    solver = torch.optim.LBFGS(
        module.parameters(), max_iter=steps, tolerance_grad=1e-12, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = objective(batch)
        loss.backward()
        return loss

    solver.step(closure)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p), alpha=1e-4)
    return objective, batch


def walk(
    objective: Objective, batch: tuple[Tensor, Tensor], lr: float, size: int, steps: int, seed: int
) -> list[float]:
    """Losses every ten steps over the first, until the minimum is left; batches without replacement."""
    draw, params = torch.Generator().manual_seed(seed), list(objective.params.values())
    x, y = batch
    with torch.no_grad():
        first = float(objective(batch))
    values = [1.0]
    for step in range(1, steps + 1):
        chosen = torch.randperm(len(x), generator=draw)[:size]
        slopes = torch.autograd.grad(objective((x[chosen], y[chosen])), params)
        with torch.no_grad():
            for p, slope in zip(params, slopes, strict=True):
                p -= lr * slope
            if step % 10 == 0:
                ratio = float(objective(batch)) / first
                values.append(ratio if ratio < GONE else GONE)
                if values[-1] == GONE:
                    break
    return values


def draw(budget: Budget, found: dict[str, Stability]) -> Path:
    """The exact learning rate and the theorem's bound over the batch size."""
    path = budget.path("stable-learning-rate-by-batch-size.svg")
    with figure(path, x="batch size", y="largest stable learning rate") as axes:
        for name, own in found.items():
            (line,) = axes.plot(SIZES, [own.max_lr(size, "bernoulli") for size in SIZES], "o-", label=f"{name}, exact")
            bounds = [own.bounds(size, "bernoulli") for size in SIZES]
            axes.plot(
                SIZES, [min(b["coherence"], b["gradient_descent"]) for b in bounds], "--", color=line.get_color(),
                label=f"{name}, the theorem's bound",
            )  # fmt: skip
        axes.set(yscale="log")
    return path
