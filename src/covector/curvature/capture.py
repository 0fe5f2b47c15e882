"""A forward pass that remembers what goes into the layers, backward passes that stop at what comes out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F

from covector.curvature.factors import Factors, Product
from covector.curvature.graphs import uses
from covector.curvature.layers import LAYERS, is_odd
from covector.errors import CompositionError, UnsupportedError
from covector.objective import Objective
from covector.trees import Params

__all__ = ["Capture"]


@dataclass
class _Call:
    layer: nn.Module
    names: dict[str, str]  # the layer's own name of a parameter -> the objective's
    inputs: Tensor
    edge: GradientEdge  # of the output, as it was before anything changed it in place


class Capture:
    """The calls of layers whose parameters' per-example gradients have a factored form.

    Args:
        objective: made from a module.
        params: the parameters to watch, as leaves that the evaluation uses.
        count: examples, the first dimension of every watched layer's input.
        strict: refuse parameters without a factored form, instead of leaving them out.

    Attributes:
        left_out: after :meth:`check`, the parameters that have no factored form.

    Raises:
        CompositionError: the objective is a plain function.
        UnsupportedError: strict, and a parameter belongs to another kind of layer, or a layer mixes examples.

    >>> objective = Objective(nn.Linear(2, 1), nn.functional.mse_loss)
    >>> capture = Capture(objective, objective.params, 3)
    >>> with capture.watching():
    ...     z = objective.outputs((torch.ones(3, 2), None), objective.params)
    >>> capture.check(z)
    >>> capture.pull(z, [torch.ones_like(z)])["weight"].squared_norms()
    tensor([2., 2., 2.])
    """

    def __init__(self, objective: Objective, params: Params, count: int, strict: bool = False) -> None:
        self.params, self.count, self.strict = params, count, strict
        self._owners = _owners(objective, params, strict)
        self._calls: list[_Call] = []
        self.left_out: list[str] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this lasts, calls are remembered."""
        handles = [layer.register_forward_hook(self._hook(names)) for layer, names in self._owners.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def check(self, root: Tensor) -> None:
        """Find the parameters that ``root`` uses in other ways than by the calls remembered.

        Raises:
            UnsupportedError: strict, and there is one.
        """
        called = Counter(name for call in self._calls for name in call.names.values())
        kinds: dict[str, set[type[nn.Module]]] = {}
        for call in self._calls:
            for name in call.names.values():
                kinds.setdefault(name, set()).add(type(call.layer))
        used = dict(zip(self.params, uses([root], list(self.params.values())), strict=True))
        odd = [name for name in self.params if used[name] != called[name] or not _fit(kinds.get(name, set()))]
        if odd and self.strict:
            raise UnsupportedError(
                f"{odd[0]!r} is used outside the layer that owns it, or by layers of two kinds: its gradients have no "
                "factored form; use estimator='per_sample', or leave it untrained"
            )
        self.left_out = odd

    def pull(self, root: Tensor, cotangents: Sequence[Tensor], merge: bool = False) -> dict[str, Factors]:
        """Per-example gradients of ``<root, cotangent>``, in factored form, the cotangents one after the other.

        Args:
            root: what the evaluation returned.
            cotangents: each of its shape.
            merge: join each bias to its weight, as one more input that is always 1: under the weight's name.
        """
        edges = [call.edge for call in self._calls]
        if not edges:
            return {}
        found = [torch.autograd.grad(root, edges, u, retain_graph=True, allow_unused=True) for u in cotangents]
        return self.gathered([[part[k] for part in found] for k in range(len(edges))], merge)

    def edges(self) -> list[GradientEdge]:
        """Where the outputs of the remembered calls are in the graph."""
        return [call.edge for call in self._calls]

    def gathered(self, slopes: Sequence[Sequence[Tensor | None]], merge: bool = False) -> dict[str, Factors]:
        """The factors, from the gradients of each call's output, one for each cotangent."""
        factors: dict[str, Factors] = {}
        for call, own in zip(self._calls, slopes, strict=True):
            if all(d is None for d in own):
                continue
            shape = next(d for d in own if d is not None)
            stacked = torch.cat([torch.zeros_like(shape) if d is None else d for d in own])
            for name, part in self._of_call(call, stacked, merge).items():
                factors[name] = factors[name] + part if name in factors else part
        return factors

    def _of_call(self, call: _Call, d: Tensor, merge: bool) -> dict[str, Factors]:
        parts = LAYERS[type(call.layer)](call.layer, call.inputs, d)
        named = {call.names[own]: part for own, part in parts.items() if own in call.names}
        named = {name: part for name, part in named.items() if name not in self.left_out}
        weight, bias = call.names.get("weight", ""), call.names.get("bias", "")
        if merge and isinstance(found := named.get(weight), Product) and bias in named and self._once(weight, bias):
            del named[bias]
            named[weight] = Product(found.left, F.pad(found.right, (0, 1), value=1.0))
        return named

    def _once(self, *names: str) -> bool:
        return all(sum(name in call.names.values() for call in self._calls) == 1 for name in names)

    def _hook(self, names: dict[str, str]) -> Any:
        def forward(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach()
            if x.ndim == 0 or len(x) != self.count or len(output) != self.count:
                if not self.strict:
                    return
                raise UnsupportedError(
                    f"a {type(layer).__name__} got an input of shape {tuple(x.shape)} for {self.count} examples: "
                    "per-example gradients need the examples in the first dimension; use estimator='per_sample'"
                )
            if output.requires_grad:
                self._calls.append(_Call(layer, names, x, get_gradient_edge(output)))

        return forward


def _fit(kinds: set[type[nn.Module]]) -> bool:
    """Whether what layers of these kinds say about a parameter they share can be added."""
    return len(kinds) <= 1 or kinds == {nn.Embedding, nn.Linear}


def _owners(objective: Objective, params: Params, strict: bool) -> dict[nn.Module, dict[str, str]]:
    """The layers that own watched parameters, with the objective's name for each of them."""
    if objective.module is None:
        raise CompositionError("per-example factors need the layers of a module; use Objective(module, loss)")
    names = {id(objective.params[name]): name for name in params}
    owners: dict[nn.Module, dict[str, str]] = {}
    for layer in objective.module.modules():
        watched = {own: names[id(p)] for own, p in layer.named_parameters(recurse=False) if id(p) in names}
        if not watched:
            continue
        if type(layer) in LAYERS and not is_odd(layer):
            owners[layer] = watched
        elif strict:
            raise UnsupportedError(
                f"{next(iter(watched.values()))!r} belongs to a {type(layer).__name__}: factored gradients serve plain "
                f"{', '.join(kind.__name__ for kind in LAYERS)}; use estimator='per_sample', or leave it untrained"
            )
    return owners
