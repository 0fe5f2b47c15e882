"""Slot 4: the direction of steepest ascent in a norm, and how wide matrices are scaled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.matrices import map_matrices
from covector.optim.norms import MatrixNorm
from covector.optim.slots import Bucket

__all__ = ["LMO", "WIDTHS", "Width"]

Watch = Callable[[Bucket, list[Tensor], list[Tensor]], None]


class LMO:
    """The map ``T`` of a norm: momentum in, a direction of norm 1 out. Equal matrices are worked on as one batch.

    Args:
        norm: of one matrix ``output x input``.

    >>> import torch
    >>> from covector.optim.norms import MaxAbs
    >>> bucket = Bucket({}, None, [], [], [], 1)
    >>> LMO(MaxAbs())(bucket, [torch.tensor([[2.0, -3.0]])], [])
    [tensor([[ 1., -1.]])]
    """

    def __init__(self, norm: MatrixNorm) -> None:
        self.norm = norm
        self.watch: Watch | None = None

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        out = map_matrices(lambda stack: self.norm.lmo(stack.matrices), directions, bucket.group)
        if self.watch is not None:
            self.watch(bucket, directions, out)
        return out


# of an m x n matrix: outputs, inputs
WIDTHS: dict[str, Callable[[int, int], float]] = {
    "spectral": lambda m, n: max(1.0, m / n) ** 0.5,
    "rms": lambda m, n: 0.2 * max(m, n) ** 0.5,
    "none": lambda m, n: 1.0,
    "splus": lambda m, n: 2.0 / (m + n),
}


class Width:
    """A factor by shape, so that one learning rate suits matrices of all widths.

    Args:
        kind: ``"spectral"`` sqrt(max(1, m / n)), outputs over inputs (Jordan); ``"rms"`` 0.2 sqrt(max(m, n)), the
            root mean square of Adam's updates (Moonlight); ``"splus"`` 2 / (m + n); ``"none"`` 1.

    Raises:
        ArgumentError: no such kind.

    >>> import torch
    >>> Width("spectral").factors(Bucket({}, None, [torch.zeros(8, 2)], [], [], 1), None)
    [2.0]
    """

    needs_directions = False

    def __init__(self, kind: str) -> None:
        if kind not in WIDTHS:
            raise ArgumentError("scale", kind, "one of " + ", ".join(sorted(WIDTHS)))
        self.kind = kind

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Nothing to see: shapes do not change."""

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """The factor of each tensor."""
        return [WIDTHS[self.kind](*shape(p, bucket.group)) for p in bucket.params]


def shape(param: Tensor, group: Mapping[str, Any]) -> tuple[int, int]:
    """Outputs and inputs of one matrix of a parameter, laid out as :func:`covector.optim.matrices.as_matrices` says.

    >>> import torch
    >>> shape(torch.zeros(8, 3, 2, 2), {"blocks": 2})
    (4, 12)
    """
    if param.ndim < 2:
        return 1, param.numel()
    outputs = param.shape[1 if group.get("transposed", False) else 0]
    return outputs // group.get("blocks", 1), param.numel() // max(1, outputs)
