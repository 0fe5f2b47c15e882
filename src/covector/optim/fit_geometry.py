"""How a factor Q of a preconditioner moves when a pair is seen: the geometries of PSGD's fitting.

The criterion ``h^T P h + v^T P^{-1} v`` falls along ``E = A - B``, two positive matrices, by a step that is relative to
Q, so that there is no unit to choose: ``rate`` is the learning rate over the norm of ``A + B``.

| geometry | P | A, B of the pair | step |
| --- | --- | --- | --- |
| EQ | Q^T Q, Q upper triangular | a = Qh, b = Q^{-T} v | Q - rate triu(E) Q |
| GL | Q^T Q | as EQ | Q - rate E Q |
| QEQ | Q^T Q | a = Ph, b = v | Q - rate Q E |
| Q0.5EQ1.5 | Q^T Q | a = Ph, b = v | Q - rate E Q, then turned towards symmetry |
| QUAD | Q^2 | a = Ph, b = v | Q - rate/2 (E Q), again from the right, symmetrized |
| QEP | Q^T Q | a = QPh, b = Qv | Q - rate E Q |
| QUAD4P, PRO4P | Q | a = Ph, b = v | QUAD at the whole rate, Q0.5EQ1.5 turned further |

with ``A = aa^T`` and ``B = bb^T``. Diagonal factors move by the same formulas, number by number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.norm_bound import norm_bound

__all__ = ["GEOMETRIES", "Geometry", "geometry_named"]

# a factor, E, the rate, and random rows for the norm of a skew part
Move = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
DiagonalMove = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Geometry:
    """One way to move a factor.

    Args:
        name: as the papers write it.
        move: ``(q [batch, n, n], e, rate [batch, 1, 1], probes) -> q``.
        diagonal: the same for diagonal factors ``[batch, n]``.
        squared: P is ``Q^T Q``; otherwise the factor is P itself.
        inverse: the pair is ``(Qh, Q^{-T} v)``, which takes a solve; otherwise ``(Ph, v)``.
        triangular: Q stays upper triangular.
        conjugated: A and B are taken from both sides by Q.

    >>> GEOMETRIES["EQ"].triangular
    True
    """

    name: str
    move: Move
    diagonal: DiagonalMove
    squared: bool = True
    inverse: bool = False
    triangular: bool = False
    conjugated: bool = False


def left(q: Tensor, e: Tensor, rate: Tensor, probes: Tensor) -> Tensor:
    """``Q - rate E Q``."""
    return q - rate * (e @ q)


def right(q: Tensor, e: Tensor, rate: Tensor, probes: Tensor) -> Tensor:
    """``Q - rate Q E``."""
    return q - rate * (q @ e)


def triangular(q: Tensor, e: Tensor, rate: Tensor, probes: Tensor) -> Tensor:
    """``Q - rate triu(E) Q``: a step in the group of upper triangular matrices."""
    return q - rate * (e.triu() @ q)


def turned_left(q: Tensor, e: Tensor, rate: Tensor, probes: Tensor) -> Tensor:
    """``Q - rate E Q``, then one turn that does not change ``Q^T Q``."""
    return turn(left(q, e, rate, probes), probes)


def quadratic(q: Tensor, e: Tensor, rate: Tensor, probes: Tensor) -> Tensor:
    """Half a step from either side; stays symmetric, and positive for rates below 2."""
    q = q - rate / 2 * (e @ q)
    q = q - rate / 2 * (q @ e)
    return (q + q.mT) / 2


def whole_quadratic(q: Tensor, e: Tensor, rate: Tensor, probes: Tensor) -> Tensor:
    """:func:`quadratic` at twice the rate, for a factor that is P itself."""
    return quadratic(q, e, 2 * rate, probes)


def whole_turned(q: Tensor, e: Tensor, rate: Tensor, probes: Tensor) -> Tensor:
    """``P - rate E P`` turned until it is nearly symmetric, in ten turns at most."""
    q = left(q, e, rate, probes)
    for _ in range(10):
        skew = (q.mT - q).abs().amax()
        if bool(skew <= torch.finfo(q.dtype).eps ** 0.5 * q.abs().amax()):
            break
        q = turn(q, probes, limit=0.375, third=True)
    return q


def turn(q: Tensor, probes: Tensor, limit: float = 0.125, third: bool = False) -> Tensor:
    """Q times an orthogonal matrix, to second or third order, that brings it closer to a symmetric positive one.

    ``exp(s R) Q`` with ``R = (Q^T - Q) / ||Q^T - Q||``, and s where ``tr(exp(s R) Q)`` is largest, at most ``limit``.
    """
    skew = q.mT - q
    tiny = torch.finfo(q.dtype).tiny
    r = skew / norm_bound(skew, probes).clamp(min=tiny)[:, None, None]
    rq = r @ q
    rrq = r @ rq
    slope, curvature = (x.diagonal(dim1=-2, dim2=-1).sum(-1) for x in (rq, rrq))
    best = (-slope / curvature.clamp(max=-tiny)).clamp(0.0, limit)
    s = torch.where(curvature < 0, best, limit)[:, None, None]
    turned = torch.addcmul(q + s * rq, s * s / 2, rrq)
    return turned + s**3 / 6 * (r @ rrq) if third else turned


def scaled(q: Tensor, e: Tensor, rate: Tensor) -> Tensor:
    """``q - rate e q``."""
    return q - rate * e * q


def twice_scaled(q: Tensor, e: Tensor, rate: Tensor) -> Tensor:
    """:func:`quadratic` of a diagonal."""
    return q * (1 - rate / 2 * e).square()


def whole_twice_scaled(q: Tensor, e: Tensor, rate: Tensor) -> Tensor:
    """:func:`whole_quadratic` of a diagonal."""
    return q * (1 - rate * e).square()


GEOMETRIES = {
    found.name: found
    for found in (
        Geometry("EQ", triangular, scaled, inverse=True, triangular=True),
        Geometry("GL", left, scaled, inverse=True),
        Geometry("QEQ", right, scaled),
        Geometry("Q0.5EQ1.5", turned_left, scaled),
        Geometry("QUAD", quadratic, twice_scaled),
        Geometry("QEP", left, scaled, conjugated=True),
        Geometry("QUAD4P", whole_quadratic, whole_twice_scaled, squared=False),
        Geometry("PRO4P", whole_turned, scaled, squared=False),
    )
}


def geometry_named(name: str) -> Geometry:
    """The geometry of that name.

    Raises:
        ArgumentError: there is none.

    >>> geometry_named("QUAD").squared
    True
    """
    if name not in GEOMETRIES:
        raise ArgumentError("geometry", name, "one of " + ", ".join(GEOMETRIES))
    return GEOMETRIES[name]
