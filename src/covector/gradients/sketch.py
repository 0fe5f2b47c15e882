"""Sketch: a gradient as N numbers spread over all parameters by seeded signs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from covector import kernels
from covector.errors import ArgumentError, CompositionError
from covector.gradients.base import Gradient
from covector.kernels.reference import work_dtype
from covector.random import Stream, check_seed, field_of
from covector.trees import Params

__all__ = ["Sketch", "project"]


class Sketch(Gradient):
    """``g = S x`` with ``S = D tile``: element i of a tensor is ``D_i * x[(i + shift) mod N]``.

    ``D`` are Rademacher signs drawn from ``key`` and ``shift`` is a constant of the tensor's name. ``S`` has
    one non-zero a row, so one pass over the parameters applies it whatever the number of steps that ``x``
    has accumulated. Over the draw of ``D``, ``E[S S^T] = I``: the sketch ``S S^T g`` of a gradient is an
    unbiased estimate of it that takes N numbers, 16 KB for N = 4096.

    Args:
        key: 64-bit key of the signs.
        x: the N numbers, kept in float32 or float64.

    Raises:
        ArgumentError: ``x`` is not a one-dimensional, non-empty floating tensor.

    Source: the count-sketch embedding (Charikar, Chen and Farach-Colton, 2002; Clarkson and Woodruff, 2013) in
    the role of FedKSeed's seed pool.

    >>> g = Sketch(key=1, x=torch.arange(4.0))
    >>> g.dense({"w": torch.zeros(6)})["w"].abs().sort().values.max().item()
    3.0
    """

    def __init__(self, key: int, x: Sequence[float] | Tensor) -> None:
        values = torch.as_tensor(x).detach()
        values = values if values.is_floating_point() else values.to(torch.float32)
        if values.ndim != 1 or values.numel() == 0:
            raise ArgumentError("x", tuple(values.shape), "a non-empty tensor [N]")
        self.key = check_seed(key)
        self.x = values.to("cpu", work_dtype(values.dtype))

    def add_slice_(self, out: Tensor, name: str, start: int = 0, scale: float = 1.0) -> None:
        field = field_of(name)
        table = (self.x * scale).to(out.device, work_dtype(out.dtype))
        kernels.materialize_sketch_(out, out, table, self.key, field.word, field.shift, start, int(Stream.SKETCH_SIGNS))

    def scaled(self, factor: float) -> Sketch:
        return Sketch(self.key, self.x * factor)

    def plus(self, other: Sketch) -> Sketch:
        if other.key != self.key or other.x.numel() != self.x.numel():
            raise CompositionError(
                f"sketches of key {self.key} width {self.x.numel()} and key {other.key} width {other.x.numel()} "
                "do not add; draw both from one SketchPool"
            )
        return Sketch(self.key, self.x + other.x)

    def isfinite(self) -> bool:
        return bool(torch.isfinite(self.x).all())

    def zeroed(self) -> Sketch:
        return Sketch(self.key, torch.zeros_like(self.x))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and other.key == self.key and torch.equal(other.x, self.x)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Sketch({self.x.numel()} numbers, key={self.key})"


@torch.no_grad()
def project(gradient: Params, key: int, size: int) -> Tensor:
    """``S^T g``: the N numbers by which a sketch carries a dense gradient, float64 ``[size]``.

    This is the exact derivative of the loss by ``x`` in ``theta = theta_0 + S x``.

    Args:
        gradient: dense gradient, one tensor a parameter.
        key: 64-bit key of the signs.
        size: N.

    >>> g = {"w": torch.ones(8)}
    >>> x = project(g, key=1, size=4)
    >>> abs(Sketch(1, x).dot(g) - float(x @ x)) < 1e-9
    True
    """
    totals = torch.zeros(size, dtype=torch.float64)
    for name, tensor in gradient.items():
        field = field_of(name)
        part = totals if tensor.device.type == "cpu" else torch.zeros_like(totals, device=tensor.device)
        flat = tensor.detach().contiguous().view(-1)
        kernels.project_sketch_(part, flat, check_seed(key), field.word, field.shift, 0, int(Stream.SKETCH_SIGNS))
        if part is not totals:
            totals += part.cpu()
    return totals
