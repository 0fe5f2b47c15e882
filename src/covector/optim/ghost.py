"""Ghost norms: the moments of per-example gradients out of one ordinary backward pass, none of them formed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from covector import trees
from covector.errors import CompositionError, UnsupportedError
from covector.objective import Batch, Objective
from covector.optim.ghost_layers import LAYERS, Factors
from covector.optim.moments import GradientMoments, inner_variances
from covector.trees import Params

__all__ = ["GhostNorms"]


class GhostNorms:
    """Per-example gradients of a batch in factored form, kept while it is backpropagated.

    Serves ``nn.Linear``, ``nn.Conv2d`` (one group, no circular or named padding), ``nn.Embedding`` and
    ``nn.LayerNorm``, shared ones included. The examples must be the first dimension of every such layer's input, and
    the loss their mean.

    Args:
        objective: made from a module; all its trained parameters belong to such layers.
        batch: the batch, at least one example.

    Attributes:
        loss: the mean loss.
        gradient: its gradient.
        factors: of each parameter, the gradients of its examples.

    Raises:
        CompositionError: the objective is a plain function.
        UnsupportedError: a trained parameter belongs to another kind of layer, or a layer mixes examples.

    >>> objective = Objective(nn.Linear(2, 1, bias=False), nn.functional.mse_loss)
    >>> _ = nn.init.zeros_(objective.params["weight"])
    >>> GhostNorms(objective, (3 * torch.eye(2), torch.ones(2, 1))).squared_norms()
    tensor([36., 36.], dtype=torch.float64)
    """

    def __init__(self, objective: Objective, batch: Batch) -> None:
        owners = _owners(objective)
        self.count = objective.size(batch)
        self.factors: dict[str, Factors] = {}
        with torch.enable_grad(), self._watching(owners):
            loss = objective(batch)
            tensors = torch.autograd.grad(loss, list(objective.params.values()), allow_unused=True)
        self.loss = float(loss.detach())
        self.gradient: Params = {
            name: torch.zeros_like(p, requires_grad=False) if g is None else g
            for (name, p), g in zip(objective.params.items(), tensors, strict=True)
        }

    def squared_norms(self) -> Tensor:
        """``||g_i||^2`` over all parameters, ``[B]``."""
        norms = torch.zeros(self.count, dtype=torch.float64)
        for factors in self.factors.values():
            norms += factors.squared_norms().double().cpu()
        return norms

    def products(self, direction: Params) -> Params:
        """``<g_i, direction>`` of each parameter's own part, ``[B]``."""
        return {name: factors.along(direction[name]) for name, factors in self.factors.items()}

    def moments(self, inner: bool = False, variance: bool = False) -> GradientMoments:
        """The moments of the batch.

        Args:
            inner: whether to measure the inner variances: one more matrix product a layer.
            variance: whether to measure the variance of each coordinate: for sequences, this does form the gradients,
                a layer at a time.
        """
        n, mean = self.count, self.gradient
        if n < 2:
            return GradientMoments(n, mean, math.nan)
        scatter = float(self.squared_norms().sum()) - n * trees.dot(mean, mean)
        pair = inner_variances(self.products(mean)) if inner else (None, None)
        return GradientMoments(n, mean, scatter / (n - 1), *pair, self._variance() if variance else None)

    def _variance(self) -> Params:
        n, found = self.count, {}
        for name, mean in self.gradient.items():
            sums = self.factors[name].squares().reshape(mean.shape) if name in self.factors else mean * 0
            found[name] = ((sums - n * mean.square()) / (n - 1)).clamp_(min=0.0)
        return found

    @contextmanager
    def _watching(self, owners: dict[nn.Module, dict[str, str]]) -> Iterator[None]:
        handles = [layer.register_forward_hook(self._hook(names)) for layer, names in owners.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, names: dict[str, str]) -> Any:
        def forward(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach()
            if x.ndim == 0 or len(x) != self.count:
                raise UnsupportedError(
                    f"a {type(layer).__name__} got an input of shape {tuple(x.shape)} for {self.count} examples: ghost "
                    "norms need the examples in the first dimension; use estimator='per_sample'"
                )
            output.register_hook(lambda d: self._record(layer, names, x, d.detach()))

        return forward

    def _record(self, layer: nn.Module, names: dict[str, str], x: Tensor, d: Tensor) -> None:
        # d comes from the mean of the losses, an example's own gradient from its loss
        for own, factors in LAYERS[type(layer)](layer, x, d * self.count).items():
            if own in names:
                name = names[own]
                self.factors[name] = self.factors[name] + factors if name in self.factors else factors


def _owners(objective: Objective) -> dict[nn.Module, dict[str, str]]:
    """The layers that own trained parameters, with the objective's name for each of them."""
    if objective.module is None:
        raise CompositionError("ghost norms need the layers of a module; use Objective(module, loss)")
    names = {id(p): name for name, p in objective.params.items()}
    kinds: dict[str, set[type[nn.Module]]] = {}
    owners: dict[nn.Module, dict[str, str]] = {}
    for layer in objective.module.modules():
        trained = {own: names[id(p)] for own, p in layer.named_parameters(recurse=False) if id(p) in names}
        if not trained:
            continue
        if type(layer) not in LAYERS or _odd(layer):
            raise UnsupportedError(
                f"{next(iter(trained.values()))!r} belongs to a {type(layer).__name__}: ghost norms serve plain "
                f"{', '.join(kind.__name__ for kind in LAYERS)}; use estimator='per_sample', or leave it untrained"
            )
        for name in trained.values():
            kinds.setdefault(name, set()).add(type(layer))
        owners[layer] = trained
    if shared := [name for name, found in kinds.items() if len(found) > 1]:
        raise UnsupportedError(f"{shared[0]!r} is shared by layers of two kinds; use estimator='per_sample'")
    return owners


def _odd(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups != 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros"
    if isinstance(layer, nn.Embedding):
        return layer.scale_grad_by_freq or layer.max_norm is not None or layer.sparse
    return False
