"""A function of the parameters, ``z(theta)``, as its linear parts: tangents pushed forward, cotangents pulled back.

Three back ends. *graph* keeps the graph of ``z`` and pulls back through it; it pushes forward by differentiating the
pull-back, ``w(u) = J^T u``, by its argument (``J v = d<w(u), v>/du``), or by forward tangents where convolutions make
that cheaper. *functional* keeps nothing and uses ``torch.func``. *differences* takes central differences of ``z`` and
needs first derivatives only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.func import jvp, vjp

from covector.curvature.flat import join, split
from covector.curvature.frozen import differentiable
from covector.curvature.graphs import check_twice_differentiable
from covector.trees import Params

__all__ = ["Differences", "Functional", "Graph", "Linearization", "step"]

Map = Callable[[Params], Tensor]


class Linearization(ABC):
    """The Jacobian of ``function`` at ``params``: of shape ``[z, n]``, applied from both sides.

    Args:
        function: of the parameters; returns one tensor ``z``.
        params: leaves that require gradients.
        dtype: of the flat vectors.
    """

    value: Tensor

    def __init__(self, function: Map, params: Params, dtype: torch.dtype) -> None:
        self.function, self.params, self.dtype = function, params, dtype
        self.tensors = list(params.values())

    @abstractmethod
    def push(self, vector: Tensor) -> Tensor:
        """``J v``, in the shape of ``z``."""

    @abstractmethod
    def pull(self, cotangent: Tensor) -> Tensor:
        """``J^T u``, flat ``[n]``."""

    def _named(self, vector: Tensor) -> Params:
        return dict(zip(self.params, split(vector, self.tensors), strict=True))

    def _joined(self, parts: Params) -> Tensor:
        return join(list(parts.values()), self.tensors, self.dtype)


class Graph(Linearization):
    """By the graph of one evaluation, which is kept.

    Args:
        forward: push by forward tangents, which costs another evaluation, instead of by double backward.
        options: as of :class:`Linearization`.

    >>> line = Graph(lambda p: p["x"] ** 2, {"x": torch.tensor([1.0, 3.0], requires_grad=True)}, torch.float32)
    >>> line.push(torch.ones(2)), line.pull(torch.ones(2))
    (tensor([2., 6.]), tensor([2., 6.]))
    """

    def __init__(self, function: Map, params: Params, dtype: torch.dtype, forward: bool = False) -> None:
        super().__init__(function, params, dtype)
        with differentiable():
            self._output = function(params)
        self.value = self._output.detach()
        self._forward = forward
        self._seed: Tensor | None = None
        self._pulled: list[tuple[int, Tensor]] = []

    def push(self, vector: Tensor) -> Tensor:
        if self._forward:
            try:
                return _tangent(self.function, self.params, self._named(vector))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # an operation without forward tangents: the other way needs none
                self._forward = False
        if self._seed is None:
            self._differentiate_pull()
        assert self._seed is not None
        parts = split(vector, self.tensors)
        outputs, weights = [w for _, w in self._pulled], [parts[i] for i, _ in self._pulled]
        if not outputs:
            return torch.zeros_like(self.value)
        return torch.autograd.grad(outputs, self._seed, weights, retain_graph=True)[0]

    def pull(self, cotangent: Tensor) -> Tensor:
        found = torch.autograd.grad(self._output, self.tensors, cotangent, retain_graph=True, allow_unused=True)
        return join(found, self.tensors, self.dtype)

    def _differentiate_pull(self) -> None:
        with differentiable():
            self._seed = torch.zeros_like(self.value, requires_grad=True)
            pulled = torch.autograd.grad(
                self._output, self.tensors, self._seed, create_graph=True, allow_unused=True
            )  # linear in the seed, so that its derivative by the seed is the same at every seed
        check_twice_differentiable([w for w in pulled if w is not None])
        self._pulled = [(i, w) for i, w in enumerate(pulled) if w is not None and w.requires_grad]


class Functional(Linearization):
    """By ``torch.func``, each product on its own; nothing is kept.

    >>> line = Functional(lambda p: p["x"] ** 2, {"x": torch.tensor([1.0, 3.0])}, torch.float32)
    >>> line.push(torch.ones(2)), line.pull(torch.ones(2))
    (tensor([2., 6.]), tensor([2., 6.]))
    """

    def __init__(self, function: Map, params: Params, dtype: torch.dtype) -> None:
        super().__init__(function, {name: p.detach() for name, p in params.items()}, dtype)
        with torch.no_grad():
            self.value = function(self.params)

    def push(self, vector: Tensor) -> Tensor:
        with differentiable():
            tangent: Tensor = jvp(self.function, (self.params,), (self._named(vector),))[1]
        return tangent.detach()

    def pull(self, cotangent: Tensor) -> Tensor:
        with differentiable():
            parts: Params = vjp(self.function, self.params)[1](cotangent)[0]
        return self._joined(parts)


class Differences(Graph):
    """By central differences of ``z`` along the vector; pulled back through the graph of ``z``.

    The relative error of a product is about ``eps^(2/3)``: 1e-4 in float32, 1e-10 in float64.

    >>> x = torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)
    >>> Differences(lambda p: p["x"] ** 2, {"x": x}, x.dtype).push(torch.ones_like(x)).round(decimals=6)
    tensor([2., 6.], dtype=torch.float64)
    """

    def push(self, vector: Tensor) -> Tensor:
        return difference(lambda params: self.function(params).detach(), self.params, self._named(vector))


def difference(function: Map, params: Params, direction: Params) -> Tensor:
    """``(f(theta + h v) - f(theta - h v)) / 2h``, with ``h`` of :func:`step`.

    >>> one = {"x": torch.ones(1, dtype=torch.float64)}
    >>> difference(lambda p: p["x"] ** 3, one, one).round(decimals=6)
    tensor([3.], dtype=torch.float64)
    """
    h = step(params, direction)
    if h == 0.0:
        return torch.zeros_like(function(params))
    with torch.no_grad():
        ahead = {name: p + h * direction[name] for name, p in params.items()}
        behind = {name: p - h * direction[name] for name, p in params.items()}
    return (function(ahead) - function(behind)) / (2 * h)


def step(params: Params, direction: Params) -> float:
    """The step of a central difference, ``eps^(1/3) (1 + rms of the parameters) / length of the direction``.

    Balances the rounding of ``f``, ``eps / h``, and the third derivative, ``h^2``, for a direction of any length.

    >>> round(step({"x": torch.zeros(4)}, {"x": torch.ones(4)}), 4)
    0.0025
    """
    tensors, vectors = list(params.values()), list(direction.values())
    count = sum(p.numel() for p in tensors)
    eps = max(torch.finfo(p.dtype).eps for p in tensors)
    size, length = (
        float(torch.stack([t.detach().double().square().sum() for t in group]).sum()) ** 0.5
        for group in (tensors, vectors)
    )
    if length == 0.0:
        return 0.0
    return float(eps ** (1 / 3) * (1.0 + size / count**0.5) / length)


def _tangent(function: Map, params: Params, direction: Params) -> Tensor:
    with differentiable(), torch.no_grad(), forward_ad.dual_level():
        duals = {name: forward_ad.make_dual(p.detach(), direction[name]) for name, p in params.items()}
        output = function(duals)
        tangent = forward_ad.unpack_dual(output).tangent
        return torch.zeros_like(output) if tangent is None else tangent.clone()
