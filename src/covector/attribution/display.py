"""A signed map of an input, as a picture."""

from __future__ import annotations

import torch
from torch import Tensor

from covector.errors import ArgumentError

__all__ = ["heatmap"]


def heatmap(shares: Tensor, percentile: float = 99.0, signed: bool = False) -> Tensor:
    """Each example's map as gray values: summed over channels, cut at a percentile, scaled to the interval.

    Args:
        shares: ``[B, channels, height, width]``, or ``[B, height, width]``.
        percentile: where the largest values are cut, so that a single pixel does not darken the rest; 99 in the paper.
        signed: keep the sign, the result then lies in [-1, 1]; else absolute values, in [0, 1].

    Returns:
        ``[B, height, width]``.

    Raises:
        ArgumentError: another number of dimensions, or a percentile outside (0, 100].

    >>> heatmap(torch.tensor([[[0.0, -1.0], [4.0, 2.0]]]), percentile=100)
    tensor([[[0.0000, 0.2500],
             [1.0000, 0.5000]]])
    """
    if shares.ndim not in (3, 4):
        raise ArgumentError("shares.shape", tuple(shares.shape), "[B, channels, height, width] or [B, height, width]")
    if not 0.0 < percentile <= 100.0:
        raise ArgumentError("percentile", percentile, "a number above 0, up to 100")
    planes = shares.detach().unsqueeze(1) if shares.ndim == 3 else shares.detach()
    flat = (planes if signed else planes.abs()).sum(1).flatten(1)
    top = torch.quantile(flat.abs().float(), percentile / 100, dim=1, keepdim=True).to(flat)
    low = torch.zeros_like(top) if signed else flat.amin(1, keepdim=True)
    spread = (top - low).clamp_min(torch.finfo(flat.dtype).tiny)
    scaled = ((flat - low) / spread).clamp(-1.0 if signed else 0.0, 1.0)
    return scaled.unflatten(1, planes.shape[2:])
