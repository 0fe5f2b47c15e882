"""A few eigenvalues and eigenvectors of a symmetric operator: Lanczos in blocks, restarted, stopped by residuals.

The basis grows until it is full; then the Ritz vectors nearest to what is wanted stay, the rest is forgotten, and the
residual goes on where it was (Wu and Simon's thick restart). The coefficients of the orthogonalization are the
projected matrix, so that a start of any number of vectors, a restart and a plain step are one and the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.linalg.checks import check_choice, check_steps
from covector.linalg.lanczos import BREAKDOWN, norms
from covector.linalg.operator import LinearOperator
from covector.linalg.spectral import symmetric_eigh
from covector.linalg.vectors import Vectors, as_rows, check_symmetric, finite, multiply, probe_rows

__all__ = ["Eigen", "eigsh"]

WHICH = ("LA", "SA", "LM", "BE")


class Eigen(NamedTuple):
    """What :func:`eigsh` found.

    Attributes:
        values: float64 ``[k]``.
        vectors: orthonormal columns ``[n, k]``; their memory lies in rows, so that ``vectors.mT`` is contiguous.
        residuals: ``||A v - value v||`` up to rounding, float64 ``[k]``: so close to each value lies an eigenvalue.
        products: with the operator.
        converged: whether all residuals are below the tolerance.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    converged: bool


def eigsh(
    op: LinearOperator,
    k: int = 1,
    which: str = "LA",
    tol: float = 1e-3,
    start: Vectors | None = None,
    *,
    max_products: int | None = None,
    size: int | None = None,
    block: int = 1,
    seed: int = 0,
) -> Eigen:
    """``k`` eigenvalues at an end of the spectrum of a symmetric operator, with their vectors.

    Args:
        op: symmetric, ``n x n``.
        k: how many (default 1).
        which: ``"LA"`` largest (descending), ``"SA"`` smallest (ascending), ``"LM"`` largest in absolute value,
            ``"BE"`` half from each end, beginning with the largest and the smallest.
        tol: a pair is found when its residual is at most ``tol * |value|`` (default 1e-3); the error of the value is
            then about ``tol^2 * |value| * |value| / gap``. Near zero the norm of the operator times a power of the
            rounding error counts instead.
        start: the vectors of an earlier answer, ``[n]``, ``[n, j]`` or Params: for a slowly changing operator it takes
            ``k`` products and a few more. They are added up to ``block`` vectors. Default: normal random vectors.
        max_products: most products (default ``10 n``, at most 1000 and at least ``20 k``); then ``converged`` is False.
        size: rows of the basis (default ``max(2 k + 10, 20)``), which is the memory: ``size * n`` numbers.
        block: vectors multiplied at once (default 1, which needs the fewest products). An eigenvalue that occurs c
            times exactly, as in least squares with c outputs, is found c times for certain only by ``block >= c``.
        seed: of the random start.

    Returns:
        An :class:`Eigen`.

    Raises:
        ArgumentError: the operator is not symmetric; ``k`` not in 1 .. n; a ``size`` that leaves no room.
        MismatchError: ``start`` does not fit the operator.
        NonFiniteError: a product is NaN or infinite.

    Source: Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue problems" (2000).

    >>> from covector.linalg import DenseOperator
    >>> found = eigsh(DenseOperator(torch.diag(torch.arange(50.0))), k=2)
    >>> [round(value, 3) for value in found.values.tolist()], found.converged
    ([49.0, 48.0], True)
    """
    check_symmetric(op, "eigsh")
    check_choice("which", which, WHICH)
    n = op.shape[0]
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= n:
        raise ArgumentError("k", k, f"a whole number from 1 to n = {n}")
    check_steps(block, "block")
    if not 0.0 < tol < 1.0:
        raise ArgumentError("tol", tol, "a number between 0 and 1")
    block = min(block, n)
    size = min(n, max(2 * k + 10, 20, 4 * block) if size is None else size)
    if size < min(n, k + block + 1):
        raise ArgumentError("size", size, f"more than k + block = {k + block} rows of the basis")
    if max_products is None:
        max_products = max(min(10 * n, 1000), 20 * k)
    check_steps(max_products, "max_products")
    if start is None:
        first = probe_rows(op, block, seed, "eigsh", "normal")
    else:
        rows = as_rows(op, start, "start")[0]
        first = torch.stack([rows[i::block].sum(0) for i in range(min(block, len(rows)))])
    return _Search(op, k, which, tol, size, max_products, seed).run(first)


class _Search:
    """The basis, the projected matrix and the block to multiply next."""

    def __init__(
        self, op: LinearOperator, k: int, which: str, tol: float, size: int, max_products: int, seed: int
    ) -> None:
        self.op, self.k, self.which, self.tol = op, k, which, tol
        self.size, self.limit, self.seed = size, max_products, seed
        self.products, self.drawn = 0, 0
        self.scale = 0.0  # the largest Ritz value seen

    @torch.no_grad()
    def run(self, first: Tensor) -> Eigen:
        self.basis = first.new_zeros(self.size, first.shape[1])
        self.projected = torch.zeros(self.size, self.size, dtype=torch.float64)
        self.used = 0
        self.eps = torch.finfo(first.dtype).eps
        block, _ = self._orthonormal(first)
        while True:
            coupling, residual = self._multiply(block)
            full = self.used == self.size
            exhausted = self.used == self.basis.shape[1]  # all of R^n: no residual is left
            if self._due() or full or exhausted or self.products >= self.limit:
                values, small, wanted, errors = self._ritz(coupling, len(block))
                done = self.used >= self.k and bool((errors <= self._tolerance(values[wanted])).all())
                if done or exhausted or self.products >= self.limit:
                    rows = small[:, wanted].mT.to(self.basis) @ self.basis[: self.used]
                    rounding = self.eps * self.scale
                    return Eigen(values[wanted], rows.mT, errors.hypot(torch.tensor(rounding)), self.products, done)
                if self.used + len(residual) > self.size:
                    self._restart(values, small, len(residual))
            room = self.basis.shape[1] - self.used
            block = residual[:room]

    def _multiply(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """Append ``block`` to the basis; return the coupling ``[b', b]`` to the orthonormal residual ``[b', n]``."""
        start, self.used = self.used, self.used + len(block)
        self.basis[start : self.used] = block
        image = multiply(self.op, block)
        self.products += len(block)
        basis = self.basis[: self.used]
        part = image @ basis.mT
        left = image - part @ basis
        again = left @ basis.mT
        left -= again @ basis
        column = finite((part + again).double().cpu(), "eigsh")
        self.projected[start : self.used, : self.used] = column
        self.projected[: self.used, start : self.used] = column.mT
        self.scale = max(self.scale, float(torch.linalg.vector_norm(column, dim=1).max()))
        residual, triangle = self._orthonormal(left)
        return triangle, residual

    def _orthonormal(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Orthonormal rows Q and C with ``rows = C^T Q``; random directions where rows depend on each other."""
        q = rows.clone()
        triangle = torch.zeros(len(rows), len(rows), dtype=torch.float64)
        cutoff = BREAKDOWN * self.eps * self.scale
        for i in range(len(rows)):
            for _ in range(2 if i else 0):
                part = q[:i] @ q[i]
                q[i] -= part @ q[:i]
                triangle[:i, i] += part.double().cpu()
            length = float(norms(q[i]))
            if length > cutoff:
                triangle[i, i] = length
                q[i] /= length
            else:
                q[i] = self._fresh(torch.cat([self.basis[: self.used], q[:i]]))
        return q, triangle

    def _fresh(self, others: Tensor) -> Tensor:
        """A random unit vector orthogonal to ``others``; zero where they span everything."""
        n = others.shape[1]
        if len(others) >= n:
            return torch.zeros_like(others[0])
        self.drawn += 1
        vector = probe_rows(self.op, 1, self.seed, "eigsh-fresh", "normal", start=self.drawn)[0]
        for _ in range(2):
            vector = vector - (others @ vector) @ others
            vector = vector / norms(vector).to(vector)
        return vector

    def _due(self) -> bool:
        """An eigendecomposition a step would cost more than the products it saves."""
        return self.used >= self.k and (self.used - self.k) % max(1, self.k // 4) == 0

    def _ritz(self, coupling: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values, small = symmetric_eigh(self.projected[: self.used, : self.used])
        self.scale = max(self.scale, float(values.abs().max()))
        order = _order(values, self.which)
        wanted = order[: self.k]
        if self.used == self.basis.shape[1]:
            coupling = torch.zeros_like(coupling)
        errors = norms((coupling @ small[self.used - block : self.used, wanted]).mT)
        return values, small, wanted, errors

    def _tolerance(self, values: Tensor) -> Tensor:
        return self.tol * values.abs().clamp_min(self.eps ** (2 / 3) * self.scale)

    def _restart(self, values: Tensor, small: Tensor, block: int) -> None:
        """Keep the wanted Ritz vectors and half of the rest: their coupling to the residual comes with its product."""
        keep = min(self.k + (self.size - self.k) // 2, self.size - block)
        chosen = _order(values, self.which)[:keep]
        self.basis[:keep] = small[:, chosen].mT.to(self.basis) @ self.basis[: self.used]
        self.projected.zero_()
        self.projected[:keep, :keep] = torch.diag(values[chosen])
        self.used = keep


def _order(values: Tensor, which: str) -> Tensor:
    """Indices of ascending ``values``, the wanted ones first."""
    ascending = torch.arange(len(values))
    if which == "SA":
        return ascending
    if which == "LA":
        return ascending.flip(0)
    if which == "LM":
        return values.abs().argsort(descending=True, stable=True)
    both = torch.stack([ascending.flip(0), ascending], dim=1).reshape(-1)
    return both[: len(values)]
