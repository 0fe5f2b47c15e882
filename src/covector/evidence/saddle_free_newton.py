"""Saddle-free Newton: does it leave saddles where others wait, and are critical points of high error saddles?"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian

from covector.evidence.budget import Budget
from covector.evidence.experiments.digits import Digits
from covector.evidence.figures import figure
from covector.evidence.findings import Evidence, Finding
from covector.evidence.registry import paper
from covector.objective import Objective
from covector.optim import Adam, SaddleFreeNewton

Function = Callable[[Tensor], Tensor]
HIDDEN = 5


@paper(
    "saddle-free-newton",
    parts=["covector.optim.SaddleFreeNewton", "covector.linalg.lanczos", "covector.curvature.Hessian"],
)
def evidence(budget: Budget) -> Evidence:
    """A planted saddle, a deep autoencoder from a tiny start, and the index of critical points by their error."""
    escape, escapes = planted(budget)
    index, points = indices(budget)
    return Evidence("saddle-free-newton", [*escape, autoencoder(budget), index], [escapes, points])


def saddle(size: int, seed: int) -> tuple[Function, Tensor, float, float]:
    """``x^T A x / 2 + sum (U^T x)^4 / 4``, half of A negative; a start beside 0, the minimum, the largest curvature."""
    draw = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))[0]
    down = -torch.logspace(-2, 0, size // 2, dtype=torch.float64)
    values = torch.cat([down, torch.logspace(-2, 1, size // 2, dtype=torch.float64)])

    def function(x: Tensor) -> Tensor:
        z = u.T @ x
        return (values * z.square()).sum() / 2 + z.pow(4).sum() / 4

    start = 1e-6 * torch.randn(size, generator=draw, dtype=torch.float64)
    return function, start, -float(down.square().sum()) / 4, float(values.max())


def planted(budget: Budget) -> tuple[list[Finding], Path]:
    """Iterations to 99 % of the way down."""
    size = budget.choose(smoke=10, full=40)
    function, start, least, curvature = saddle(size, budget.seed)
    goal, curves = 0.99 * least, {}
    x = start.clone().requires_grad_()
    objective = Objective.from_function(lambda params, batch: function(params["x"]), {"x": x})
    optimizer = SaddleFreeNewton(objective, krylov=size)
    curves["saddle-free Newton"] = descend(x, lambda: optimizer.step(None), function, goal, 400)

    y = start.clone()

    def gradient_step() -> None:
        y.sub_(grad(function)(y) / curvature)

    curves["gradient descent"] = descend(y, gradient_step, function, goal, 4000)
    z = start.clone()

    def newton_step() -> None:
        z.sub_(torch.linalg.solve(hessian(function)(z), grad(function)(z)))

    descend(z, newton_step, function, goal, 20)
    path = budget.path("distance-to-the-minimum-by-iteration.svg")
    with figure(path, x="iteration", y="loss above the minimum") as axes:
        for name, curve in curves.items():
            axes.loglog(range(1, len(curve) + 1), [value - least for value in curve], label=name)
    setting = (
        f"rotated quartic saddle in {size} dimensions, half of them down by 0.01 to 1, from 1e-6 beside the saddle"
    )
    ours, theirs = (len(curve) - 1 for curve in curves.values())
    return [
        Finding(
            "It leaves a saddle in far fewer iterations than gradient descent", "fast escape", ours, theirs,
            "iterations to 99 % of the way down", ours * 10 < theirs,
            f"{setting}; {size} Hessian products an iteration at most, damping searched; gradient descent with 1 / L; "
            "holds beyond a factor of ten",
        ),
        Finding(
            "Newton's method converges to the saddle", "attracted", float(z.norm()), float(start.norm()),
            "distance from the saddle", float(z.norm()) < 1e-9, f"{setting}; 20 Newton steps; baseline: the start",
        ),
    ], path  # fmt: skip


def descend(x: Tensor, step: Callable[[], object], function: Function, goal: float, most: int) -> list[float]:
    """Losses, until the goal is reached."""
    losses = [float(function(x.detach()))]
    while losses[-1] > goal and len(losses) <= most:
        step()
        losses.append(float(function(x.detach())))
    return losses


def autoencoder(budget: Budget) -> Finding:
    """A digits autoencoder from weights of 1e-3, where all of the network is next to a saddle."""
    data = Digits.load().train[0]
    data = data[: budget.choose(smoke=64, full=len(data))].double()
    data = data - data.mean(0)
    outer, krylov = budget.choose(smoke=(2, 4), full=(40, 30))
    variance = float(data.square().mean())

    def build() -> Objective:
        torch.manual_seed(budget.seed)
        layers = [nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10), nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 64)]
        model = nn.Sequential(*layers).double()
        with torch.no_grad():
            for p in model.parameters():
                p.normal_(std=1e-3)
        return Objective(model, nn.functional.mse_loss)

    batch = data, data
    objective = build()
    optimizer = SaddleFreeNewton(objective, krylov=krylov)
    for _ in range(outer):
        optimizer.step(batch)
    with torch.no_grad():
        ours = float(objective(batch)) / variance
    gradients = outer * (krylov + 1)
    theirs = {
        lr: by_adam(build(), batch, lr, gradients) / variance for lr in budget.choose((0.01,), (1e-3, 3e-3, 1e-2))
    }
    lr = min(theirs, key=theirs.__getitem__)
    return Finding(
        "It reaches a lower error than first-order methods on a deep autoencoder", "lower error", ours, theirs[lr],
        "share of the variance left", ours < theirs[lr] if budget.name == "full" else None,
        f"digits, autoencoder 64-32-10-32-64 from weights of 1e-3, {outer} steps of {krylov} products on all "
        f"{len(data)} images, against {gradients} gradients of Adam, the best of {len(theirs)} learning rates ({lr}); "
        "a product counted as a gradient, though it takes about 1.5",
    )  # fmt: skip


def by_adam(objective: Objective, batch: tuple[Tensor, Tensor], lr: float, steps: int) -> float:
    """The loss after full-batch Adam."""
    optimizer = Adam(objective.params.values(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(batch).backward()
        optimizer.step()
    with torch.no_grad():
        return float(objective(batch))


def indices(budget: Budget) -> tuple[Finding, Path]:
    """Critical points of a small network: the share of negative eigenvalues by the error."""
    digits = Digits.load()
    x, y = (part[:300] for part in digits.train)
    basis = torch.linalg.svd(x.double() - x.double().mean(0), full_matrices=False)[2][:6]
    inputs = (x.double() @ basis.T) * 0.5
    torch.manual_seed(budget.seed)
    model = nn.Sequential(nn.Linear(6, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 10)).double()
    like = {name: p.detach() for name, p in model.named_parameters()}
    sizes, shapes = [p.numel() for p in like.values()], [p.shape for p in like.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        params = dict(zip(like, parts, strict=True))
        # a little weight decay bends the directions that the data leave flat
        fit = nn.functional.cross_entropy(functional_call(model, params, (inputs,)), y)
        return fit + 5e-4 * flat.square().sum()

    losses, shares = [], []
    for k in range(budget.choose(smoke=2, full=24)):
        torch.manual_seed(budget.seed + k)
        start = torch.randn(sum(sizes), dtype=torch.float64) * 0.5
        asleep = _asleep(k % (HIDDEN + 1), shapes)
        trained = _minimum(loss, torch.where(asleep, 0.01 * start, start), ~asleep, budget.choose(smoke=2, full=40))
        found = critical(loss, trained, budget.choose(smoke=2, full=60))
        if float(grad(loss)(found).norm()) < 1e-6 or budget.name == "smoke":
            losses.append(float(loss(found)))
            shares.append(float((torch.linalg.eigvalsh(hessian(loss)(found)) < -1e-6).double().mean()))
    path = budget.path("negative-eigenvalues-by-loss-at-critical-points.svg")
    with figure(path, x="loss", y="share of negative eigenvalues") as axes:
        axes.plot(losses, shares, "o", markersize=4)
    varied = len(set(losses)) > 1 and len(set(shares)) > 1
    correlation = statistics.correlation(_ranks(losses), _ranks(shares)) if varied else 0.0
    return Finding(
        "The index of critical points grows with their error", "grows", correlation, 0.0, "rank correlation",
        correlation > 0.5 if budget.name == "full" else None,
        f"{len(losses)} critical points (gradient below 1e-6), {len({round(value, 6) for value in losses})} different "
        "ones, of a network 6-5-10 on principal components of digits, with weight decay 5e-4: trained with some hidden "
        "units asleep, then led to a zero of the gradient of all; holds above 0.5",
    ), path  # fmt: skip


def _asleep(count: int, shapes: Sequence[torch.Size]) -> Tensor:
    """The weights of the last hidden units, in and out."""
    masks = [torch.zeros(shape, dtype=torch.bool) for shape in shapes]
    for place in range(HIDDEN - count, HIDDEN):
        masks[0][place], masks[1][place], masks[2][:, place] = True, True, True
    return torch.cat([mask.flatten() for mask in masks])


def _minimum(loss: Function, start: Tensor, awake: Tensor, steps: int) -> Tensor:
    """Where saddle-free Newton leads when some parameters are held."""
    free = start[awake].clone().requires_grad_()
    objective = Objective.from_function(
        lambda params, batch: loss(start.masked_scatter(awake, params["free"])), {"free": free}
    )
    optimizer = SaddleFreeNewton(objective, krylov=40)
    for _ in range(steps):
        optimizer.step(None)
    return start.masked_scatter(awake, free.detach())


def _ranks(values: list[float]) -> list[float]:
    """Places in order, equal values sharing the mean of theirs."""
    order = sorted(values)
    return [(order.index(value) + len(order) - 1 - order[::-1].index(value)) / 2 for value in values]


def critical(loss: Function, start: Tensor, steps: int) -> Tensor:
    """A point where the gradient vanishes, by Levenberg and Marquardt's method on the gradient."""
    x, damping = start, 1e-2
    g = grad(loss)(x)
    for _ in range(steps):
        h = hessian(loss)(x)
        step = torch.linalg.solve(h @ h + damping * torch.eye(len(x), dtype=x.dtype), h @ g)
        ahead = grad(loss)(x - step)
        if float(ahead.norm()) < float(g.norm()):
            x, g, damping = x - step, ahead, damping / 4
        else:
            damping *= 4
        if float(g.norm()) < 1e-8:
            break
    return x
