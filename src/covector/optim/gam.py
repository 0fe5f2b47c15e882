"""Gradient norm aware minimization: besides the loss, let the largest gradient norm nearby fall.

The first-order flatness ``R(w) = rho max_{||e|| <= rho} ||grad L(w + e)||`` bounds the largest eigenvalue of the
Hessian where the gradient is zero. With normalized ascents ``up(v, r) = r v / ||v||``, all gradients on one batch::

    g0 = grad L(w)        g1 = grad L(w + up(g0, r))          (g1 - g0) / r is the gradient of ||grad L||
    e = up(g1 - g0, R)    g2 = grad L(w + e)                  uphill on the gradient norm
                          g3 = grad L(w + e + up(g2, r))
    new = b1 g1 + b3 g3   old = g0 + b2 g2
    g = new - gamma (old - <old, new> new / ||new||^2)
"""

from __future__ import annotations

import torch
from torch import nn

from covector.errors import ArgumentError
from covector.optim.displaced_gradient import DisplacedGradient, Point, Scheme
from covector.optim.sam import TINY, ascent
from covector.optim.vectors import Vector

__all__ = ["GAM"]


class GAM(DisplacedGradient):
    """Gradient norm aware minimization around any optimizer; four gradients a step.

    Args:
        optimizer: steps by the gradient. It has about twice the size of a plain one where betas are 1.
        rho: radius r of the ascents on the loss, default 0.02.
        norm_rho: radius R of the ascent on the gradient norm, default 0.2.
        gamma: how much of what the plain gradients have at right angles to the displaced ones is taken off, default
            0.03.
        betas: ``(b1, b2, b3)``, weights of g1, g2 and g3.
        adaptive: neighborhoods scale with the weights, as in :class:`~covector.optim.ASAM` with eta 0.
        model: as for :class:`~covector.optim.DisplacedGradient`.

    Raises:
        ArgumentError: a number out of range; from ``step``, where there is no closure.

    Source: Zhang, Xu, Yu, Zou, Cui, "Gradient norm aware minimization seeks first-order flatness and improves
    generalization", 2023, Algorithm 1, in the form of finite differences that the authors' code has.

    >>> from covector.optim import SGD
    >>> w = nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = GAM(SGD([w], lr=0.1), rho=0.5, norm_rho=0.0, gamma=0.0)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = w.square().sum()
    ...     loss.backward()
    ...     return loss
    >>> _ = optimizer.step(closure); round(w.item(), 4)  # twice SAM's gradient, which is 3
    0.4
    """

    evaluations = 4

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: float = 0.02,
        norm_rho: float = 0.2,
        gamma: float = 0.03,
        betas: tuple[float, float, float] = (1.0, 1.0, 1.0),
        adaptive: bool = False,
        model: nn.Module | None = None,
    ) -> None:
        if len(betas) != 3 or not all(beta >= 0.0 for beta in betas):
            raise ArgumentError("betas", betas, "three numbers of at least 0")
        super().__init__(optimizer, model, rho=rho, norm_rho=norm_rho, gamma=gamma)
        self.betas, self.adaptive = betas, adaptive

    def scheme(self, at: Point, g0: Vector) -> Scheme:
        r, scale = at.number("rho"), abs(at.w) if self.adaptive else None
        g1 = yield ascent(g0, r, scale)
        e = ascent(g1 - g0, at.number("norm_rho"), scale)
        g2 = yield e
        g3 = yield e + ascent(g2, r, scale)
        b1, b2, b3 = self.betas
        new, old = g1 * b1 + g3 * b3, g0 + g2 * b2
        length = new.norm() + TINY
        across = old - new * (old.dot(new) / (length * length))
        return new - across * at.number("gamma")
