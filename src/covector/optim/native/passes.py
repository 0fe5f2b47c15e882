"""Run a compiled rule over many tensors: one table of addresses, one call a thread, no per-tensor Python work."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from covector.kernels.cpu.threads import split
from covector.optim.native.compile import TAGS, compiled
from covector.optim.rule import Rule

__all__ = ["run"]

# elements of a row: long tensors are cut, so that threads share them
_PIECE = 1 << 16


def run(
    rule: Rule,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    out: Sequence[Tensor],
    states: Sequence[Sequence[Tensor]],
    coefficients: Sequence[float],
    factors: Sequence[tuple[Any, Any, Any, Any]],
) -> None:
    """``out = keep * p - step * rule(sign * g + decay * p)`` for each tensor, states updated in place.

    Args:
        rule: what to do.
        params: tensors of one dtype on the CPU, each dense, its gradient, out and states laid out alike.
        grads: their gradients.
        out: where results go; the parameters themselves to step in place.
        states: by name in the rule's order, then by tensor.
        coefficients: the rule's numbers for this step.
        factors: ``(sign, decay, keep, step)`` of each tensor; a single one holds for all.
    """
    dtype = params[0].dtype
    in_place = out is params or all(map(operator.is_, out, params))
    counts = np.fromiter(map(Tensor.numel, params), np.int64, len(params))
    columns = [params, grads, *([] if in_place else [out]), *states]
    addresses = np.array([list(map(Tensor.data_ptr, column)) for column in columns], dtype=np.int64).T
    sizes = np.array([column[0].element_size() for column in columns], dtype=np.int64)
    if in_place:
        addresses, sizes = np.insert(addresses, 2, addresses[:, 0], axis=1), np.insert(sizes, 2, sizes[0])
    table, rows = _cut(counts, addresses, sizes)
    each = np.array([[float(f) for f in four] for four in factors], dtype=np.float64)
    scales = np.repeat(each, len(rows), axis=0) if len(each) == 1 else np.ascontiguousarray(each[rows])
    loop = compiled(rule, len(coefficients), dtype, in_place)
    numbers = np.array([float(c) for c in coefficients], dtype=np.float64)
    stored = TAGS[dtype]
    tags = (np.dtype(str(stored)).type(0), np.float64(0) if dtype == torch.float64 else np.float32(0))

    def work(begin: int, end: int) -> None:
        loop(table, scales, numbers, begin, end, *tags)

    split(work, len(table), 1, cost=0.7 * float(counts.sum()))


def _cut(counts: np.ndarray, addresses: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(table [k, 1 + columns] of counts and addresses, tensor index of each row)``, long tensors in pieces."""
    pieces = -(-counts // _PIECE)
    rows = np.repeat(np.arange(len(counts)), pieces)
    first = np.cumsum(pieces) - pieces
    start = (np.arange(len(rows)) - first[rows]) * _PIECE
    table = np.empty((len(rows), 1 + addresses.shape[1]), dtype=np.int64)
    table[:, 0] = np.minimum(counts[rows] - start, _PIECE)
    table[:, 1:] = addresses[rows] + start[:, None] * sizes
    return table, rows
