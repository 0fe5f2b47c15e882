"""CarrierSGD: gradient descent that adds the gradient from its carrier; no dense gradient, no state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from covector.errors import ArgumentError, CompositionError
from covector.gradients import Gradient
from covector.trees import Params, check_dense_real

__all__ = ["CarrierSGD", "carried_norm", "deposit", "innermost"]

# numbers written out at a time to measure a norm
_BLOCK = 1 << 20


class CarrierSGD(torch.optim.Optimizer):
    """``theta -= lr * (g + weight_decay * theta)``, ``g`` in whatever carries it: one pass over the parameters.

    It takes the gradient from :meth:`receive` instead of ``.grad``, so that a zeroth-order step needs no memory beside
    the parameters. Everything else is a ``torch.optim`` optimizer: learning-rate schedulers and ``state_dict`` work.

    Args:
        params: the parameters by name, as in ``objective.params``; or groups, dictionaries whose ``"params"`` are
            parameters by name.
        lr: step size.
        weight_decay: pull towards zero, in units of ``1 / lr`` a step.

    Attributes:
        norm: of the gradient when it was last clipped, or ``None``.

    Raises:
        ArgumentError: a negative or non-finite step size or weight decay.

    >>> from covector.gradients import Seeded
    >>> params = {"w": torch.zeros(4)}
    >>> optimizer = CarrierSGD(params, lr=0.5)
    >>> optimizer.receive(Seeded([1], [2.0]))
    >>> optimizer.step(); params["w"].abs()
    tensor([1., 1., 1., 1.])
    """

    def __init__(self, params: Params | list[dict[str, Any]], lr: float, weight_decay: float = 0.0) -> None:
        groups = [{"params": params}] if isinstance(params, dict) else params
        for group in groups:
            check_dense_real(group["params"])
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if not 0.0 <= value < math.inf:
                raise ArgumentError(name, value, "a finite number of at least 0")
        listed = [{**group, "params": list(group["params"].items())} for group in groups]
        super().__init__(listed, {"lr": lr, "weight_decay": weight_decay})
        self._gradient: Gradient | None = None
        self.norm: float | None = None

    def receive(self, gradient: Gradient) -> None:
        """Add ``gradient`` to what the next step applies; the sum stays in the carrier."""
        self._gradient = gradient if self._gradient is None else self._gradient + gradient

    def clip(self, limit: float) -> float:
        """Scale what the next step applies to a norm of at most ``limit``; returns the norm it had."""
        if self._gradient is None:
            return 0.0
        self.norm = carried_norm(self._gradient, self.named())
        if self.norm > limit:
            self._gradient = self._gradient * (limit / self.norm)
        return self.norm

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

    def named(self) -> Params:
        """The parameters of all groups by name."""
        groups: list[dict[str, Any]] = self.param_groups
        return {n: p for g in groups for n, p in zip(g["param_names"], g["params"], strict=True)}


def innermost(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer inside the wrappers that accelerate and Lightning put around it.

    >>> sgd = torch.optim.SGD([torch.zeros(1)], lr=1.0); innermost(sgd) is sgd
    True
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


def deposit(gradient: Gradient, params: Params, optimizer: torch.optim.Optimizer) -> None:
    """Add a gradient to what the optimizer will apply: in its carrier for :class:`CarrierSGD`, else to ``.grad``.

    Raises:
        CompositionError: a :class:`CarrierSGD` that knows the parameters by other names.

    >>> from covector.gradients import Seeded
    >>> params = {"w": torch.zeros(2)}
    >>> deposit(Seeded([1], [2.0]), params, torch.optim.SGD(params.values(), lr=1.0)); params["w"].grad.abs()
    tensor([2., 2.])
    """
    if isinstance(optimizer, CarrierSGD):
        if odd := sorted(optimizer.named().keys() ^ params.keys()):
            raise CompositionError(
                f"CarrierSGD and the objective name different parameters: {odd[:4]}; use one dictionary"
            )
        optimizer.receive(gradient)
        return
    for name, dense in gradient.dense(params).items():
        p = params[name]
        p.grad = dense if p.grad is None else p.grad.add_(dense)


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
