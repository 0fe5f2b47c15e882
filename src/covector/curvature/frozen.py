"""What must hold for a loss to have derivatives worth the name: it is a function of its parameters, and nothing else.

Dropout makes two evaluations differ, batch normalization in training mode changes the module as a side effect: both are
refused before the first product. Attention runs in its plain form, for the fused kernels have no second derivatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from covector.errors import NonFiniteError, UnsupportedError
from covector.objective import Batch, Objective
from covector.trees import Params

__all__ = ["check_deterministic", "differentiable", "fingerprint", "leaves", "watched"]


@contextmanager
def differentiable() -> Iterator[None]:
    """Gradients on, attention in the form that can be differentiated twice.

    >>> with torch.no_grad(), differentiable():
    ...     torch.is_grad_enabled()
    True
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


def check_deterministic(objective: Objective, batch: Batch) -> None:
    """Evaluate the loss twice; the module and the random number generators are left as they were.

    Raises:
        UnsupportedError: the two losses differ, or a buffer of the module changed.
        NonFiniteError: the loss is NaN or infinite.

    >>> check_deterministic(Objective(nn.Linear(2, 1), nn.functional.mse_loss), (torch.ones(4, 2), torch.ones(4, 1)))
    """
    buffers = dict(objective.module.named_buffers()) if objective.module is not None else {}
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    devices = {p.device for p in objective.params.values() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        first, second = objective(batch), objective(batch)
    changed = [name for name, buffer in buffers.items() if not _equal(buffer, before[name])]
    for name in changed:
        with torch.no_grad():
            buffers[name].copy_(before[name])
    if changed:
        raise UnsupportedError(
            f"evaluating the loss changed the module's buffer {changed[0]!r}, as batch normalization in training mode "
            "does; call module.eval() first"
        )
    if not torch.isfinite(first):
        raise NonFiniteError(f"the loss is {first.item()}; curvature is defined where it is finite")
    tolerance = 100 * torch.finfo(first.dtype).eps * max(1.0, abs(float(first)))
    if abs(float(first) - float(second)) > tolerance:
        raise UnsupportedError(
            f"two evaluations of the loss on one batch differ: {float(first):.9g} and {float(second):.9g}"
            f"{_culprit(objective.module)}; call module.eval(), or fix the randomness inside the loss"
        )


def watched(objective: Objective) -> list[Tensor]:
    """All that the loss is a function of: the parameters, and the other parameters and buffers of the module.

    >>> len(watched(Objective(nn.BatchNorm1d(2), nn.functional.mse_loss)))
    5
    """
    tensors: list[Tensor] = list(objective.params.values())
    if objective.module is not None:
        known = {id(tensor) for tensor in tensors}
        others = [*objective.module.parameters(), *objective.module.buffers()]
        tensors += [tensor for tensor in others if id(tensor) not in known]
    return tensors


def fingerprint(tensors: list[Tensor]) -> tuple[Any, ...]:
    """Changes whenever one of the tensors is written to, or its memory exchanged.

    >>> x = torch.zeros(2)
    >>> before = fingerprint([x])
    >>> fingerprint([x.add_(1.0)]) == before
    False
    """
    return tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)


def leaves(objective: Objective, selected: Params) -> tuple[Params, Params]:
    """Selected parameters as leaves that share the live memory, and all parameters with these in their place."""
    own = {name: objective.params[name].detach().requires_grad_() for name in selected}
    return own, {name: own.get(name, p.detach()) for name, p in objective.params.items()}


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or bool(torch.equal(a.nan_to_num(), b.nan_to_num()) and a.is_floating_point())


def _culprit(module: nn.Module | None) -> str:
    for name, part in module.named_modules() if module is not None else ():
        if part.training and isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
            return f" (is it {name!r}, a {type(part).__name__} in training mode?)"
    return ""
