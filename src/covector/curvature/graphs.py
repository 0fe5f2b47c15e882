"""The graph that autograd recorded, read: which functions it is made of, and how often it uses a tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from covector.errors import UnsupportedError

__all__ = ["check_twice_differentiable", "uses"]


def uses(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[int]:
    """How many edges of the graph behind ``outputs`` end at each leaf.

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> uses([(x * x).sum()], [x])
    [2]
    """
    found: Counter[int] = Counter()
    for node in _nodes(outputs):
        for following, _ in node.next_functions:
            variable = getattr(following, "variable", None)
            if variable is not None:
                found[id(variable)] += 1
    return [found[id(leaf)] for leaf in leaves]


def check_twice_differentiable(outputs: Sequence[Tensor]) -> None:
    """Refuse derivatives that came out of a function with first derivatives only.

    Torch marks them by a node that raises, but prunes it where it leads to none of the tensors one asks for: the part
    of the second derivative behind it would be missing without a word.

    Raises:
        UnsupportedError: such a function is there.

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> check_twice_differentiable(torch.autograd.grad((x**2).sum(), x, create_graph=True))
    """
    if any(node.name() == "torch::autograd::Error" for node in _nodes(outputs)):
        raise UnsupportedError(
            "the module has a function marked once_differentiable: it has no second derivatives; "
            "use backend='differences'"
        )


def _nodes(outputs: Sequence[Tensor]) -> list[Any]:
    waiting = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    seen, found = set(waiting), []
    while waiting:
        node = waiting.pop()
        found.append(node)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found
