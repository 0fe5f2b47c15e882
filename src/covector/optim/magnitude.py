"""Squared norms of gradients as the optimizer sees them: signed, scaled, with L2 decay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from covector.optim.advance import state_dtype
from covector.optim.sharded import whole
from covector.optim.slots import Bucket

__all__ = ["squared_norm", "squared_norms"]


def squared_norms(bucket: Bucket, dim: int | None = None) -> list[Tensor]:
    """``||sign g + decay p||^2`` of each tensor: 0-d, in the precision of the states; no copy of a gradient is made
    unless L2 decay asks for it.

    Args:
        bucket: parameters and gradients.
        dim: None for whole tensors; 0 for each entry of the first dimension, as a vector.

    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> bucket = Bucket({"decoupled": True, "weight_decay": 0.0}, None, [p], [torch.tensor([3.0, 4.0])], [{}], 1, [0.5])
    >>> squared_norms(bucket)
    [tensor(6.2500)]
    """
    kind = state_dtype(bucket.params[0].dtype)
    decay = 0.0 if bucket.group["decoupled"] else bucket.group["weight_decay"]
    grads = bucket.grads
    if decay:
        grads = [
            sign * g.to(kind) + decay * p.to(kind)
            for g, p, sign in zip(grads, bucket.params, bucket.signs, strict=True)
        ]
    if dim is None:
        norms = list(torch._foreach_norm(grads, 2, dtype=kind))
    else:
        norms = [torch.linalg.vector_norm(g.reshape(len(g) if g.ndim else 1, -1), dim=1, dtype=kind) for g in grads]
    signs = [1.0] * len(grads) if decay else bucket.signs
    return [(whole(norm) * sign).square() for norm, sign in zip(norms, signs, strict=True)]


def squared_norm(buckets: Sequence[Bucket]) -> Tensor:
    """The squared norm of all gradients together: 0-d, on the device of the first.

    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> group = {"decoupled": True, "weight_decay": 0.0}
    >>> bucket = Bucket(group, None, [p], [torch.tensor([3.0, 4.0])], [{}], 1, [-1.0])
    >>> squared_norm([bucket, bucket])
    tensor(50.)
    """
    parts = [part for bucket in buckets for part in squared_norms(bucket)]
    if not parts:
        return torch.zeros(())
    return torch.stack([part.to(parts[0]) for part in parts]).sum()
