"""Between the flat vectors of an operator and the tensors of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from covector.errors import ArgumentError, UnsupportedError
from covector.trees import Params

__all__ = ["Selection", "join", "select", "split"]

# names of parameters, or a predicate on names; None: all
Selection = Iterable[str] | Callable[[str], bool] | None


def select(params: Params, selection: Selection) -> Params:
    """The parameters of a sub-block, in the order of ``params``.

    Raises:
        ArgumentError: a name does not exist, or nothing is left.
        UnsupportedError: they live on several devices.

    >>> list(select({"a.w": torch.zeros(2), "b.w": torch.zeros(2)}, lambda name: name.startswith("b")))
    ['b.w']
    """
    if selection is None:
        chosen = dict(params)
    elif callable(selection):
        chosen = {name: p for name, p in params.items() if selection(name)}
    else:
        wanted = {selection} if isinstance(selection, str) else set(selection)
        if unknown := sorted(wanted - params.keys()):
            raise ArgumentError("params", unknown, f"names among {list(params)[:8]} ...")
        chosen = {name: p for name, p in params.items() if name in wanted}
    if not chosen:
        raise ArgumentError("params", selection, f"at least one of {list(params)[:8]} ...")
    if len(devices := {p.device for p in chosen.values()}) > 1:
        raise UnsupportedError(f"the parameters live on {sorted(map(str, devices))}; an operator needs one device")
    return chosen


def split(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat vector ``[n]`` in the shapes of ``like``, cast where a dtype differs.

    >>> [part.shape for part in split(torch.zeros(5), [torch.zeros(2, 2), torch.zeros(1)])]
    [torch.Size([2, 2]), torch.Size([1])]
    """
    parts = vector.split([p.numel() for p in like])
    return [part.view(p.shape).to(p.dtype) for part, p in zip(parts, like, strict=True)]


def join(parts: Sequence[Tensor | None], like: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """One flat vector ``[n]``; None, of a tensor the result does not depend on, counts as zeros.

    >>> join([None, torch.ones(1)], [torch.zeros(2), torch.zeros(1)], torch.float32)
    tensor([0., 0., 1.])
    """
    filled = [
        torch.zeros(p.numel(), dtype=dtype, device=p.device) if part is None else part.detach().reshape(-1).to(dtype)
        for part, p in zip(parts, like, strict=True)
    ]
    return torch.cat(filled)
