"""The gradient of each example of a batch, and its inner product with a direction, by function transforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.func import grad_and_value, jvp, vmap

from covector.objective import Batch, Objective
from covector.trees import Params

__all__ = ["inner_products", "leaves_of", "per_example_gradients", "split"]


def per_example_gradients(objective: Objective, batch: Batch) -> tuple[Tensor, Params]:
    """Losses ``[B]`` and gradients ``[B, *shape]`` of the examples, each as a batch of one, at the live parameters.

    Their mean is the batch's gradient wherever the loss is a mean over examples and no layer mixes them, as batch
    normalization does.

    >>> import torch
    >>> objective = Objective(torch.nn.Linear(2, 1, bias=False), torch.nn.functional.mse_loss)
    >>> _ = torch.nn.init.zeros_(objective.params["weight"])
    >>> per_example_gradients(objective, (torch.eye(2), torch.ones(2, 1)))[1]["weight"].abs().squeeze(1)
    tensor([[2., 0.],
            [0., 2.]])
    """
    leaves, rebuild = leaves_of(batch, objective.size(batch))
    live = {name: p.detach() for name, p in objective.params.items()}

    def one(params: Params, *example: Tensor) -> Tensor:
        return objective(rebuild([leaf[None] for leaf in example]), params)

    together = vmap(grad_and_value(one), in_dims=(None, *[0] * len(leaves)), randomness="different")
    gradients, losses = together(live, *leaves)
    return losses.detach(), {name: g.detach() for name, g in gradients.items()}


def inner_products(objective: Objective, batch: Batch, direction: Params) -> Tensor:
    """``<g_i, direction>`` of each example, ``[B]``: one forward pass with tangents, no gradient is formed.

    >>> import torch
    >>> objective = Objective.from_function(lambda p, batch: (p["x"] * batch).sum(1).mean(), {"x": torch.zeros(2)})
    >>> inner_products(objective, torch.eye(2), {"x": torch.tensor([3.0, 4.0])})
    tensor([3., 4.])
    """
    live = {name: p.detach() for name, p in objective.params.items()}
    tangents: Tensor = jvp(lambda params: objective.per_example(batch, params), (live,), (direction,))[1]
    return tangents.detach()


def split(batch: Batch, size: int, count: int) -> list[Batch]:
    """Micro-batches of ``size`` of the ``count`` examples, the last one perhaps smaller.

    >>> import torch
    >>> [len(x) for x, y in split((torch.zeros(5, 2), torch.zeros(5)), 2, 5)]
    [2, 2, 1]
    """
    if size >= count:
        return [batch]
    leaves, rebuild = leaves_of(batch, count)
    return [rebuild(list(parts)) for parts in zip(*(leaf.split(size) for leaf in leaves), strict=True)]


def leaves_of(batch: Batch, size: int) -> tuple[list[Tensor], Callable[[list[Any]], Batch]]:
    """The tensors with a row for each example, and the function that puts others in their place.

    >>> import torch
    >>> parts, rebuild = leaves_of((torch.zeros(3, 2), torch.ones(3), "name"), 3)
    >>> len(parts), rebuild([part[:1] for part in parts])[2]
    (2, 'name')
    """
    if isinstance(batch, Tensor):
        return [batch], lambda parts: parts[0]
    items = dict(batch) if isinstance(batch, Mapping) else dict(enumerate(batch))
    keys = [key for key, value in items.items() if isinstance(value, Tensor) and value.ndim and len(value) == size]

    def rebuild(parts: list[Any]) -> Batch:
        filled = {**items, **dict(zip(keys, parts, strict=True))}
        return filled if isinstance(batch, Mapping) else tuple(filled.values())

    return [items[key] for key in keys], rebuild
