"""The spectrum of a curvature operator as a bulk near zero and a few outliers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.linalg import Estimated, LinearOperator, Spectrum, slq

__all__ = ["Outliers", "near_zero", "outliers", "spectrum"]

DENSE = 2000  # rows up to which all eigenvalues take less time than a good quadrature


class Outliers(NamedTuple):
    """Where the eigenvalues part.

    Attributes:
        number: of eigenvalues above the widest gap.
        ratio: the last of them divided by the next.
        values: the outliers, float64 ``[number]``, descending.
    """

    number: int
    ratio: float
    values: Tensor


def spectrum(op: LinearOperator, method: str = "auto", probes: int = 4, steps: int = 64, seed: int = 0) -> Spectrum:
    """All eigenvalues of a symmetric operator where that is affordable, else their density by quadrature.

    Args:
        op: symmetric, such as a :class:`~covector.curvature.Hessian`.
        method: ``"dense"`` (n products and a decomposition, exact), ``"slq"``, or ``"auto"`` (default): dense up to
            n = 2000.
        probes: of slq; see :func:`covector.linalg.slq`.
        steps: of slq.
        seed: of slq.

    Returns:
        A :class:`covector.linalg.Spectrum`.

    Raises:
        ArgumentError: an unknown method, or an operator that is not symmetric.

    Source: Sagun, Evci, Guney, Dauphin, Bottou, "Empirical analysis of the Hessian of over-parametrized neural
    networks" (2017).

    >>> from covector.linalg import DenseOperator
    >>> spectrum(DenseOperator(torch.diag(torch.tensor([3.0, 1.0])))).nodes
    tensor([[1., 3.]], dtype=torch.float64)
    """
    if method not in ("auto", "dense", "slq"):
        raise ArgumentError("method", method, "'auto', 'dense' or 'slq'")
    if method == "slq" or (method == "auto" and op.shape[0] > DENSE):
        return slq(op, probes, steps, seed)
    if not op.symmetric:
        raise ArgumentError("op.symmetric", op.symmetric, "a symmetric operator (symmetric=True says so)")
    matrix = op.dense().double()
    return Spectrum.exact(torch.linalg.eigvalsh((matrix + matrix.mT) / 2))


def outliers(values: Tensor, among: int) -> Outliers:
    """The eigenvalues above the largest relative gap, looked for behind each of the first ``among`` of them.

    Args:
        values: eigenvalues in any order, such as those of :func:`covector.linalg.eigsh`; at least ``among + 1``.
        among: how many outliers there may be at most, such as twice the number of classes.

    Returns:
        An :class:`Outliers`. Gaps are ratios of positive eigenvalues.

    Raises:
        ArgumentError: ``among`` below 1.
        MismatchError: too few positive eigenvalues.

    >>> outliers(torch.tensor([9.0, 0.5, 8.0, 0.4, 0.3]), among=3)[:2]
    (2, 16.0)
    """
    if among < 1:
        raise ArgumentError("among", among, "a whole number of at least 1")
    ordered = values.detach().double().reshape(-1).sort(descending=True).values[: among + 1]
    if len(ordered) < among + 1 or float(ordered[-1]) <= 0:
        positive = int((ordered > 0).sum())
        raise MismatchError(
            f"values has {positive} positive eigenvalues of the {among + 1} that among={among} asks for"
        )
    ratios = ordered[:-1] / ordered[1:]
    last = int(ratios.argmax())
    return Outliers(last + 1, float(ratios[last]), ordered[: last + 1])


def near_zero(spectrum: Spectrum, relative: float = 1e-3) -> Estimated[float]:
    """The fraction of the eigenvalues that are smaller in size than ``relative`` times the largest.

    >>> near_zero(Spectrum.exact(torch.tensor([0.0, 1e-5, -1e-5, 1.0]))).value
    0.75
    """
    limit = relative * float(spectrum.nodes.abs().max())
    return spectrum.mean(lambda x: (x.abs() < limit).to(x))
