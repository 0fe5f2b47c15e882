"""State trees as JSON beside tensors: what ``state_dict`` methods return, without pickle.

Values that JSON has no word for are objects with one key that begins with ``$``::

    {"$tensor": name}  {"$tuple": [...]}  {"$float": "inf"}  {"$dict": [[key, value], ...]}  {"$counter": [...]}
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from covector.errors import CorruptionError, UnsupportedError

__all__ = ["pack", "unpack"]


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """A JSON value and the tensors it refers to.

    Args:
        tree: nested dictionaries, lists and tuples of tensors, numbers, strings and ``None``.

    Raises:
        UnsupportedError: names the place of a value that is none of these.

    >>> pack({"step": 3, "betas": (0.9, 0.99), "m": torch.zeros(2)})
    ({'step': 3, 'betas': {'$tuple': [0.9, 0.99]}, 'm': {'$tensor': 'm'}}, {'m': tensor([0., 0.])})
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, "", tensors), tensors


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that :func:`pack` was given.

    Raises:
        CorruptionError: an unknown ``$`` word, or a tensor that is not there.

    >>> unpack(*pack({1: (float("inf"), None)}))
    {1: (inf, None)}
    """
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    word = next(iter(value)) if len(value) == 1 else ""
    if not word.startswith("$"):
        return {key: unpack(item, tensors) for key, item in value.items()}
    return _unpack_word(word, value[word], tensors)


def _pack(tree: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return {"$tensor": _place(tree, path, tensors)}
    if tree is None or isinstance(tree, (bool, int, str)):
        return tree
    if isinstance(tree, float):
        return float(tree) if math.isfinite(tree) else {"$float": repr(float(tree))}
    if isinstance(tree, tuple):
        return {"$tuple": _pack_items(tree, path, tensors)}
    if isinstance(tree, list):
        return _pack_items(tree, path, tensors)
    if isinstance(tree, Counter):
        return {"$counter": [[_pack(key, path, tensors), count] for key, count in tree.items()]}
    if isinstance(tree, Mapping):
        return _pack_mapping(tree, path, tensors)
    raise UnsupportedError(
        f"{path or 'the state'} is a {type(tree).__name__}: a checkpoint holds tensors, numbers, strings, None, and "
        "lists, tuples and dictionaries of them"
    )


def _pack_items(items: list[Any] | tuple[Any, ...], path: str, tensors: dict[str, Tensor]) -> list[Any]:
    return [_pack(item, f"{path}/{i}", tensors) for i, item in enumerate(items)]


def _pack_mapping(tree: Mapping[Any, Any], path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    packed = [(key, _pack(value, f"{path}/{key}" if path else str(key), tensors)) for key, value in tree.items()]
    if all(isinstance(key, str) and not key.startswith("$") for key, _ in packed):
        return dict(packed)
    return {"$dict": [[_pack(key, path, tensors), value] for key, value in packed]}


def _place(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    if tensor.layout != torch.strided:
        raise UnsupportedError(f"{path or 'the state'} is a sparse tensor ({tensor.layout}); make it .to_dense()")
    name, copy = path or "tensor", 2
    while name in tensors:
        name, copy = f"{path}#{copy}", copy + 1
    tensors[name] = tensor.detach()
    return name


def _unpack_word(word: str, content: Any, tensors: Mapping[str, Tensor]) -> Any:
    if word == "$tensor" and content in tensors:
        return tensors[content]
    if word == "$tuple":
        return tuple(unpack(item, tensors) for item in content)
    if word == "$float":
        return float(content)
    if word == "$dict":
        return {unpack(key, tensors): unpack(item, tensors) for key, item in content}
    if word == "$counter":
        return Counter({unpack(key, tensors): count for key, count in content})
    raise CorruptionError(f"the state refers to {word} {content!r}, which this version does not know or the file lacks")
