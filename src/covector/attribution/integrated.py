"""Integrated gradients: along the straight line from a baseline to the input, shares that add up to the output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from covector.attribution.gradients import blocks, expand, row_gradients
from covector.attribution.selection import Function, Target, check_inputs, labels_of, select
from covector.errors import ArgumentError, MismatchError

__all__ = ["Integrated", "integrated_gradients"]


@dataclass(frozen=True)
class Integrated:
    """Shares of an output.

    Args:
        shares: as the input; positive where an element raises the output above the baseline's.
        difference: ``f(x) - f(baseline)`` of each example.
        gap: sum of the shares less ``difference``: the error of the quadrature; raise ``steps`` where it is large.
    """

    shares: Tensor
    difference: Tensor
    gap: Tensor


def integrated_gradients(
    f: Function,
    x: Tensor,
    target: Target = None,
    *,
    baseline: float | Tensor = 0.0,
    labels: Tensor | None = None,
    steps: int = 50,
    rule: str = "gauss",
    chunk: int = 64,
) -> Integrated:
    """``(x - b) * integral of grad f(b + a (x - b)) over a from 0 to 1``.

    Args:
        f: a module or a function of a batch.
        x: inputs ``[B, ...]``.
        target: which output, see :func:`select`.
        baseline: where the line begins: a number, or a tensor that broadcasts to ``x``.
        labels: what belongs to each example, for a ``target`` that is a function of both.
        steps: points on the line.
        rule: ``"gauss"`` (Gauss-Legendre: exact for polynomials of degree ``2 steps``), or ``"midpoint"``.
        chunk: at most so many points at a time, which bounds the memory.

    Returns:
        The shares, and how far they are from adding up.

    Raises:
        ArgumentError: ``steps``, ``rule`` or ``chunk`` out of range; and as :func:`input_gradient`.
        MismatchError: a baseline that does not broadcast to ``x``.
        CompositionError, UnsupportedError: as :func:`input_gradient`.

    Source: Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", 2017, equation 1.

    >>> found = integrated_gradients(lambda x: x.prod(1), torch.tensor([[2.0, 3.0]]), steps=2)
    >>> found.shares, found.difference
    (tensor([[3., 3.]]), tensor([6.]))
    """
    check_inputs(f, x)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ArgumentError("steps", steps, "a whole number of at least 1")
    own = labels_of(target, labels, x)
    start = torch.as_tensor(baseline, dtype=x.dtype, device=x.device)
    try:
        start = start.expand(x.shape)
    except RuntimeError:
        raise MismatchError(f"baseline of shape {tuple(start.shape)} for inputs of shape {tuple(x.shape)}") from None
    points, weights = _quadrature(rule, steps)
    line = x.detach() - start
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    total = torch.zeros_like(x, dtype=kind)
    for examples, chosen in blocks(len(x), steps, chunk):
        rows = torch.cat([start[examples] + points[k] * line[examples] for k in chosen])
        found = row_gradients(f, rows, target, expand(None if own is None else own[examples], len(chosen)))
        share = torch.tensor(weights[chosen.start : chosen.stop], dtype=kind, device=x.device)
        total[examples] += torch.tensordot(share, found.to(kind).unflatten(0, (len(chosen), -1)), 1)
    shares = total * line
    difference = _values(f, x.detach(), target, own, chunk) - _values(f, start, target, own, chunk)
    return Integrated(shares, difference, shares.flatten(1).sum(1) - difference)


def _quadrature(rule: str, steps: int) -> tuple[list[float], list[float]]:
    """Points in [0, 1] and weights that sum to one."""
    if rule == "midpoint":
        return [(k + 0.5) / steps for k in range(steps)], [1.0 / steps] * steps
    if rule == "gauss":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
    raise ArgumentError("rule", rule, "'gauss' or 'midpoint'")


@torch.no_grad()
def _values(f: Function, x: Tensor, target: Target, labels: Tensor | None, chunk: int) -> Tensor:
    parts = [
        select(f(x[examples]), target, None if labels is None else labels[examples])
        for examples, _ in blocks(len(x), 1, chunk)
    ]
    return torch.cat(parts)
