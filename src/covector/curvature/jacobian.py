"""The Jacobian of the module's outputs by its parameters, and the tangent kernel made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from covector.curvature.flat import Selection
from covector.curvature.linearization import Linearization
from covector.curvature.operator import Backend, CurvatureOperator, each
from covector.curvature.outputs import outputs_of
from covector.errors import ArgumentError
from covector.linalg import LinearOperator
from covector.objective import Batch, Objective

__all__ = ["Jacobian", "TangentKernel"]


class Jacobian(CurvatureOperator):
    """``J = dz/d theta`` ``[m, n]``, ``z`` the outputs for all examples of all batches, one after the other.

    Args:
        objective: made from a module; its loss plays no part, but for the check that it can be evaluated.
        batches: one batch, a list of batches, or a loader that keeps its order.
        backend: see :mod:`covector.curvature.linearization`.
        params: columns of some parameters only, by names or a predicate.
        keep: whether to keep graphs; default: for one batch and lists of up to 16.

    Raises:
        ArgumentError: a loader that shuffles: the rows would change their order.

    >>> line = torch.nn.Linear(2, 1)
    >>> op = Jacobian(Objective(line, torch.nn.functional.mse_loss), (torch.eye(2), torch.zeros(2, 1)))
    >>> op @ torch.tensor([3.0, 4.0, 1.0]), op.T @ torch.ones(2)
    (tensor([4., 5.]), tensor([1., 1., 2.]))
    """

    def __init__(
        self,
        objective: Objective,
        batches: Any,
        *,
        backend: Backend = "auto",
        params: Selection = None,
        keep: bool | None = None,
    ) -> None:
        if isinstance(batches, DataLoader) and isinstance(batches.sampler, RandomSampler):
            raise ArgumentError("batches", "a DataLoader with shuffle=True", "one that keeps its order")
        super().__init__(objective, batches, backend=backend, params=params, keep=keep, symmetric=False)
        with torch.no_grad():
            shapes = [outputs_of(objective, batch, objective.params).shape for batch, _ in self.batches]
        self.sizes = [shape.numel() for shape in shapes]
        self.shape = (sum(self.sizes), self.shape[1])

    def term(self, batch: Batch, backend: Backend, index: int) -> Callable[[Tensor], Tensor]:
        return _Both(self.linearize(lambda params: outputs_of(self.objective, batch, params), backend))

    def rows(self, block: Tensor) -> Tensor:
        parts = [each(lambda v, line=line: line.push(v).reshape(-1), block) for line in self._lines()]  # type: ignore[misc]
        return torch.cat(parts, 1).to(self.dtype)

    def transposed_rows(self, block: Tensor) -> Tensor:
        found = torch.zeros(len(block), self.shape[1], dtype=torch.float64, device=self.device)
        for line, part in zip(self._lines(), block.split(self.sizes, 1), strict=True):
            found += each(lambda u, line=line: line.pull(u.view(line.value.shape).to(line.value.dtype)), part)  # type: ignore[misc]
        return found.to(self.dtype)

    def _lines(self) -> Iterator[Linearization]:
        assert self.backend
        for index, (batch, _) in enumerate(self.batches):
            term = self._term(index, batch)
            assert isinstance(term, _Both)
            yield term.line


class _Both:
    """A linearization as a product, which shows whether both its directions work."""

    def __init__(self, line: Linearization) -> None:
        self.line = line

    def __call__(self, vector: Tensor) -> Tensor:
        return self.line.pull(self.line.push(vector))


class TangentKernel(LinearOperator):
    """``K = J J^T`` ``[m, m]`` between all outputs of all examples: the neural tangent kernel, as products.

    For the matrix of one batch :func:`covector.curvature.gram` is many times faster.

    Args:
        objective: made from a module.
        batches: one batch, a list of batches, or a loader that keeps its order.
        options: as of :class:`Jacobian`, which is ``.jacobian``.

    Source: Jacot, Gabriel, Hongler, "Neural tangent kernel", arXiv:1806.07572.

    >>> line = torch.nn.Linear(2, 1)
    >>> TangentKernel(Objective(line, torch.nn.functional.mse_loss), (torch.eye(2), torch.zeros(2, 1))).dense()
    tensor([[2., 1.],
            [1., 2.]])
    """

    def __init__(self, objective: Objective, batches: Any, **options: Any) -> None:
        self.jacobian = Jacobian(objective, batches, **options)
        size = self.jacobian.shape[0]
        super().__init__((size, size), self.jacobian.dtype, self.jacobian.device, symmetric=True, positive=True)

    @property
    def backend(self) -> Backend:
        """The back end in use."""
        return self.jacobian.backend

    def rows(self, block: Tensor) -> Tensor:
        return self.jacobian.rows(self.jacobian.transposed_rows(block))
