"""What the scatter of gradients over examples says: the gap to come, the noise of a batch, and what shuffling gains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from covector import trees
from covector.curvature import per_example_norms
from covector.errors import ArgumentError
from covector.objective import Batch, Objective
from covector.trees import Params

__all__ = ["GradientScatter", "gradient_scatter", "scatter_of_batches", "sgd_advantage"]


class GradientScatter(NamedTuple):
    """How much the gradients of single examples differ, at one point.

    Attributes:
        trace: of their covariance, ``E |g_i - E g|^2``, without bias.
        square: of the norm of their mean, ``|E g|^2``, without bias: it may come out below zero.
        examples: that were measured.

    >>> scatter = GradientScatter(trace=8.0, square=2.0, examples=64)
    >>> scatter.noise_scale, scatter.gap_rate(lr=0.1)
    (4.0, 0.0125)
    """

    trace: float
    square: float
    examples: int

    @property
    def noise_scale(self) -> float:
        """``trace / square``: the batch size at which noise and signal of a gradient are equal (McCandlish 2018)."""
        return self.trace / self.square if self.square > 0 else float("inf")

    def gap_rate(self, lr: float, examples: int | None = None) -> float:
        """What a step of gradient descent on data not seen before adds to test loss minus training loss.

        ``lr trace / N``, up to terms of second order in ``lr``.

        Args:
            lr: learning rate.
            examples: N of the training set; default: those that were measured.
        """
        return lr * self.trace / (examples or self.examples)


def gradient_scatter(objective: Objective, batch: Batch) -> GradientScatter:
    """Measure how gradients differ over the examples of a batch, without forming any of them where layers allow.

    Args:
        objective: whose loss is a mean over examples.
        batch: at least two examples.

    Raises:
        ArgumentError: fewer than two examples.

    Source: Zhang, Xu, "Stochastic gradient descent implicitly regularizes generalization error" (2021).

    >>> from torch import nn
    >>> objective = Objective(nn.Linear(1, 1, bias=False), lambda outputs, targets: (outputs * targets).mean())
    >>> found = gradient_scatter(objective, (torch.ones(2, 1), torch.tensor([[1.0], [3.0]])))  # gradients 1 and 3
    >>> found.trace, found.square
    (2.0, 3.0)
    """
    count = objective.size(batch)
    if count < 2:
        raise ArgumentError("batch", f"{count} example", "at least two examples: one does not scatter")
    squares = per_example_norms(objective, batch).double().square()
    mean = _gradient(objective, batch)
    square = trees.dot(mean, mean)
    trace = (float(squares.mean()) - square) * count / (count - 1)
    return GradientScatter(trace, square - trace / count, count)


def scatter_of_batches(objective: Objective, batches: Iterable[Batch]) -> GradientScatter:
    """The same from the gradients of batches: for models of any size and layers of any kind.

    Batches of B examples scatter ``trace / B``. Two vectors as long as the parameters are kept.

    Args:
        objective: whose loss is a mean over examples.
        batches: at least two, of equal size, without an example in common.

    Raises:
        ArgumentError: fewer than two batches, or batches of unequal size.

    >>> from torch import nn
    >>> objective = Objective(nn.Linear(1, 1, bias=False), lambda outputs, targets: (outputs * targets).mean())
    >>> batches = [(torch.ones(1, 1), torch.tensor([[y]])) for y in (1.0, 3.0)]  # gradients 1 and 3
    >>> found = scatter_of_batches(objective, batches)
    >>> found.trace, found.square
    (2.0, 3.0)
    """
    total: Params | None = None
    squares, sizes = 0.0, []
    for batch in batches:
        gradient = _gradient(objective, batch)
        sizes.append(objective.size(batch))
        squares += trees.dot(gradient, gradient)
        if total is None:
            total = trees.clone(gradient)
        else:
            trees.axpy_(total, gradient)
    if total is None or len(sizes) < 2 or len(set(sizes)) > 1:
        raise ArgumentError("batches", f"{len(sizes)} of sizes {sorted(set(sizes))}", "at least two, of equal size")
    count, size = len(sizes), sizes[0]
    square = trees.dot(total, total) / count**2
    variance = (squares / count - square) * count / (count - 1)  # of a batch's gradient
    return GradientScatter(variance * size, square - variance / count, count * size)


def sgd_advantage(
    objective: Objective, batch: Batch, lr: float, examples: int | None = None, steps: int = 2, epsilon: float = 1e-3
) -> float:
    """By how much one pass of SGD ends below gradient descent of as many steps, in expected test loss.

    ``lr^2 / (2 N) * steps (steps - 1) / 2 * <g, grad trace(C)>``: SGD sees other data in each step, gradient descent
    the same; it gains where going downhill lowers the scatter of gradients. To second order in ``lr``.

    Args:
        objective: whose loss is a mean over examples.
        batch: at least two examples, to measure on.
        lr: learning rate of both.
        examples: N, that either sees; default: those of ``batch``.
        steps: of both; SGD's batches are disjoint parts of the N examples.
        epsilon: length of the central difference along the gradient, over the length of the parameters.

    Raises:
        ArgumentError: fewer than two examples or two steps, or ``epsilon`` not positive.

    >>> from torch import nn
    >>> objective = Objective(nn.Linear(1, 1, bias=False), nn.functional.mse_loss)
    >>> _ = nn.init.ones_(objective.params["weight"])
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> sgd_advantage(objective, (x, 0 * x), lr=0.1) > 0
    True
    """
    if steps < 2:
        raise ArgumentError("steps", steps, "a whole number of at least 2")
    if not epsilon > 0:
        raise ArgumentError("epsilon", epsilon, "a positive number")
    gradient = _gradient(objective, batch)
    length = trees.norm(gradient)
    if length == 0:
        return 0.0
    reach = epsilon * max(trees.norm(objective.params), 1e-3) / length
    ahead, behind = (_trace_at(objective, batch, gradient, sign * reach) for sign in (1, -1))
    slope = (ahead - behind) / (2 * reach)
    return lr**2 / (2 * (examples or objective.size(batch))) * steps * (steps - 1) / 2 * slope


def _gradient(objective: Objective, batch: Batch) -> Params:
    params = objective.params
    parts: tuple[Tensor, ...] = torch.autograd.grad(objective(batch), list(params.values()), materialize_grads=True)
    return dict(zip(params, parts, strict=True))


def _trace_at(objective: Objective, batch: Batch, direction: Params, reach: float) -> float:
    with _moved(objective.params, direction, reach):
        return gradient_scatter(objective, batch).trace


@contextmanager
def _moved(params: Params, direction: Params, reach: float) -> Iterator[None]:
    before = trees.clone(params)
    trees.axpy_(params, direction, reach)
    try:
        yield
    finally:
        trees.copy_(params, before)
