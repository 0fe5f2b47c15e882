"""Perturbed: evaluate a module at ``theta + scale * direction`` without touching or copying ``theta``.

Inside the context every torch function that receives a parameter receives its perturbed value, written just
in time into a temporary that dies with the call. Large matrices are worked off in blocks of rows, embeddings
only in the rows that are looked up. The parameters themselves are only read, so they cannot drift.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from covector.gradients.base import Gradient
from covector.trees import Params

__all__ = ["Perturbed"]

# bytes of one temporary: small beside the activations of a pass, large enough for a fast product
_BLOCK_BYTES = 4 << 20
# asking a parameter these needs no values
_METADATA = {"size", "dim", "numel", "stride", "is_floating_point", "is_complex", "element_size", "get_device"}
_VALUE_PROPERTIES = {"T", "mT", "H", "mH", "data", "real"}


class Perturbed(TorchFunctionMode):
    """A context in which the live ``params`` read as ``params + scale * direction``.

    Needs ``torch.no_grad()`` around it, since the temporaries are not tracked.

    Args:
        params: the live parameters, as in ``objective.params``; recognized by identity.
        direction: any carrier.
        scale: the step along it, a power of two if products are to be exact.

    >>> from covector.gradients import Dense
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.zeros_(layer.weight)
    >>> with torch.no_grad(), Perturbed({"w": layer.weight}, Dense({"w": torch.ones(1, 2)}), 0.5):
    ...     print(layer(torch.ones(1, 2)).item())
    1.0
    >>> layer.weight.abs().sum().item()
    0.0
    """

    def __init__(self, params: Params, direction: Gradient, scale: float) -> None:
        super().__init__()
        self.direction = direction
        self.scale = scale
        self._names = {id(p): name for name, p in params.items()}
        self._params = params
        self._scratch: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scratch.clear()
        super().__exit__(kind, error, trace)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and self._is_ours(args[1] if len(args) > 1 else kwargs.get("weight")):
            return self._linear(*args, **kwargs)
        if func is F.embedding and self._is_ours(args[1] if len(args) > 1 else kwargs.get("weight")):
            return self._embedding(*args, **kwargs)
        if _reads_values(func):
            args = self._replace(args)
            kwargs = {key: self._replace(value) for key, value in kwargs.items()}
        return func(*args, **kwargs)

    def _is_ours(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._names

    def _replace(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.value(value) if id(value) in self._names else value
        if isinstance(value, (tuple, list)):
            return type(value)(self._replace(item) for item in value) if type(value) in (tuple, list) else value
        return value

    def value(self, parameter: Tensor) -> Tensor:
        """The perturbed value of one live parameter, freshly written."""
        out = parameter.detach().clone(memory_format=torch.contiguous_format)
        if out.numel():
            self.direction.add_slice_(out.view(-1), self._names[id(parameter)], 0, self.scale)
        return out

    def _rows(self, weight: Tensor, first: int, last: int) -> Tensor:
        width = weight.shape[1]
        size = (last - first) * width
        key = (weight.dtype, weight.device)
        scratch = self._scratch.get(key)
        if scratch is None or scratch.numel() < size:
            # of full size at once: blocks that grow leave holes between the activations
            full = max(size, _BLOCK_BYTES // weight.element_size())
            scratch = self._scratch[key] = torch.empty(full, dtype=weight.dtype, device=weight.device)
        block = scratch[:size]
        block.view(last - first, width).copy_(weight.detach()[first:last])
        self.direction.add_slice_(block, self._names[id(weight)], first * width, self.scale)
        return block.view(last - first, width)

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        bias = self._replace(bias)
        input = self._replace(input)
        rows, width = weight.shape
        step = max(1, _BLOCK_BYTES // (width * weight.element_size()))
        if step >= rows:
            return F.linear(input, self._rows(weight, 0, rows), bias)
        flat = input.reshape(-1, width)
        out = torch.empty(flat.shape[0], rows, dtype=weight.dtype, device=weight.device)
        for first in range(0, rows, step):
            last = min(first + step, rows)
            torch.mm(flat, self._rows(weight, first, last).T, out=out[:, first:last])
        if bias is not None:
            out += bias
        return out.view(*input.shape[:-1], rows)

    def _embedding(self, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        unique, inverse = input.unique(return_inverse=True)
        if unique.numel() * 4 > weight.shape[0] or kwargs.get("max_norm") is not None or (len(args) > 1 and args[1]):
            return F.embedding(input, self.value(weight), *args, **kwargs)
        rows = weight.detach()[unique]
        width = weight.shape[1]
        for row, index in zip(rows, unique.tolist(), strict=True):
            self.direction.add_slice_(row, self._names[id(weight)], index * width, self.scale)
        return rows[inverse]


def _reads_values(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return getattr(getattr(func, "__self__", None), "__name__", "") in _VALUE_PROPERTIES
    return name not in _METADATA and name not in ("__set__", "__hash__", "__len__")
