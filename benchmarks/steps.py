"""Time of steps that take more than one gradient, in units of what they are made of.

    python benchmarks/steps.py [--rounds 11] [--json FILE]

One thread, float32, each case once a round in turns, medians of the calling thread's processor time. EGN against the
plain way: the Jacobian of each example by ``vmap(jacrev)``, all of it in memory, and a dense solve. SAM and its
relatives against the gradients they take, each with the step of SGD.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from _interleaved import Cases, measure
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from covector import Objective
from covector.optim import ASAM, EGN, GAM, SAM, SGD, GradientRegularization, SaddleFreeNewton

Batch = tuple[Tensor, Tensor]


def network(width: int, classes: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, classes)]
    return nn.Sequential(*layers)


def plain_egn(model: nn.Module, batch: Batch, damping: float, lr: float) -> None:
    """Gauss-Newton for cross entropy as one would write it with torch.func."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    x, y = batch

    def outputs(params: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(model, params, (one[None],))[0]

    jacobian = torch.cat([j.flatten(2) for j in vmap(jacrev(outputs), in_dims=(None, 0))(params, x).values()], 2)
    p = model(x).detach().softmax(1)
    size, classes = p.shape
    r = (p - nn.functional.one_hot(y, classes)).flatten()
    q = torch.block_diag(*(torch.diag(row) - torch.outer(row, row) for row in p))
    j = jacobian.flatten(0, 1)
    solved = torch.linalg.solve(q @ (j @ j.T) + size * damping * torch.eye(size * classes), r)
    flat = -(solved @ j)
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), flat.split([p.numel() for p in params.values()]), strict=True):
            parameter.add_(part.view_as(parameter), alpha=lr)


def egn(width: int, size: int) -> Cases:
    model, batch = network(width, 10), (torch.randn(size, 64), torch.randint(10, (size,)))
    objective = Objective(model, nn.functional.cross_entropy)
    ours = EGN(objective, lr=1e-6)

    def gradient() -> None:
        torch.autograd.grad(objective(batch), list(objective.params.values()))

    return {
        "gradient": gradient,
        "plain torch.func": lambda: plain_egn(model, batch, 1.0, 1e-6),
        "EGN": lambda: ours.step(batch),
    }


def displacements(width: int, size: int) -> Cases:
    model, batch = network(width, 10), (torch.randn(size, 64), torch.randint(10, (size,)))
    params = list(model.parameters())
    wrappers = {
        "SAM": SAM(SGD(params, lr=1e-6)),
        "ASAM": ASAM(SGD(params, lr=1e-6)),
        "GAM": GAM(SGD(params, lr=1e-6)),
        "gradient regularization, forward": GradientRegularization(SGD(params, lr=1e-6)),
    }
    exact = GradientRegularization(SGD(params, lr=1e-6), mode="exact")
    base = SGD(params, lr=1e-6)

    def loss() -> Tensor:
        for p in params:
            p.grad = None
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def closure() -> Tensor:
        value = loss()
        value.backward()
        return value

    cases: Cases = {"gradient": closure, "SGD, its gradient": lambda: base.step(closure)}
    cases |= {name: lambda wrapper=wrapper: wrapper.step(closure) for name, wrapper in wrappers.items()}  # type: ignore[misc]
    return cases | {"gradient regularization, exact": lambda: exact.step(loss)}


def saddle_free(width: int, size: int) -> Cases:
    model, batch = network(width, 10), (torch.randn(size, 64), torch.randint(10, (size,)))
    objective = Objective(model, nn.functional.cross_entropy)
    cases: Cases = {"gradient": lambda: torch.autograd.grad(objective(batch), list(objective.params.values()))}
    for steps in (10, 30):
        optimizer = SaddleFreeNewton(objective, lr=1e-6, krylov=steps, damping=1.0)
        cases[f"SaddleFreeNewton, {steps} products"] = lambda optimizer=optimizer: optimizer.step(batch)  # type: ignore[misc]
    return cases


PLAN: list[tuple[str, Callable[[int, int], Cases], list[tuple[int, int]]]] = [
    ("EGN", egn, [(64, 32), (256, 32), (256, 128)]),
    ("displaced gradients", displacements, [(64, 128), (512, 128)]),
    ("saddle-free Newton", saddle_free, [(256, 256)]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, float32")
    table = []
    for title, build, shapes in PLAN:
        for width, size in shapes:
            count = sum(p.numel() for p in network(width, 10).parameters())
            times = measure(build(width, size), options.rounds)
            print(f"\n{title}: {count:,} parameters, batch {size:<12d} {'ms':>10s} {'gradients':>10s}")
            for name, ms in times.items():
                print(f"  {name:48s} {ms:12.2f} {ms / times['gradient']:10.2f}")
                table.append({"title": title, "parameters": count, "batch": size, "method": name, "ms": ms})
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
