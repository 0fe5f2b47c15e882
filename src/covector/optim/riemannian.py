"""Adaptive optimizers on products of manifolds: an elementwise rule, read in the metric.

The rules of Adam, AMSGrad and Adagrad multiply a gradient with itself and otherwise only scale and add. On a
manifold that is all defined for tangent vectors: the product is the metric's, one number for each point, and
instead of a subtraction there is a geodesic, along which the first moment is carried. So the same rule runs on
:class:`Tangent` vectors: with ``g`` the Riemannian gradient at the point ``x``, Adam's is

    m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) <g, g>_x,   d = mh / (sqrt(vh) + eps)
    y = exp_x(-lr d),   m <- m carried from x to y

Parameters without a manifold are products of lines, on which this is the usual rule.

Source: Becigneul and Ganea, "Riemannian adaptive optimization methods", ICLR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.advance import state_dtype
from covector.optim.manifolds import Manifold
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Bucket, Slots

__all__ = ["Move", "RiemannianOptimizer", "Tangent"]

Move = Literal["exp", "retract"]


class Tangent:
    """Tangent vectors at points, of which a rule takes sums, multiples and products.

    Args:
        x: the points ``[points, ...]``.
        vector: tangent vectors of the same shape.
        manifold: where they live.

    >>> from covector.optim.manifolds import Euclidean
    >>> g = Tangent(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), Euclidean())
    >>> g * g
    tensor([[25.]])
    """

    __slots__ = ("manifold", "vector", "x")

    def __init__(self, x: Tensor, vector: Tensor, manifold: Manifold) -> None:
        self.x, self.vector, self.manifold = x, vector, manifold

    def _with(self, vector: Tensor) -> Tangent:
        return Tangent(self.x, vector, self.manifold)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Tangent):
            return self.manifold.inner(self.x, self.vector, other.vector)
        return self._with(self.vector * other)

    def __truediv__(self, other: Any) -> Tangent:
        return self._with(self.vector / other)

    def __add__(self, other: Tangent) -> Tangent:
        return self._with(self.vector + other.vector)

    def __sub__(self, other: Tangent) -> Tangent:
        return self._with(self.vector - other.vector)

    __rmul__ = __mul__


class RiemannianOptimizer(Optimizer):
    """A rule on every parameter: in the metric for a parameter with a manifold, elementwise for the others.

    All points of equal manifolds in a param group step as one batch.

    Args:
        params: a module, parameters, or param groups.
        rule: the rule; must treat the gradient as :class:`Tangent` allows.
        vectors: names of the rule's states that are tangent vectors; the others are one number for each point.
        lr: learning rate, the length of a step of an adaptive rule.
        update: ``"exp"`` along the geodesic, or ``"retract"`` along the manifold's cheaper path.
        lazy: step only the points that have a gradient, each with a step count of its own: for embeddings.
        options: as for :class:`~covector.optim.Optimizer`, and the rule's hyperparameters. ``weight_decay`` is
            decoupled, for points along the geodesic to the origin of the manifold.

    Raises:
        ArgumentError: a hyperparameter out of range, or ``lazy`` with ``capturable``.
        UnsupportedError: weight decay on a manifold without an origin.

    >>> from covector.optim.manifolds import ManifoldParameter, Sphere
    >>> p = ManifoldParameter(torch.tensor([[1.0, 0.0]]), Sphere())
    >>> p.grad = torch.tensor([[5.0, -1.0]])
    >>> descent = Rule(lambda g: (g,), (), lambda t, group: ())
    >>> RiemannianOptimizer([p], descent, lr=0.1).step()
    >>> p.detach()
    tensor([[0.9950, 0.0998]])
    """

    def __init__(
        self,
        params: Params,
        rule: Rule,
        vectors: Sequence[str] = (),
        lr: float | Tensor = 1e-3,
        *,
        update: Move = "exp",
        lazy: bool = False,
        **options: Any,
    ) -> None:
        self.vectors = tuple(vectors)
        numbers = tuple(name for name in rule.states if name not in self.vectors)
        super().__init__(params, Slots(rule, reduced=numbers), lr, update=update, lazy=lazy, **options)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if group["update"] not in get_args(Move):
            raise ArgumentError("update", group["update"], "'exp' or 'retract'")
        if group["lazy"] and group["capturable"]:
            raise ArgumentError("lazy", True, "False where capturable=True: which rows have a gradient is asked")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with their own hyperparameters, as in ``torch.optim``."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            for p in group["params"]:
                if _manifold(p) is not None and group["weight_decay"]:
                    _manifold(p).log_origin(p.detach())
        except Exception:
            self.param_groups.pop()
            raise

    def initial_state(self, slots: Slots, param: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        """State before the first step: for a manifold's rule, a vector or a number for each point."""
        state = super().initial_state(slots, param, group)
        manifold = _manifold(param)
        if manifold is None:
            return state
        one = _one(param, manifold)
        for name in slots.rule.states:
            if name not in self.vectors:
                state[name] = torch.zeros_like(one, dtype=state[name].dtype)
        if group["lazy"]:
            state["steps"] = torch.zeros_like(one, dtype=torch.float32)
        return state

    def _move(self, bucket: Bucket, out: list[Tensor]) -> None:
        kinds: dict[Any, list[int]] = {}
        for index, param in enumerate(bucket.params):
            manifold = _manifold(param)
            kinds.setdefault(manifold and (manifold, param.shape[-manifold.point_dims :]), []).append(index)
        for kind, chosen in kinds.items():
            lists: dict[str, Any] = {name: [getattr(bucket, name)[i] for i in chosen] for name in _LISTS}
            part = replace(bucket, **lists)
            target = part.params if out is bucket.params else [out[i] for i in chosen]
            if kind is None:
                super()._move(part, target)
            else:
                self._move_points(kind[0], part, target)

    def _move_points(self, manifold: Manifold, bucket: Bucket, out: list[Tensor]) -> None:
        """Step all points as one batch ``[points, ...]``."""
        names = bucket.slots.rule.states
        kind = state_dtype(bucket.params[0].dtype)
        held = {name: [state[name] for state in bucket.states] for name in names}
        x = _joined(bucket.params, manifold).to(kind)
        grads = [g.to(kind) * sign for g, sign in zip(bucket.grads, bucket.signs, strict=True)]
        derivative = _joined(grads, manifold)
        states = {name: _joined(tensors, manifold) for name, tensors in held.items()}
        if not bucket.group["lazy"]:
            y, states = self._moved(manifold, bucket, x, derivative, states, bucket.t)
        else:
            steps = _joined([state["steps"] for state in bucket.states], manifold)
            rows = (derivative != 0).flatten(1).any(1).nonzero().squeeze(1)
            steps[rows] += 1
            some = {name: tensor[rows] for name, tensor in states.items()}
            moved, some = self._moved(manifold, bucket, x[rows], derivative[rows], some, steps[rows].to(torch.float64))
            y = x.index_copy(0, rows, moved)
            states = {name: states[name].index_copy(0, rows, some[name]) for name in names}
            _deal(steps, [state["steps"] for state in bucket.states])
        for name in names:
            _deal(states[name], held[name])
        _deal(y if out is bucket.params else y - x, out)

    def _moved(
        self, manifold: Manifold, bucket: Bucket, x: Tensor, derivative: Tensor, states: dict[str, Tensor], t: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Points after the step, and states carried there."""
        group, rule = bucket.group, bucket.slots.rule
        g = Tangent(x, manifold.gradient(x, derivative), manifold)
        given = [Tangent(x, states[name], manifold) if name in self.vectors else states[name] for name in rule.states]
        numbers = [c.to(x.dtype) if isinstance(c, Tensor) else c for c in rule.coefficients(t, group)]
        direction, *new = rule.update(g, *given, *numbers)
        u = direction.vector * -group["lr"]
        if group["weight_decay"]:
            u = u + group["lr"] * group["weight_decay"] * manifold.log_origin(x)
        y = manifold.exp(x, u) if group["update"] == "exp" else manifold.retract(x, u)
        carried = [manifold.transport(x, y, s.vector) if isinstance(s, Tangent) else s for s in new]
        return y, dict(zip(rule.states, carried, strict=True))


_LISTS = ("params", "grads", "states", "signs")


def _manifold(param: Tensor) -> Any:
    return getattr(param, "manifold", None)


def _one(param: Tensor, manifold: Manifold) -> Tensor:
    """One number of each point, in the shape of a state that has one."""
    one = param.detach()
    for dim in manifold.dims:
        one = one.narrow(dim, 0, 1)
    return one


def _joined(tensors: Sequence[Tensor], manifold: Manifold) -> Tensor:
    """All points, one after the other."""
    flat = [t.reshape(-1, *t.shape[-manifold.point_dims :]) for t in tensors]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def _deal(joined: Tensor, tensors: Sequence[Tensor]) -> None:
    """Write the points back to where they came from."""
    size = math.prod(joined.shape[1:])
    counts = [t.numel() // size for t in tensors]
    for part, tensor in zip(joined.split(counts), tensors, strict=True):
        tensor.copy_(part.reshape(tensor.shape))
