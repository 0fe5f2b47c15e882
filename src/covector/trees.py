"""Algebra on ``Params``: ordered dictionaries of named tensors, as ``dict(module.named_parameters())``.

Sums run in float64, so that a dot product over 10^8 parameters keeps its digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from covector.errors import MismatchError, UnsupportedError

__all__ = [
    "Params",
    "axpy_",
    "check_dense_real",
    "check_same",
    "clone",
    "copy_",
    "digest",
    "dot",
    "flatten",
    "flatview",
    "map_tensors",
    "norm",
    "numel",
    "scale_",
    "unflatten",
    "zeros_like",
]

Params = dict[str, Tensor]


def check_same(a: Params, b: Params, names: tuple[str, str] = ("a", "b")) -> None:
    """Raise :class:`~covector.errors.MismatchError` unless both have the same names and shapes.

    >>> check_same({"w": torch.zeros(2)}, {"w": torch.ones(2)})
    """
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        raise MismatchError(f"{names[0]} and {names[1]} name different tensors: {odd[:5]}; use the same Params")
    for name, tensor in a.items():
        if tensor.shape != b[name].shape:
            raise MismatchError(
                f"tensor {name!r} has shape {tuple(tensor.shape)} in {names[0]} "
                f"but {tuple(b[name].shape)} in {names[1]}"
            )


def check_dense_real(params: Params) -> None:
    """Refuse sparse and complex tensors and anything that is not floating point.

    >>> check_dense_real({"w": torch.zeros(2)})
    """
    for name, tensor in params.items():
        if tensor.layout != torch.strided:
            raise UnsupportedError(f"tensor {name!r} is sparse ({tensor.layout}); convert it with .to_dense()")
        if not tensor.is_floating_point():
            raise UnsupportedError(f"tensor {name!r} has dtype {tensor.dtype}; expected a real floating dtype")


def flatview(tensor: Tensor) -> Tensor:
    """The tensor as a flat view of the same memory, detached from autograd.

    Raises:
        UnsupportedError: the tensor is not contiguous, so that no flat view exists.

    >>> w = torch.zeros(2, 3); flatview(w).fill_(1.0).shape, w.sum().item()
    (torch.Size([6]), 6.0)
    """
    if not tensor.is_contiguous():
        raise UnsupportedError(
            f"a tensor of shape {tuple(tensor.shape)} and strides {tensor.stride()} is not contiguous; "
            "make the parameter contiguous first: p.data = p.data.contiguous()"
        )
    return tensor.detach().view(-1)


def map_tensors(fn: Callable[[Tensor], Tensor], params: Params) -> Params:
    """Apply ``fn`` to every tensor, names and order kept.

    >>> map_tensors(torch.neg, {"w": torch.ones(1)})
    {'w': tensor([-1.])}
    """
    return {name: fn(tensor) for name, tensor in params.items()}


def zeros_like(params: Params) -> Params:
    """Zeros of the same names, shapes, dtypes and devices.

    >>> zeros_like({"w": torch.ones(2)})
    {'w': tensor([0., 0.])}
    """
    return map_tensors(lambda t: torch.zeros_like(t, requires_grad=False), params)


def clone(params: Params) -> Params:
    """A detached copy.

    >>> p = {"w": torch.ones(1)}; q = clone(p); q["w"] += 1; p["w"].item()
    1.0
    """
    return map_tensors(lambda t: t.detach().clone(), params)


@torch.no_grad()
def copy_(target: Params, source: Params) -> None:
    """Copy ``source`` into ``target`` in place.

    >>> p = {"w": torch.zeros(1)}; copy_(p, {"w": torch.ones(1)}); p["w"].item()
    1.0
    """
    check_same(target, source, ("target", "source"))
    for name, tensor in target.items():
        tensor.copy_(source[name])


def dot(a: Params, b: Params) -> float:
    """Inner product, accumulated in float64.

    >>> dot({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])})
    11.0
    """
    check_same(a, b)
    total = 0.0
    for name, tensor in a.items():
        total += float(torch.dot(tensor.detach().reshape(-1).double(), b[name].detach().reshape(-1).double()))
    return total


def norm(a: Params) -> float:
    """Euclidean norm over all tensors together.

    >>> norm({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    5.0
    """
    return float(dot(a, a) ** 0.5)


@torch.no_grad()
def axpy_(y: Params, x: Params, alpha: float = 1.0) -> None:
    """``y += alpha * x`` in place.

    >>> y = {"w": torch.ones(2)}; axpy_(y, {"w": torch.ones(2)}, 0.5); y["w"]
    tensor([1.5000, 1.5000])
    """
    check_same(y, x, ("y", "x"))
    for name, tensor in y.items():
        tensor.add_(x[name], alpha=alpha)


@torch.no_grad()
def scale_(x: Params, alpha: float) -> None:
    """``x *= alpha`` in place.

    >>> x = {"w": torch.ones(1)}; scale_(x, 3.0); x["w"].item()
    3.0
    """
    for tensor in x.values():
        tensor.mul_(alpha)


def numel(params: Params) -> int:
    """Number of elements of all tensors together.

    >>> numel({"w": torch.zeros(2, 3), "b": torch.zeros(3)})
    9
    """
    return sum(tensor.numel() for tensor in params.values())


def flatten(params: Params) -> Tensor:
    """One flat copy ``[n]`` of all tensors, in order.

    >>> flatten({"w": torch.zeros(2, 1), "b": torch.ones(1)})
    tensor([0., 0., 1.])
    """
    return torch.cat([tensor.detach().reshape(-1) for tensor in params.values()])


def unflatten(flat: Tensor, like: Params) -> Params:
    """Views of ``flat`` ``[n]`` with the names and shapes of ``like``: writing to them writes to ``flat``.

    Raises:
        MismatchError: ``flat`` has not as many elements as ``like``.

    >>> flat = torch.zeros(3); views = unflatten(flat, {"w": torch.zeros(2), "b": torch.zeros(1)})
    >>> _ = views["b"].fill_(7.0); flat
    tensor([0., 0., 7.])
    """
    if flat.ndim != 1 or flat.numel() != numel(like):
        raise MismatchError(f"flat has shape {tuple(flat.shape)}, expected ({numel(like)},)")
    parts = flat.split([tensor.numel() for tensor in like.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(like.items(), parts, strict=True)}


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data


def digest(params: Params) -> str:
    """SHA-256 over names, shapes, dtypes and bytes, in order: equal exactly when all bits are.

    >>> digest({"w": torch.zeros(2)}) == digest({"w": torch.zeros(2)})
    True
    >>> digest({"w": torch.zeros(2)}) == digest({"v": torch.zeros(2)})
    False
    """
    sha = hashlib.sha256()
    for name, tensor in params.items():
        sha.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        if tensor.numel():
            sha.update(_bytes_of(tensor))
    return sha.hexdigest()
