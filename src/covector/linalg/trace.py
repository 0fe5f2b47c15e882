"""Traces, diagonals and Frobenius norms of an operator by products with random vectors, with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.linalg.checks import check_choice, check_steps
from covector.linalg.operator import LinearOperator
from covector.linalg.vectors import finite, multiply, probe_rows

__all__ = ["Estimated", "diagonal", "estimated", "frobenius2", "trace"]

METHODS = ("hutchinson", "hutch++", "xtrace")
CHUNK = 16  # vectors multiplied at once
T = TypeVar("T", float, Tensor)


class Estimated(NamedTuple, Generic[T]):
    """A random estimate: ``value``, and ``error``, its standard error (NaN where one sample cannot tell)."""

    value: T
    error: T


def estimated(samples: Tensor) -> Estimated[float]:
    """The mean of samples ``[m]`` and its standard error."""
    error = float(samples.std()) / math.sqrt(len(samples)) if len(samples) > 1 else math.nan
    return Estimated(float(samples.mean()), error)


@torch.no_grad()
def trace(op: LinearOperator, products: int = 64, method: str = "hutchinson", seed: int = 0) -> Estimated[float]:
    """An unbiased estimate of the trace from at most ``products`` products.

    ``hutchinson`` averages ``z^T A z`` over random signs: its variance is twice the sum of the squared elements off
    the diagonal, over ``products``. ``hutch++`` spends a third on the dominant subspace, takes the trace there exactly
    and samples only the rest. ``xtrace`` spends half, and lets every vector be the one left out in turn. The last two
    win where eigenvalues decay, from about 15 products on; on a flat spectrum they waste what they spend.

    Args:
        op: square, ``n x n``; need not be symmetric.
        products: vectors multiplied (default 64): at least 1, 3 and 4.
        method: ``"hutchinson"`` (default), ``"hutch++"`` or ``"xtrace"``.
        seed: of the probes.

    Returns:
        An :class:`Estimated`.

    Raises:
        ArgumentError: an unknown method, or too few products for it.
        MismatchError: the operator is not square.
        NonFiniteError: a product is NaN or infinite.

    Source: Hutchinson (1989); Meyer, Musco, Musco, Woodruff, "Hutch++" (2021); Epperly, Tropp, Webber, "XTrace"
    (2024), Algorithm 1.1.

    >>> from covector.linalg import DenseOperator
    >>> trace(DenseOperator(torch.diag(torch.tensor([1.0, 2.0, 3.0]))), products=2)
    Estimated(value=6.0, error=0.0)
    """
    if op.shape[0] != op.shape[1]:
        raise MismatchError(f"a trace needs a square operator, this one has shape {op.shape}")
    check_choice("method", method, METHODS)
    least = {"hutchinson": 1, "hutch++": 3, "xtrace": 4}[method]
    check_steps(products, "products")
    if products < least:
        raise ArgumentError("products", products, f"at least {least} for {method}")
    if method == "hutchinson":
        samples = [inner(z, image) for z, image in _probed(op, products, seed)]
        return estimated(finite(torch.cat(samples), "trace"))
    return _hutch_plus_plus(op, products // 3, seed) if method == "hutch++" else _xtrace(op, products // 2, seed)


@torch.no_grad()
def frobenius2(op: LinearOperator, probes: int = 64, seed: int = 0) -> Estimated[float]:
    """The squared Frobenius norm, ``E ||A z||^2`` over random signs z; for a symmetric operator ``sum eigenvalue^2``.

    Args:
        op: ``m x n``.
        probes: products (default 64).
        seed: of the probes.

    >>> from covector.linalg import DenseOperator
    >>> frobenius2(DenseOperator(torch.diag(torch.tensor([1.0, 2.0]))), probes=2).value
    5.0
    """
    check_steps(probes, "probes")
    return estimated(finite(torch.cat([inner(y, y) for _, y in _probed(op, probes, seed)]), "frobenius2"))


@torch.no_grad()
def diagonal(op: LinearOperator, probes: int = 64, seed: int = 0) -> Estimated[Tensor]:
    """An unbiased estimate of the diagonal, the mean of ``z * (A z)`` over random signs z.

    The variance of element i is the sum of the squares of row i off the diagonal, over ``probes``: exact for a
    diagonal operator, and slow for one that is far from it.

    Args:
        op: square, ``n x n``.
        probes: products (default 64).
        seed: of the probes.

    Returns:
        An :class:`Estimated` of tensors ``[n]``.

    Raises:
        MismatchError: the operator is not square.

    Source: Bekas, Kokiopoulou, Saad, "An estimator for the diagonal of a matrix" (2007).

    >>> from covector.linalg import DenseOperator
    >>> diagonal(DenseOperator(torch.diag(torch.tensor([1.0, 2.0]))), probes=2).value.tolist()
    [1.0, 2.0]
    """
    if op.shape[0] != op.shape[1]:
        raise MismatchError(f"a diagonal needs a square operator, this one has shape {op.shape}")
    check_steps(probes, "probes")
    total = torch.zeros(op.shape[0], dtype=torch.float64, device=op.device)
    squares = torch.zeros_like(total)
    for z, image in _probed(op, probes, seed):
        samples = z.double() * image.double()
        total += samples.sum(0)
        squares += samples.square().sum(0)
    mean = finite(total, "diagonal") / probes
    spread = (squares / probes - mean.square()).clamp_min(0.0) / max(probes - 1, 1)
    return Estimated(mean, spread.sqrt() if probes > 1 else torch.full_like(mean, math.nan))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of rows, accumulated in float64."""
    return (a * b).sum(-1, dtype=torch.float64)


def _probed(op: LinearOperator, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, count, CHUNK):
        rows = probe_rows(op, min(CHUNK, count - start), seed, "trace", start=start)
        yield rows, multiply(op, rows)


def _all_probed(op: LinearOperator, count: int, seed: int) -> tuple[Tensor, Tensor]:
    pairs = list(_probed(op, count, seed))
    return torch.cat([z for z, _ in pairs]), finite(torch.cat([image for _, image in pairs]), "trace")


def _hutch_plus_plus(op: LinearOperator, count: int, seed: int) -> Estimated[float]:
    count = min(count, op.shape[0])
    _, images = _all_probed(op, count, seed)
    basis = torch.linalg.qr(images.mT)[0].mT
    exact = float(inner(basis, multiply(op, basis)).sum())
    rest = probe_rows(op, count, seed, "trace", start=count)
    for _ in range(2):
        rest = rest - (rest @ basis.mT) @ basis
    samples = inner(rest, multiply(op, rest))
    mean, error = estimated(finite(samples, "trace"))
    return Estimated(exact + mean, error)


def _xtrace(op: LinearOperator, count: int, seed: int) -> Estimated[float]:
    """All leave-one-out estimates at once: with ``s_i`` the direction of Q that only vector i brought.

    Without vector i the basis is ``Q (I - s_i s_i^T)``; what is left of vector i outside of that basis samples the
    rest. In small matrices ``H = Q^T A Q``, ``W = Q^T Z``, ``T = (A Q)^T Z``, the columns of ``X`` are the
    coordinates of vector i in its own basis.
    """
    count = min(count, op.shape[0])
    z, images = _all_probed(op, count, seed)
    q, r = torch.linalg.qr(images.mT)
    rows, r = q.mT.contiguous(), r.double()
    image = multiply(op, rows)
    h = (rows @ image.mT).double()
    total = h.diagonal().sum()
    pivots = r.diagonal().abs()
    eps = torch.finfo(images.dtype).eps
    if count == op.shape[0] or float(pivots.min()) <= 10 * count * eps * float(pivots.max()):  # Q spans the range of A
        return Estimated(float(finite(total, "trace")), 0.0)
    w, t = (rows @ z.mT).double(), (image @ z.mT).double()
    eye = torch.eye(count, dtype=r.dtype, device=r.device)
    s = torch.linalg.solve_triangular(r, eye, upper=True).mT
    s = s / torch.linalg.vector_norm(s, dim=0)
    x = w - s * (s * w).sum(0)
    inside = total - (s * (h @ s)).sum(0)
    outside = inner(z, images) - (x * (t + r)).sum(0) + (x * (h @ x)).sum(0)  # Q^T A Z is R
    return estimated(finite(inside + outside, "trace"))
