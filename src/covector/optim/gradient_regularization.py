"""Gradient regularization: minimize ``L + (gamma / 2) ||grad L||^2``, whose gradient is ``g + gamma H g``.

The product ``H g`` is a difference of two gradients, or exact by differentiating twice::

    forward    g + (gamma / eps) (grad L(w + eps g) - g)
    backward   g + (gamma / eps) (g - grad L(w - eps g))
    exact      g + gamma H g

eps is not a number to make small: far looks (0.01 to 0.1) regularize otherwise than the exact product. Two relatives,
exactly: with gamma = eps, forward is SAM without its normalization, ``grad L(w + eps g)``; and two steps of gradient
descent on the flooded loss ``|L - b| + b`` that cross the level b are a step of ``eta (g - grad L(w - eta g))``, the
backward term with eps = eta.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.optim.displaced_gradient import DisplacedGradient, Point, Scheme
from covector.optim.vectors import Vector

__all__ = ["GradientRegularization", "flooding"]

MODES = ("forward", "backward", "exact")


def flooding(loss: Tensor, level: float) -> Tensor:
    """``|loss - level| + level``: gradient descent on it turns around at the level.

    Source: Ishida, Yamane, Sakai, Niu, Sugiyama, "Do we need zero training loss after achieving zero training error?",
    2020.

    >>> flooding(torch.tensor(0.25), 0.5)
    tensor(0.7500)
    """
    return (loss - level).abs() + level


class GradientRegularization(DisplacedGradient):
    """Penalize the gradient's norm, around any optimizer; two gradients a step.

    In exact mode the closure returns the loss without backpropagating, or calls ``backward(create_graph=True)``.

    Args:
        optimizer: steps by the regularized gradient.
        gamma: strength, default 0.1; the authors search 1e-3 to 1.
        eps: how far the second look goes, in units of the gradient, default 0.05.
        mode: ``"forward"`` looks uphill, ``"backward"`` downhill, ``"exact"`` differentiates twice.
        model: as for :class:`~covector.optim.DisplacedGradient`.

    Raises:
        ArgumentError: a number or the mode out of range; from ``step``, where there is no closure, or where exact mode
            finds the graph of the loss freed.

    Source: Karakida, Takase, Hayase, Osawa, "Understanding gradient regularization in deep learning: efficient
    finite-difference computation and implicit bias", 2022, equations 2 to 4.

    >>> from covector.optim import SGD
    >>> w = nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = GradientRegularization(SGD([w], lr=0.1), gamma=0.5)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = w.square().sum()
    ...     loss.backward()
    ...     return loss
    >>> _ = optimizer.step(closure); round(w.item(), 4)  # g = 2, H = 2: the gradient is 2 + 0.5 * 4
    0.6
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        gamma: float = 0.1,
        eps: float = 0.05,
        mode: str = "forward",
        model: nn.Module | None = None,
    ) -> None:
        if mode not in MODES:
            raise ArgumentError("mode", mode, f"one of {MODES}")
        if not eps > 0.0:
            raise ArgumentError("eps", eps, "a number above 0")
        super().__init__(optimizer, model, gamma=gamma)
        self.eps, self.mode = eps, mode

    def scheme(self, at: Point, g0: Vector) -> Scheme:
        eps = self.eps if self.mode == "forward" else -self.eps
        g1 = yield g0 * eps
        return g0 + (g1 - g0) * (1.0 / eps) * at.number("gamma")

    @torch.no_grad()
    def evaluate(self, closure: Callable[[], Any]) -> Any:
        """Leave the regularized gradient in ``.grad``; returns the loss at the parameters."""
        if self.mode != "exact":
            return super().evaluate(closure)
        with torch.enable_grad():
            loss = closure()
            params, grads = self._differentiable(loss)
            curved = [g for g in grads if g.requires_grad]  # not those of parameters that the loss is linear in
            seeds = [g.detach() for g in curved]
            products = torch.autograd.grad(curved, params, seeds, allow_unused=True) if curved else [None] * len(params)
        for p, g in zip(params, grads, strict=True):
            p.grad = g.detach()
        at = self._point()
        hg = Vector([torch.zeros_like(p) if h is None else h for p, h in zip(params, products, strict=True)])
        # of the negated loss, g changes its sign and H g does not
        at.put(at.take() + hg * at.number("gamma"))
        self._ready = True
        return loss.detach()

    def first_step(self, zero_grad: bool = False) -> None:
        """As for :class:`~covector.optim.DisplacedGradient`; exact mode has no displaced point."""
        if self.mode == "exact":
            raise ArgumentError("mode", self.mode, "'forward' or 'backward' for first_step; or step(closure)")
        super().first_step(zero_grad)

    def _differentiable(self, loss: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Parameters and gradients that can be differentiated again."""
        params = [p for p in self._params() if p.requires_grad]
        if any(p.grad is not None and p.grad.requires_grad for p in params):
            grads: list[Tensor | None] = [p.grad for p in params]
        elif isinstance(loss, Tensor) and loss.requires_grad and all(p.grad is None for p in params):
            grads = list(torch.autograd.grad(loss, params, create_graph=True, allow_unused=True))
        else:
            raise ArgumentError(
                "closure", "gradients that cannot be differentiated",
                "for mode='exact', a closure that clears gradients and returns the loss without backpropagating, or "
                "that calls backward(create_graph=True)",
            )  # fmt: skip
        for p in params:
            p.grad = None
        pairs = [(p, g) for p, g in zip(params, grads, strict=True) if g is not None]
        return [p for p, _ in pairs], [g for _, g in pairs]
