"""The few functions an elementwise rule may call besides ``+ - * / abs``: one name, three meanings.

On a tensor they are torch's; on a :class:`Many` (a list of tensors) they are torch's ``_foreach`` forms; and the
native backend binds the same names to scalar code when it compiles a rule. A rule is thus written once.

The code of a rule must not hold literal numbers other than through its coefficients: a Python ``1`` beside a
float32 scalar would widen the compiled arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Many", "maximum", "minimum", "sigmoid", "sign", "sqrt"]


class Many:
    """A list of tensors that adds, multiplies and divides element by element.

    Args:
        tensors: of any shapes; the other operand is a ``Many`` of the same shapes, a number, a 0-d tensor,
            or a list of a number or 0-d tensor for each.

    >>> (Many([torch.ones(2), torch.ones(1)]) * 3.0 + Many([torch.ones(2), torch.zeros(1)])).tensors
    (tensor([4., 4.]), tensor([3.]))
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tuple(tensors)

    def with_(self, name: str, other: Any) -> Many:
        """Apply a foreach function of two arguments."""
        function: Any = getattr(torch, f"_foreach_{name}")
        if isinstance(other, list) and any(isinstance(value, Tensor) for value in other):
            return Many([getattr(t, name)(value) for t, value in zip(self.tensors, other, strict=True)])
        if isinstance(other, Tensor) and name in ("sub", "add"):
            return Many([getattr(t, name)(other) for t in self.tensors])
        return Many(function(self.tensors, other.tensors if isinstance(other, Many) else other))

    def __add__(self, other: Any) -> Many:
        return self.with_("add", other)

    def __sub__(self, other: Any) -> Many:
        return self.with_("sub", other)

    def __mul__(self, other: Any) -> Many:
        return self.with_("mul", other)

    def __truediv__(self, other: Any) -> Many:
        return self.with_("div", other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Many:
        return (-self).with_("add", other)

    def __neg__(self) -> Many:
        return self.each("neg")

    def __abs__(self) -> Many:
        return self.each("abs")

    def each(self, name: str) -> Many:
        """Apply a foreach function of one argument."""
        function: Any = getattr(torch, f"_foreach_{name}")
        return Many(function(self.tensors))


def _unary(name: str) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        return x.each(name) if isinstance(x, Many) else getattr(torch, name)(x)

    function.__name__ = name
    function.__doc__ = f"Elementwise ``torch.{name}`` of a tensor or a :class:`Many`."
    return function


def _binary(name: str) -> Callable[[Any, Any], Any]:
    def function(x: Any, y: Any) -> Any:
        return x.with_(name, y) if isinstance(x, Many) else getattr(torch, name)(x, y)

    function.__name__ = name
    function.__doc__ = f"Elementwise ``torch.{name}`` of two tensors or two :class:`Many`."
    return function


sqrt = _unary("sqrt")
sign = _unary("sign")
sigmoid = _unary("sigmoid")
maximum = _binary("maximum")
minimum = _binary("minimum")
