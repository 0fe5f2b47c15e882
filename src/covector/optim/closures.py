"""What a closure tells beyond the gradient: products with the Hessian, and gradients at other points.

A method that needs them takes ``step(closure)``. The closure may be either of two kinds, told apart by what it does:

* it **only returns the loss**: the graph is kept and differentiated twice; the first product costs one and a half
  gradients, and so does each further one;
* it **calls backward**, as torch's closures do: products are central differences of gradients, two evaluations each,
  which works where a second derivative does not exist: fused attention, compiled models, DistributedDataParallel.

Evaluated again, a closure draws the same random numbers as the first time; buffers that it changes (the averages of
batch normalization) are changed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError

__all__ = ["Evaluation"]

Closure = Callable[[], Any]
Gradients = list[Tensor | None]


class Evaluation:
    """A closure, called once; ``p.grad`` of each parameter holds the gradient afterwards.

    Args:
        closure: returns the loss; it may call backward, or leave that to us.
        params: all parameters of the optimizer.
        curved: whether products will be asked for, which the graph is kept for.

    Attributes:
        loss: what the closure returned.
        keeps_graph: whether products come from the graph; otherwise from differences.

    Raises:
        ArgumentError: the closure neither called backward nor returned a loss that has a graph.

    >>> p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> evaluation = Evaluation(lambda: (p**4).sum(), [p])
    >>> p.grad, evaluation.product([torch.ones(2)])
    (tensor([ 4., 32.]), [tensor([12., 48.])])
    """

    def __init__(self, closure: Closure, params: Sequence[Tensor], curved: bool = True) -> None:
        self.params = [p for p in params if p.requires_grad]
        self._closure = closure
        self._devices = sorted({p.device.index for p in self.params if p.is_cuda and p.device.index is not None})
        self._random = torch.get_rng_state(), [torch.cuda.get_rng_state(i) for i in self._devices]
        self._clear()
        with torch.enable_grad():
            self.loss = closure()
        self.keeps_graph = all(p.grad is None for p in self.params)
        self._grads: Gradients = []
        if self.keeps_graph:
            self._grads = self._differentiate(self.loss, create_graph=curved)
            for p, g in zip(self.params, self._grads, strict=True):
                p.grad = None if g is None else g.detach()

    def product(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """The Hessian times a vector, given and returned as one tensor for each of :attr:`params`."""
        if not self.keeps_graph:
            return self._difference(vectors)
        live = [(g, v) for g, v in zip(self._grads, vectors, strict=True) if g is not None and g.requires_grad]
        if not live:
            return [torch.zeros_like(v) for v in vectors]
        outputs, weights = [g for g, _ in live], [v.to(g.dtype) for g, v in live]
        found = torch.autograd.grad(outputs, self.params, weights, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(v) if h is None else h.to(v.dtype) for h, v in zip(found, vectors, strict=True)]

    def gradients_at(self, points: Sequence[Tensor]) -> Gradients:
        """The gradients where the parameters have other values; parameters and gradients are as before afterwards."""
        kept = [(p.data, p.grad) for p in self.params]
        try:
            with torch.random.fork_rng(devices=self._devices):
                torch.set_rng_state(self._random[0])
                for index, state in zip(self._devices, self._random[1], strict=True):
                    torch.cuda.set_rng_state(state, index)
                # other data, not other values: the graph that is kept still finds its own
                for p, point in zip(self.params, points, strict=True):
                    p.data = point.to(p.dtype).view(p.shape)
                self._clear()
                with torch.enable_grad():
                    loss = self._closure()
                if self.keeps_graph:
                    return self._differentiate(loss, create_graph=False)
                return [p.grad for p in self.params]
        finally:
            for p, (data, grad) in zip(self.params, kept, strict=True):
                p.data, p.grad = data, grad

    def _differentiate(self, loss: Any, create_graph: bool) -> Gradients:
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            raise ArgumentError("closure", self._closure, "a function that returns the loss, a tensor with its graph")
        return list(torch.autograd.grad(loss, self.params, create_graph=create_graph, allow_unused=True))

    def _difference(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """``(g(p + e v) - g(p - e v)) / 2e``, e where truncation and rounding are about equal."""
        here = [p.data for p in self.params]
        size = _norm(vectors)
        if size == 0.0:
            return [torch.zeros_like(v) for v in vectors]
        step = torch.finfo(here[0].dtype).eps ** (1 / 3) * (1 + _norm(here)) / size
        above = self.gradients_at([x + step * v.to(x.dtype) for x, v in zip(here, vectors, strict=True)])
        below = self.gradients_at([x - step * v.to(x.dtype) for x, v in zip(here, vectors, strict=True)])
        return [
            torch.zeros_like(v) if a is None or b is None else (a.to(v.dtype) - b.to(v.dtype)) / (2 * step)
            for a, b, v in zip(above, below, vectors, strict=True)
        ]

    def _clear(self) -> None:
        for p in self.params:
            p.grad = None


def _norm(tensors: Sequence[Tensor]) -> float:
    norms: Sequence[Tensor] = torch._foreach_norm(list(tensors), 2)
    return float(torch.stack([norm.double() for norm in norms]).square().sum().sqrt())
