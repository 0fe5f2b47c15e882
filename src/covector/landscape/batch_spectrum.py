"""BatchSpectrum: the full spectrum's ends and the noise of a batch, from which every batch size's follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from covector import random
from covector.curvature import Hessian
from covector.errors import ArgumentError
from covector.landscape.random_matrix import effective_size, wigner_top
from covector.linalg import LinearOperator, eigsh
from covector.objective import Batch, Objective

__all__ = ["BatchSpectrum", "batch_spectrum"]


class BatchSpectrum(NamedTuple):
    """Where the curvature of a batch of any size ends, predicted.

    Attributes:
        top: largest eigenvalue over all examples.
        bottom: smallest.
        noise: ``P sigma^2``: the expected square of ``(H_1 - H) v`` for one example and a unit vector.
        error: standard error of ``noise``.
        examples: how many there are.
        products: with a Hessian, that this took.

    >>> found = BatchSpectrum(top=2.0, bottom=-0.1, noise=16.0, error=0.1, examples=10**9, products=60)
    >>> round(found.largest(16), 4), round(found.largest_lr(16), 4), found.saturation
    (2.5, 0.8, 4.0)
    """

    top: float
    bottom: float
    noise: float
    error: float
    examples: int
    products: int

    def largest(self, size: int) -> float:
        """The largest eigenvalue that a batch of ``size`` examples shows."""
        return self._outermost(max(self.top, 0.0), size)

    def smallest(self, size: int) -> float:
        """The smallest eigenvalue that a batch of ``size`` examples shows."""
        return self._outermost(min(self.bottom, -0.0), size)

    def largest_lr(self, size: int, momentum: float = 0.0) -> float:
        """``2 (1 + momentum) / largest(size)``: above it steps of gradient descent on a batch's parabola grow."""
        return 2 * (1 + momentum) / self.largest(size)

    @property
    def saturation(self) -> float:
        """The batch size from which on a larger learning rate is not to be had: ``P sigma^2 / top^2``."""
        return self.noise / self.top**2

    def smallest_damping(self, size: int) -> float:
        """What must be added to a batch's curvature so that its noise gives no direction of negative curvature."""
        return -self.smallest(size)

    def _outermost(self, value: float, size: int) -> float:
        effective = effective_size(size, self.examples)
        return value if math.isinf(effective) else wigner_top(value, self.noise, effective)


def batch_spectrum(
    objective: Objective,
    batches: Sequence[Batch],
    *,
    along: str = "top",
    probes: int = 8,
    tol: float = 1e-2,
    seed: int = 0,
    curvature: Callable[..., LinearOperator] = Hessian,
) -> BatchSpectrum:
    """Measure the ends of the full spectrum and the noise of a batch.

    The noise is ``B E |(H_i - H_j) v|^2 / 2`` over pairs of different batches of B examples. That is free of bias also
    for batches that are parts of a finite set. For noise of independent elements, as the theory has it, every unit
    vector v sees the same. A network's noise lies mostly where its curvature is: along random vectors it hardly shows,
    and what moves the largest eigenvalue is, to second order, the noise along its own eigenvector.

    Args:
        objective: whose loss is a mean over examples.
        batches: at least two, of equal size, without an example in common.
        along: ``"top"``: v is the eigenvector of the largest eigenvalue, and the part of ``(H_i - H_j) v`` along v
            is left out, for it moves the eigenvalue both ways; ``"random"``: v is random, as in the paper.
        probes: pairs of batches.
        tol: of the eigenvalues, relative.
        seed: of the vectors and of the choice of pairs.
        curvature: the operator: :class:`~covector.curvature.Hessian` or :class:`~covector.curvature.GaussNewton`.

    Raises:
        ArgumentError: fewer than two batches, batches of unequal size, fewer than two probes or an unknown ``along``.

    Source: Granziol, Zohren, Roberts, "Learning rates as a function of batch size" (2020), section 4.

    >>> from torch import nn
    >>> objective = Objective(nn.Linear(3, 1), nn.functional.mse_loss)
    >>> batches = [(torch.randn(8, 3), torch.randn(8, 1)) for _ in range(4)]
    >>> found = batch_spectrum(objective, batches)
    >>> found.largest(4) > found.largest(32) == found.top
    True
    """
    batches = list(batches)
    sizes = {objective.size(batch) for batch in batches}
    if len(batches) < 2 or len(sizes) != 1:
        raise ArgumentError("batches", f"{len(batches)} of sizes {sorted(sizes)}", "at least two, of equal size")
    if along not in ("top", "random"):
        raise ArgumentError("along", along, "'top' or 'random'")
    if probes < 2:
        raise ArgumentError("probes", probes, "a whole number of at least 2")
    full = curvature(objective, batches)
    ends = [eigsh(full, 1, which, tol=tol, seed=seed) for which in ("LA", "SA")]
    parts = [curvature(objective, batch) for batch in batches]
    squares = []
    for probe in range(probes):
        first, second = random.sample_without_replacement(seed, len(batches), 2, step=probe)
        if along == "top":
            vector = ends[0].vectors[:, 0]
        else:
            vector = random.draw(seed, "batch noise", full.shape[1], "normal", step=probe, device=full.device)
            vector = (vector / vector.norm()).to(full.dtype)
        difference = parts[first] @ vector - parts[second] @ vector
        if along == "top":
            difference = difference - (difference @ vector) * vector
        squares.append(float(difference.double().square().sum()) / 2)
    (size,) = sizes
    values = torch.tensor(squares, dtype=torch.float64) * size
    return BatchSpectrum(
        top=float(ends[0].values[0]),
        bottom=float(ends[1].values[0]),
        noise=float(values.mean()),
        error=float(values.std() / math.sqrt(probes)),
        examples=size * len(batches),
        products=full.products + sum(part.products for part in parts),
    )
