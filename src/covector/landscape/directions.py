"""Directions to look along: rows ``[M, n]`` in the order of the parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.random import Stream, draw
from covector.trees import Params, numel

__all__ = ["filter_normalized", "random_directions"]


def random_directions(params: Params, count: int, seed: int = 0) -> Tensor:
    """Unit vectors, uniform on the sphere over all parameters: rows ``[count, n]``.

    >>> bool((random_directions({"w": torch.zeros(3, 4)}, 5).norm(dim=1) - 1).abs().max() < 1e-6)
    True
    """
    like = next(iter(params.values()))
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    size = numel(params)
    rows = draw(seed, "directions", count * size, "normal", 0, Stream.DIRECTIONS, 0, kind, like.device)
    rows = rows.reshape(count, size)
    return rows / rows.norm(dim=1, keepdim=True)


def filter_normalized(directions: Tensor, params: Params, vectors: str = "zero") -> Tensor:
    """Scale each filter of each direction to the norm of the parameters' own.

    A network's loss does not change when one layer is scaled up and the next one down, so that distances mean something
    only relative to the weights.

    Args:
        directions: rows ``[M, n]``.
        params: the center.
        vectors: what becomes of tensors of at most one dimension, which are biases and the parameters of normalization
            layers. ``"zero"`` (default): they are not moved; ``"keep"``: each is one filter.

    Returns:
        ``[M, n]``. A filter is what lies at one index of the first dimension: a row, or a filter of a convolution.

    Raises:
        ArgumentError: ``vectors`` is neither.
        MismatchError: directions of another length than the parameters.

    Source: Li, Xu, Taylor, Studer, Goldstein, "Visualizing the loss landscape of neural nets", 2018.

    >>> rows = filter_normalized(torch.ones(1, 6), {"w": torch.tensor([[3.0, 4.0], [0.0, 1.0]]), "b": torch.ones(2)})
    >>> rows
    tensor([[3.5355, 3.5355, 0.7071, 0.7071, 0.0000, 0.0000]])
    """
    if vectors not in ("zero", "keep"):
        raise ArgumentError("vectors", vectors, "'zero' or 'keep'")
    if directions.ndim != 2 or directions.shape[1] != numel(params):
        raise MismatchError(f"directions has shape {tuple(directions.shape)}; expected [M, {numel(params)}], rows")
    parts = []
    for part, param in zip(directions.split([p.numel() for p in params.values()], 1), params.values(), strict=True):
        if param.ndim < 2 and vectors == "zero":
            parts.append(torch.zeros_like(part))
            continue
        own = param.detach().reshape(len(param) if param.ndim > 1 else 1, -1).norm(dim=1)
        filters = part.reshape(len(part), len(own), -1)
        length = filters.norm(dim=2, keepdim=True).clamp_min(torch.finfo(part.dtype).tiny)
        parts.append((filters / length * own[:, None]).reshape(part.shape))
    return torch.cat(parts, 1)
