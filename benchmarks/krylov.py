"""Eigenvalues, traces and spectra of a Hessian: products and processor time beside SciPy's ARPACK.

python benchmarks/krylov.py
"""

from __future__ import annotations

import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from scipy.sparse.linalg import eigsh as arpack
from torch import nn

from covector.curvature import Hessian
from covector.linalg import eigsh, trace
from covector.objective import Objective

ROUNDS, REPEATS = 7, 20


def network() -> tuple[Objective, tuple[torch.Tensor, torch.Tensor], torch.optim.Optimizer]:
    """A network of 17,226 parameters, trained a little on 300 random examples."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64), nn.Tanh(), nn.Linear(64, 10))
    objective = Objective(net, nn.functional.cross_entropy)
    batch = (torch.randn(300, 64), torch.randint(10, (300,)))
    return objective, batch, torch.optim.SGD(net.parameters(), lr=0.2)


def train(objective: Objective, batch: object, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Full-batch gradient descent."""
    for _ in range(steps):
        optimizer.zero_grad()
        objective(batch).backward()
        optimizer.step()


def against_arpack(op: Hessian, k: int, tol: float) -> None:
    """Products and interleaved processor time for the k largest eigenvalues."""
    view, ours, theirs, products = op.to_scipy(), [], [], [0, 0]
    for _ in range(ROUNDS):
        before, start = op.products, time.process_time()
        eigsh(op, k, tol=tol)
        ours.append(time.process_time() - start)
        middle, start = op.products, time.process_time()
        arpack(view, k, which="LA", tol=tol)
        theirs.append(time.process_time() - start)
        products[0] += middle - before
        products[1] += op.products - middle
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"top {k:>2}, tol {tol:g}: {products[0] / ROUNDS:5.0f} products, ARPACK {products[1] / ROUNDS:5.0f}; "
        f"{1e3 * mine:6.1f} ms, ARPACK {1e3 * other:6.1f} ms, ratio {other / mine:.2f}"
    )


def main() -> None:
    """Print the tables."""
    objective, batch, optimizer = network()
    train(objective, batch, optimizer, 200)
    op = Hessian(objective, batch)
    for k in (1, 10):
        for tol in (1e-3, 1e-6):
            against_arpack(op, k, tol)
    exact = float(op.dense().diagonal().double().sum())
    for products in (12, 30, 60):
        errors = {}
        for method in ("hutchinson", "hutch++", "xtrace"):
            off = [trace(op, products, method, seed=seed).value / exact - 1 for seed in range(REPEATS)]
            errors[method] = 100 * statistics.fmean(value**2 for value in off) ** 0.5
        print(f"trace, {products} products: " + ", ".join(f"{name} {value:.2f} %" for name, value in errors.items()))
    last = {k: eigsh(op, k).vectors for k in (1, 10)}
    train(objective, batch, optimizer, 1)
    for k, start in last.items():
        warm, cold = eigsh(op, k, start=start).products, eigsh(op, k).products
        print(f"top {k} after a step of training: {warm} products, {cold} from nothing")


if __name__ == "__main__":
    main()
