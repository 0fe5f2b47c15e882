"""CarrierSGD: gradient descent that adds the gradient from its carrier; no dense gradient, no state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from covector.errors import ArgumentError
from covector.gradients import Gradient
from covector.trees import Params, check_dense_real

__all__ = ["CarrierSGD", "carried_norm"]

# numbers written out at a time to measure a norm
_BLOCK = 1 << 20


class CarrierSGD(torch.optim.Optimizer):
    """``theta -= lr * (g + weight_decay * theta)``, ``g`` in whatever carries it: one pass over the parameters.

    It takes the gradient from :meth:`receive` instead of ``.grad``, so that a zeroth-order step needs no memory beside
    the parameters. Everything else is a ``torch.optim`` optimizer: learning-rate schedulers and ``state_dict`` work.

    Args:
        params: the parameters by name, as in ``objective.params``.
        lr: step size.
        weight_decay: pull towards zero, in units of ``1 / lr`` a step.

    Raises:
        ArgumentError: a negative or non-finite step size or weight decay.

    >>> from covector.gradients import Seeded
    >>> params = {"w": torch.zeros(4)}
    >>> optimizer = CarrierSGD(params, lr=0.5)
    >>> optimizer.receive(Seeded([1], [2.0]))
    >>> optimizer.step(); params["w"].abs()
    tensor([1., 1., 1., 1.])
    """

    def __init__(self, params: Params, lr: float, weight_decay: float = 0.0) -> None:
        check_dense_real(params)
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not 0.0 <= value < math.inf:
                raise ArgumentError(name, value, "a finite number of at least 0")
        super().__init__(params.items(), {"lr": lr, "weight_decay": weight_decay})
        self._gradient: Gradient | None = None

    def receive(self, gradient: Gradient) -> None:
        """Add ``gradient`` to what the next step applies; the sum stays in the carrier."""
        self._gradient = gradient if self._gradient is None else self._gradient + gradient

    def clip(self, limit: float) -> float:
        """Scale what the next step applies to a norm of at most ``limit``; returns the norm it had."""
        if self._gradient is None:
            return 0.0
        norm = carried_norm(self._gradient, self._named())
        if norm > limit:
            self._gradient = self._gradient * (limit / norm)
        return norm

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply what was received, if anything, and forget it."""
        loss = None if closure is None else closure()
        gradient, self._gradient = self._gradient, None
        if gradient is not None:
            for group in self.param_groups:
                lr = float(group["lr"])
                params = dict(zip(group["param_names"], group["params"], strict=True))
                if group["weight_decay"]:
                    for p in params.values():
                        p.mul_(1.0 - lr * group["weight_decay"])
                gradient.add_to_(params, -lr)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget what was received."""
        self._gradient = None
        super().zero_grad(set_to_none)

    def _named(self) -> Params:
        groups: list[dict[str, Any]] = self.param_groups
        return {n: p for g in groups for n, p in zip(g["param_names"], g["params"], strict=True)}


@torch.no_grad()
def carried_norm(gradient: Gradient, params: Params) -> float:
    """Euclidean norm of a gradient of any carrier, written out block by block.

    >>> from covector.gradients import Seeded
    >>> carried_norm(Seeded([1], [0.5]), {"w": torch.zeros(4)})
    1.0
    """
    total = 0.0
    for name, p in params.items():
        dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
        for start in range(0, p.numel(), _BLOCK):
            block = torch.zeros(min(_BLOCK, p.numel() - start), dtype=dtype, device=p.device)
            gradient.add_slice_(block, name, start)
            total += float(block.double().square_().sum())
    return math.sqrt(total)
