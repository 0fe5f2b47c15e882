"""Sharpness-aware minimization: step by the gradient from the worst place nearby.

``min_w max_{||e|| <= rho} L(w + e)``, with the maximum taken to first order::

    SAM    e = rho g / ||g||
    ASAM   e = rho T^2 g / ||T g||,        T = |w| + eta: the neighborhood scales with the weights
    g' = grad L(w + e), and the base optimizer steps from w by g'
"""

from __future__ import annotations

import torch
from torch import nn

from covector.errors import ArgumentError
from covector.optim.displaced_gradient import DisplacedGradient, Point, Scheme
from covector.optim.vectors import Factor, Vector

__all__ = ["ASAM", "SAM", "ascent"]

# keeps a gradient of exactly zero from being divided by its norm
TINY = 1e-12


def ascent(g: Vector, radius: Factor, scale: Vector | None = None) -> Vector:
    """The step uphill of a length, in the metric of a scale: ``radius T^2 g / ||T g||``.

    Args:
        g: the direction.
        radius: the length.
        scale: T, for each element; default 1.

    >>> ascent(Vector([torch.tensor([3.0, 4.0])]), 0.5).tensors
    [tensor([0.3000, 0.4000])]
    """
    if scale is None:
        return (g / (g.norm() + TINY)) * radius
    scaled = g * scale
    return (scaled / (scaled.norm() + TINY)) * scale * radius


class SAM(DisplacedGradient):
    """Sharpness-aware minimization around any optimizer; two gradients a step.

    Args:
        optimizer: steps by the gradient; its momentum and weight decay are not displaced.
        rho: radius of the neighborhood, default 0.05; a param group may have its own, and schedules may change it.
            0 is the base optimizer.
        model: as for :class:`~covector.optim.DisplacedGradient`.

    Raises:
        ArgumentError: rho negative; from ``step``, where there is no closure.

    Source: Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-aware minimization for efficiently improving generalization",
    2020, Algorithm 1.

    >>> from covector.optim import SGD
    >>> w = nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = SAM(SGD([w], lr=0.1), rho=0.5)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = w.square().sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item(), round(w.item(), 4)  # the gradient at 1.5 is 3
    (1.0, 0.7)
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rho: float = 0.05, model: nn.Module | None = None) -> None:
        super().__init__(optimizer, model, rho=rho)

    def scheme(self, at: Point, g0: Vector) -> Scheme:
        e = ascent(g0, at.number("rho"))
        del g0  # its memory serves the second pass
        return (yield e)


class ASAM(DisplacedGradient):
    """Adaptive SAM: the neighborhood scales with the weights, so that rescaling a layer does not change it.

    Args:
        optimizer: steps by the gradient.
        rho: radius relative to the weights, default 0.5.
        eta: added to the size of each weight, default 0.01; 0 leaves weights of zero where they are.
        model: as for :class:`~covector.optim.DisplacedGradient`.

    Raises:
        ArgumentError: rho or eta negative; from ``step``, where there is no closure.

    Source: Kwon, Kim, Park, Choi, "ASAM: adaptive sharpness-aware minimization for scale-invariant learning of deep
    neural networks", 2021, equation 7. Biases scale like all other parameters here.

    >>> from covector.optim import SGD
    >>> w = nn.Parameter(torch.tensor([2.0]))
    >>> optimizer = ASAM(SGD([w], lr=0.1), rho=0.5, eta=0.0)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = w.square().sum() / 2
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure).item(), round(w.item(), 4)  # the gradient at 3 is 3
    (2.0, 1.7)
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho: float = 0.5,
        eta: float = 0.01,
        model: nn.Module | None = None,
    ) -> None:
        if not eta >= 0.0:
            raise ArgumentError("eta", eta, "a number of at least 0")
        super().__init__(optimizer, model, rho=rho)
        self.eta = eta

    def scheme(self, at: Point, g0: Vector) -> Scheme:
        size = abs(at.w)
        e = ascent(g0, at.number("rho"), size.shift(self.eta) if self.eta else size)
        del g0, size  # their memory serves the second pass
        return (yield e)
