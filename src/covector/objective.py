"""Objective: a scalar loss as a function of parameters and a batch. All else in the library takes one.

A batch is a pair ``(inputs, targets)``, for which the module is called as ``module(inputs)`` and the loss as
``loss(outputs, targets)`` (so ``torch.nn.functional.cross_entropy`` fits as it is), or a mapping, for which
they are ``module(**batch)`` and ``loss(outputs, batch)``; without a loss, the ``.loss`` that Hugging Face
models return serves. Nothing else in the library calls ``torch.func.functional_call``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from covector.errors import ArgumentError, CompositionError, MismatchError
from covector.trees import Params, check_dense_real

__all__ = ["Batch", "Objective"]

Batch = Any
Loss = Callable[..., Tensor]


class Objective:
    """The mean loss of a module over a batch, as a function of the module's parameters.

    Args:
        module: any ``torch.nn.Module``; its mode (train or eval) is the caller's.
        loss: for pairs ``loss(outputs, targets)``, for mappings ``loss(outputs, batch)``; returns the scalar
            mean over the batch. May be ``None`` if the outputs have a ``.loss``.
        trainable: names of the parameters to work on, or a predicate on names; default: all that require a
            gradient. Tied parameters appear once.
        prefix: stripped from the parameter names, for a module that wraps the one users know.

    Raises:
        ArgumentError: a name in ``trainable`` does not exist, or nothing is left to train.
        UnsupportedError: a parameter is sparse or complex.

    >>> objective = Objective(nn.Linear(2, 1, bias=False), nn.functional.mse_loss)
    >>> _ = nn.init.ones_(objective.params["weight"])
    >>> objective((torch.ones(4, 2), torch.zeros(4, 1))).item()
    4.0
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss | None = None,
        trainable: Iterable[str] | Callable[[str], bool] | None = None,
        prefix: str = "",
    ) -> None:
        self.module: nn.Module | None = module
        self.loss = loss
        self.prefix = prefix
        self._function: Callable[[Params, Batch], Tensor] | None = None
        named: Params = {name.removeprefix(prefix): p for name, p in module.named_parameters()}
        self.params = _select(named, trainable)
        check_dense_real(self.params)

    @classmethod
    def from_function(cls, fn: Callable[[Params, Batch], Tensor], params: Params) -> Objective:
        """An objective that is a plain function ``fn(params, batch) -> scalar``; ``params`` are the live ones.

        >>> parabola = Objective.from_function(lambda p, batch: (p["x"] ** 2).sum(), {"x": torch.ones(3)})
        >>> parabola(None).item()
        3.0
        """
        objective = cls.__new__(cls)
        objective.module, objective.loss, objective.prefix = None, None, ""
        objective._function = fn
        objective.params = _select(dict(params), None, need_grad=False)
        check_dense_real(objective.params)
        return objective

    def __call__(self, batch: Batch, params: Params | None = None) -> Tensor:
        """The scalar loss on ``batch``, at ``params`` (default: the live parameters)."""
        if self._function is not None:
            return self._function(self.params if params is None else params, batch)
        return self._loss_of(self.outputs(batch, params), batch)

    def outputs(self, batch: Batch, params: Params | None = None) -> Any:
        """What the module returns for ``batch``.

        >>> Objective(nn.Linear(2, 3), nn.functional.mse_loss).outputs((torch.ones(4, 2), None)).shape
        torch.Size([4, 3])
        """
        if self.module is None:
            raise CompositionError("an objective made from a function has no outputs; use Objective(module, loss)")
        args, kwargs = _call_arguments(batch)
        if params is None:
            return self.module(*args, **kwargs)
        if unknown := params.keys() - self.params.keys():
            raise MismatchError(f"params has tensors the objective does not train: {sorted(unknown)[:5]}")
        full = {self.prefix + name: tensor for name, tensor in params.items()}
        return functional_call(self.module, full, args, kwargs)

    def per_example(self, batch: Batch, params: Params | None = None) -> Tensor:
        """The loss of each example, ``[B]``; their mean is the loss wherever the loss is a mean over examples.

        >>> objective = Objective(nn.Linear(2, 1), nn.functional.mse_loss)
        >>> batch = (torch.randn(5, 2), torch.randn(5, 1))
        >>> bool(torch.allclose(objective.per_example(batch).mean(), objective(batch)))
        True
        """
        if isinstance(batch, (tuple, list)) and self.loss is not None and self._function is None:
            loss, outputs = self.loss, self.outputs(batch, params)
            if isinstance(outputs, Tensor) and isinstance(batch[1], Tensor):
                return vmap(lambda o, t: loss(o[None], t[None]))(outputs, batch[1])
        size = self.size(batch)
        return torch.stack([self(_example(batch, i), params) for i in range(size)])

    def size(self, batch: Batch) -> int:
        """Number of examples in ``batch``: the leading dimension of its first tensor.

        >>> Objective(nn.Linear(2, 1), nn.functional.mse_loss).size((torch.ones(4, 2), torch.ones(4, 1)))
        4
        """
        values = batch.values() if isinstance(batch, Mapping) else batch
        if isinstance(values, Tensor):
            return values.shape[0]
        for value in values if values is not None else ():
            if isinstance(value, Tensor) and value.ndim:
                return value.shape[0]
        raise ArgumentError("batch", type(batch).__name__, "a tensor, a pair or a mapping with a tensor in it")

    def _loss_of(self, outputs: Any, batch: Batch) -> Tensor:
        if self.loss is not None:
            return self.loss(outputs, batch if isinstance(batch, Mapping) else batch[1])
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
        if not isinstance(loss, Tensor):
            raise ArgumentError("loss", None, "a loss function, or outputs with a .loss (are labels in the batch?)")
        return loss


def _select(named: Params, trainable: Iterable[str] | Callable[[str], bool] | None, need_grad: bool = True) -> Params:
    if trainable is None:
        chosen = {name: p for name, p in named.items() if p.requires_grad or not need_grad}
    elif callable(trainable):
        chosen = {name: p for name, p in named.items() if trainable(name)}
    else:
        wanted = list(trainable)
        if unknown := [name for name in wanted if name not in named]:
            raise ArgumentError("trainable", unknown, f"names among {list(named)[:8]} ...")
        chosen = {name: p for name, p in named.items() if name in set(wanted)}
    if not chosen:
        raise ArgumentError("trainable", trainable, "at least one parameter (do all have requires_grad=False?)")
    return chosen


def _call_arguments(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return (batch[0],), {}
    raise ArgumentError("batch", type(batch).__name__, "a pair (inputs, targets) or a mapping of keyword arguments")


def _example(batch: Batch, i: int) -> Batch:
    if isinstance(batch, Mapping):
        return {key: _example(value, i) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(_example(value, i) for value in batch)
    return batch[i : i + 1] if isinstance(batch, Tensor) and batch.ndim else batch
