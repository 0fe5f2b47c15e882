"""Stochastic Lanczos quadrature: the spectral density of an operator from a few random vectors.

A Lanczos run from v is a Gauss quadrature of the measure that v sees: nodes are the eigenvalues of T, weights the
squared first components of its eigenvectors, and polynomials up to degree 2m - 1 are integrated exactly. For random v
that measure is, on average, the spectral density.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.linalg.checks import check_steps
from covector.linalg.lanczos import lanczos_rows, tridiagonal
from covector.linalg.operator import LinearOperator
from covector.linalg.spectral import symmetric_eigh
from covector.linalg.trace import Estimated, estimated
from covector.linalg.vectors import check_symmetric, probe_rows

__all__ = ["Spectrum", "slq"]


@dataclass(frozen=True)
class Spectrum:
    """A spectral density as weighted points, one set for each probe.

    Args:
        nodes: float64 ``[probes, m]``.
        weights: float64 ``[probes, m]``, each row sums to one.
        size: n, the number of eigenvalues.

    >>> Spectrum(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]]), size=4).moment(2).value
    5.0
    """

    nodes: Tensor
    weights: Tensor
    size: int

    @classmethod
    def exact(cls, values: Tensor) -> Spectrum:
        """The spectrum whose eigenvalues ``[n]`` are all known.

        >>> Spectrum.exact(torch.tensor([1.0, 2.0])).logdet().value == math.log(2.0)
        True
        """
        values = values.detach().double().cpu().sort().values
        return cls(values[None], torch.full_like(values, 1.0 / len(values))[None], len(values))

    def mean(self, function: Callable[[Tensor], Tensor]) -> Estimated[float]:
        """The mean of ``function(eigenvalue)``, that is ``tr f(A) / n``, with its standard error over the probes."""
        return estimated((function(self.nodes) * self.weights).sum(-1))

    def moment(self, p: int) -> Estimated[float]:
        """``tr(A^p) / n``; up to ``p = 2m - 1`` the only error is that of the probes."""
        return self.mean(lambda x: x**p)

    def trace(self) -> Estimated[float]:
        """``tr(A)``."""
        return _times(self.size, self.moment(1))

    def fraction_below(self, threshold: float) -> Estimated[float]:
        """The fraction of the eigenvalues that are at most ``threshold``."""
        return self.mean(lambda x: (x <= threshold).to(x))

    def logdet(self, shift: float = 0.0) -> Estimated[float]:
        """``log det(A + shift I)``.

        Raises:
            ArgumentError: a node of the spectrum is not above ``-shift``.
        """
        lowest = float(self.nodes.min())
        if lowest + shift <= 0:
            raise ArgumentError("shift", shift, f"more than {-lowest:.3g}: the spectrum reaches {lowest:.3g}")
        return _times(self.size, self.mean(lambda x: (x + shift).log()))

    def effective_dim(self, ridge: float) -> Estimated[float]:
        """``tr(A (A + ridge I)^-1)``: how many directions curvature larger than ``ridge`` determines (A positive)."""
        if ridge <= 0:
            raise ArgumentError("ridge", ridge, "a positive number")
        return _times(self.size, self.mean(lambda x: x.clamp_min(0.0) / (x.clamp_min(0.0) + ridge)))

    def density(self, grid: Tensor, sigma: float | None = None) -> Tensor:
        """The density ``[len(grid)]``, each node as a Gaussian of standard deviation ``sigma``; integrates to one.

        Args:
            grid: where to evaluate, ``[g]``.
            sigma: default: a hundredth of the range of the nodes.
        """
        return self._smooth(grid, sigma).mean(0)

    def density_error(self, grid: Tensor, sigma: float | None = None) -> Tensor:
        """The standard error of :meth:`density` over the probes, ``[len(grid)]``; NaN for a single probe."""
        each = self._smooth(grid, sigma)
        return each.std(0) / math.sqrt(len(each)) if len(each) > 1 else torch.full_like(each[0], math.nan)

    def quantile(self, q: float) -> float:
        """The eigenvalue below which the fraction ``q`` of them lies, by the pooled weights of all probes."""
        if not 0.0 <= q <= 1.0:
            raise ArgumentError("q", q, "a fraction between 0 and 1")
        nodes, order = self.nodes.reshape(-1).sort()
        mass = (self.weights.reshape(-1)[order] / len(self.nodes)).cumsum(0)
        return float(nodes[min(int(torch.searchsorted(mass, q - 1e-12)), len(nodes) - 1)])

    def _smooth(self, grid: Tensor, sigma: float | None) -> Tensor:
        if sigma is None:
            sigma = max(float(self.nodes.max() - self.nodes.min()) / 100, torch.finfo(torch.float64).tiny)
        if sigma <= 0:
            raise ArgumentError("sigma", sigma, "a positive number")
        distance = (grid.to(self.nodes)[:, None, None] - self.nodes) / sigma
        bells = torch.exp(-0.5 * distance**2) / (sigma * math.sqrt(2 * math.pi))
        return (bells * self.weights).sum(-1).mT


def slq(op: LinearOperator, probes: int = 4, steps: int = 64, seed: int = 0) -> Spectrum:
    """The spectral density of a symmetric operator, by ``probes * steps`` products.

    Args:
        op: symmetric, ``n x n``.
        probes: random sign vectors (default 4); error bars need at least two. All run side by side and keep
            ``probes * steps * n`` numbers.
        steps: of Lanczos for each (default 64): how finely the density is resolved.
        seed: of the probes.

    Returns:
        A :class:`Spectrum`.

    Raises:
        ArgumentError: the operator is not symmetric, ``probes`` or ``steps`` below 1.
        NonFiniteError: a product is NaN or infinite.

    Source: Ubaru, Chen, Saad, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature" (2017); Golub and
    Meurant (2010), "Matrices, moments and quadrature".

    >>> from covector.linalg import DenseOperator
    >>> spectrum = slq(DenseOperator(torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))), steps=4)
    >>> round(spectrum.moment(2).value, 4), round(spectrum.fraction_below(2.5).value, 4)
    (7.5, 0.5)
    """
    check_symmetric(op, "slq")
    check_steps(probes, "probes")
    check_steps(steps)
    starts = probe_rows(op, probes, seed, "slq")
    alpha, beta, _, _ = lanczos_rows(op, starts, steps)
    nodes, vectors = symmetric_eigh(tridiagonal(alpha, beta))
    return Spectrum(nodes.cpu(), vectors[:, 0].square().cpu(), op.shape[0])


def _times(size: int, estimate: Estimated[float]) -> Estimated[float]:
    return Estimated(size * estimate.value, size * estimate.error)
