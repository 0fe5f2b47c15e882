"""Which minima stochastic gradient descent can stay at, by learning rate and batch size.

Near a minimum of every example's loss, with ``H_i`` the Hessians of the examples and ``H`` their mean, a step
multiplies the distance ``w`` by ``I - lr H_batch``. Its second moment ``X = E[w w^T]`` becomes

    T(X) = X - lr (H X + X H) + lr^2 Q(X),      Q(X) = h H X H + c S(X),      S(X) = 1/n sum_i H_i X H_i

with ``c = 1/B``, ``h = 1 - 1/B`` for batches drawn with replacement; without, ``c = (n - B) / (B (n - 1))``,
``h = 1 - c``; and ``c = 1/B - 1/n``, ``h = 1`` where each example is in with probability ``B/n`` (Bernoulli). The
minimum is stable in mean square exactly if no eigenvalue of ``T`` is above 1. Since ``T`` is self-adjoint, that is
``lr Q <= L`` with ``L(X) = H X + X H``: the largest stable learning rate is one over the largest eigenvalue of
``L^(-1/2) Q L^(-1/2)``, and every test matrix bounds it from above; the identity gives the trace bounds.

All of it is in the span of the examples' gradients, whose Gram matrix suffices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from covector.curvature import gram
from covector.errors import ArgumentError
from covector.linalg import FunctionOperator, eigsh, symmetric_eigh
from covector.objective import Batch, Objective

__all__ = ["Sampling", "Stability", "stability"]

Sampling = Literal["without_replacement", "with_replacement", "bernoulli"]


@dataclass(frozen=True)
class Stability:
    """The stability of stochastic gradient descent at a minimum.

    Args:
        factors: float64 ``[n, R, r]``: ``H_i = A_i^T A_i`` in any orthonormal coordinates.

    >>> minimum = Stability(torch.eye(4, dtype=torch.float64)[:, None])  # four orthogonal examples
    >>> [round(minimum.max_lr(size), 6) for size in (1, 2, 4)]
    [2.0, 4.0, 8.0]
    """

    factors: Tensor

    @classmethod
    def from_factors(cls, factors: Tensor) -> Stability:
        """From factors ``[n, d]`` (``H_i = g_i g_i^T``) or ``[n, R, d]`` (``H_i = sum_c b_ic b_ic^T``), of any ``d``.

        >>> Stability.from_factors(torch.tensor([[3.0, 4.0]])).sharpness
        25.0
        """
        if factors.ndim not in (2, 3):
            raise ArgumentError("factors", tuple(factors.shape), "a shape [n, d] or [n, R, d]")
        rows = factors.detach().double().reshape(len(factors), -1, factors.shape[-1])
        flat = rows.flatten(0, 1)
        return cls.from_gram(flat @ flat.mT, len(factors))

    @classmethod
    def from_gram(cls, matrix: Tensor, count: int) -> Stability:
        """From the Gram matrix ``[n R, n R]`` of the factors of ``count`` examples, one example after the other.

        Raises:
            ArgumentError: its size is no multiple of ``count``, or it is zero.

        >>> Stability.from_gram(torch.eye(3), 3).trace
        1.0
        """
        if count < 1 or matrix.shape[-1] % count:
            raise ArgumentError("count", count, f"a divisor of {matrix.shape[-1]}, the size of the matrix")
        values, vectors = symmetric_eigh(matrix.detach().double())
        kept = values > len(values) * torch.finfo(matrix.dtype).eps * values[-1]
        if not bool(kept.any()) or float(values[-1]) <= 0.0:
            raise ArgumentError("matrix", 0.0, "one that is not zero: these examples have no curvature")
        rows = vectors[:, kept] * values[kept].sqrt()
        return cls(rows.view(count, -1, rows.shape[1]))

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.factors)

    @property
    def eigenvalues(self) -> Tensor:
        """The non-zero ones of ``H``, ascending; the coordinates of ``factors`` need not be its eigenvectors."""
        return torch.linalg.eigvalsh(self._mean())

    @property
    def sharpness(self) -> float:
        """The largest eigenvalue of ``H``."""
        return float(self.eigenvalues[-1])

    @property
    def trace(self) -> float:
        """The trace of ``H``."""
        return float(self.factors.square().sum()) / self.count

    @property
    def frobenius2(self) -> float:
        """The squared Frobenius norm of ``H``."""
        return float(self._mean().square().sum())

    @property
    def coherence(self) -> float:
        """``lambda_1(S) / max_i lambda_1(H_i)``, ``S_ij = ||H_i^(1/2) H_j^(1/2)||_F``.

        From 1, for orthogonal examples, to n, for equal ones, if each has one output.

        Source: Dexter et al., "A precise characterization of SGD stability using loss surface geometry",
        arXiv:2401.12332, definition 1.
        """
        flat = self.factors.flatten(0, 1)
        shape = (self.count, self.factors.shape[1], self.count, self.factors.shape[1])
        blocks = (flat @ flat.mT).view(shape).permute(0, 2, 1, 3)
        alone = torch.linalg.eigvalsh(blocks.diagonal().permute(2, 0, 1))[:, -1].max()
        return float(torch.linalg.eigvalsh(blocks.square().sum((2, 3)).sqrt())[-1] / alone)

    def radius(
        self, lr: float, batch_size: int, sampling: Sampling = "without_replacement", tol: float = 1e-6
    ) -> float:
        """The spectral radius of ``T``: the factor of ``E ||w||^2`` a step, in the end; stable up to 1.

        Args:
            lr: learning rate.
            batch_size: examples a step.
            sampling: how batches are drawn.
            tol: of the eigenvalue, relative.

        Source: Mulayoff, Michaeli, "Exact mean square linear stability analysis for SGD", arXiv:2306.07850; for
        Bernoulli batches the operator of arXiv:2401.12332.

        >>> minimum = Stability(torch.eye(4, dtype=torch.float64)[:, None])
        >>> round(minimum.radius(2.0, 1), 6)
        1.0
        """
        c, h = self._weights(batch_size, sampling)
        mean = self._mean()
        keep = torch.eye(len(mean), dtype=mean.dtype, device=mean.device) - lr * mean

        def moment(x: Tensor) -> Tensor:
            # (1 - h) is what the drawn batches lack of the square of the mean
            return keep @ x @ keep + lr**2 * (c * self._spread(x) - (1 - h) * mean @ x @ mean)

        return self._largest(moment, tol)

    def max_lr(self, batch_size: int, sampling: Sampling = "without_replacement", tol: float = 1e-6) -> float:
        """The largest learning rate at which the minimum is stable in mean square, exactly.

        Args:
            batch_size: examples a step.
            sampling: how batches are drawn.
            tol: of the answer, relative.

        >>> minimum = Stability.from_factors(torch.tensor([[1.0], [1.0]]))
        >>> round(minimum.max_lr(1), 6), round(minimum.max_lr(1, "bernoulli"), 6)
        (2.0, 1.333333)
        """
        c, h = self._weights(batch_size, sampling)
        values, vectors = torch.linalg.eigh(self._mean())
        own = self.factors @ vectors
        scale = (values[:, None] + values).rsqrt()

        def ratio(x: Tensor) -> Tensor:
            x = scale * x
            return scale * (h * values[:, None] * x * values + c * _spread(own, x))

        return 1.0 / self._largest(ratio, tol)

    def bounds(self, batch_size: int, sampling: Sampling = "without_replacement") -> dict[str, float]:
        """Upper bounds on :meth:`max_lr`, which cost nothing once there is a Gram matrix.

        Returns:
            ``"gradient_descent"``: ``2 / lambda_1``. ``"trace"``: ``2 R / (c Tr H)``, for batches with replacement and
            one output ``2 B / Tr H``. ``"frobenius"``: ``2 Tr H / (h ||H||_F^2)``. ``"identity"``:
            ``2 Tr H / Tr Q(I)``, of which these two are weaker forms. ``"coherence"``:
            ``sigma / (lambda_1 sqrt(n/B - 1))``, for Bernoulli batches only.

        Source: Wu, Su, "The implicit regularization of dynamical stability in stochastic gradient descent",
        arXiv:2305.17490; the last: arXiv:2401.12332, theorem 1.

        >>> bounds = Stability(torch.eye(4, dtype=torch.float64)[:, None]).bounds(1, "with_replacement")
        >>> {name: round(value, 6) for name, value in bounds.items()}
        {'gradient_descent': 8.0, 'trace': 2.0, 'frobenius': inf, 'identity': 2.0}
        """
        c, h = self._weights(batch_size, sampling)
        trace, squared = self.trace, self.frobenius2
        each = float((self.factors @ self.factors.mT).square().sum()) / self.count
        found = {
            "gradient_descent": 2.0 / self.sharpness,
            "trace": _over(2.0 * self.factors.shape[1], c * trace),
            "frobenius": _over(2.0 * trace, h * squared),
            "identity": 2.0 * trace / (c * each + h * squared),
        }
        if sampling == "bernoulli":
            spread = math.sqrt(self.count / batch_size - 1.0)
            found["coherence"] = _over(self.coherence, self.sharpness * spread)
        return found

    def _mean(self) -> Tensor:
        flat = self.factors.flatten(0, 1)
        return flat.mT @ flat / self.count

    def _spread(self, x: Tensor) -> Tensor:
        return _spread(self.factors, x)

    def _largest(self, function: Callable[[Tensor], Tensor], tol: float) -> float:
        r = self.factors.shape[2]
        op = FunctionOperator(
            lambda v: function(v.view(r, r)).flatten(), (r * r, r * r),
            dtype=torch.float64, device=self.factors.device, symmetric=True,
        )  # fmt: skip
        # a positive map has its largest eigenvalue on a positive matrix, which the identity always meets
        start = torch.eye(r, dtype=torch.float64, device=self.factors.device).flatten()
        return float(eigsh(op, 1, "LA", tol=tol, start=start).values[0])

    def _weights(self, batch_size: int, sampling: Sampling) -> tuple[float, float]:
        n = self.count
        if sampling not in get_args(Sampling):
            raise ArgumentError("sampling", sampling, f"one of {get_args(Sampling)}")
        if batch_size < 1 or (batch_size > n and sampling != "with_replacement"):
            raise ArgumentError("batch_size", batch_size, f"a whole number from 1 to {n}")
        if sampling == "bernoulli":
            return 1.0 / batch_size - 1.0 / n, 1.0
        c = 1.0 / batch_size if sampling == "with_replacement" else (n - batch_size) / (batch_size * max(n - 1, 1))
        return c, 1.0 - c


def stability(objective: Objective, batch: Batch) -> Stability:
    """The stability of stochastic gradient descent on ``batch`` at the parameters of ``objective``.

    The Hessians of the examples are their Gauss-Newton matrices, which they are at a minimum of each example's loss;
    away from one, the answer is of the linearized model.

    Args:
        objective: made from a module; the loss is a mean over examples and convex in the outputs.
        batch: all training examples, or a sample of at most a few hundred outputs.

    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> objective = Objective(line, torch.nn.functional.mse_loss)
    >>> minimum = stability(objective, (torch.eye(2), torch.zeros(2, 1)))  # H_i = 2 e_i e_i^T
    >>> round(minimum.max_lr(1), 6), round(minimum.max_lr(2), 6)
    (1.0, 2.0)
    """
    count = objective.size(batch)
    return Stability.from_gram(gram(objective, batch, "gauss_newton") * count, count)


def _spread(factors: Tensor, x: Tensor) -> Tensor:
    """``1/n sum_i H_i X H_i``."""
    inner = factors @ x @ factors.mT  # [n, R, R]
    return factors.flatten(0, 1).mT @ (inner @ factors).flatten(0, 1) / len(factors)


def _over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0.0 else math.inf
