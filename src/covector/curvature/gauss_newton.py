"""The generalized Gauss-Newton matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from covector.curvature.flat import Selection
from covector.curvature.linearization import Linearization
from covector.curvature.operator import Backend, CurvatureOperator
from covector.curvature.outputs import Outputs, main_output, raw_outputs
from covector.objective import Batch, Objective
from covector.trees import Params

__all__ = ["GaussNewton"]


class GaussNewton(CurvatureOperator):
    """``G = J^T B J``: the Hessian without the curvature of the module, ``B`` that of the loss by the outputs.

    Positive semi-definite wherever the loss is convex in the outputs, as cross entropy and squared error are; for
    them ``B`` is in closed form, and ``G`` is the true Fisher matrix of the model.

    Args:
        objective: made from a module that returns a tensor, or an output with ``.logits`` that its loss is of.
        batches: one batch, a list of batches, or a loader; see :class:`CurvatureOperator`.
        backend: how ``J v`` and ``J^T u`` are taken; see :mod:`covector.curvature.linearization`.
        params: a sub-block, by names or a predicate.
        keep: whether to keep graphs; default: for one batch and lists of up to 16.

    Raises:
        CompositionError: the objective is a plain function.

    Source: Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural
    Computation 14 (2002).

    >>> import torch
    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> op = GaussNewton(Objective(line, torch.nn.functional.mse_loss), (torch.eye(2), torch.zeros(2, 1)))
    >>> op.dense()  # 2/N sum of x x^T
    tensor([[1., 0.],
            [0., 1.]])
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
        super().__init__(objective, batches, backend=backend, params=params, keep=keep, positive=True)

    def term(self, batch: Batch, backend: Backend, index: int) -> Callable[[Tensor], Tensor]:
        line, outputs = self.outputs(batch, backend)
        return lambda vector: line.pull(outputs.hessian(line.push(vector)))

    def outputs(self, batch: Batch, backend: Backend) -> tuple[Linearization, Outputs]:
        """The outputs of a batch, as a function of the parameters, and the loss as a function of them."""
        plain = True

        def function(params: Params) -> Tensor:
            nonlocal plain
            raw = raw_outputs(self.objective, batch, params)
            plain = isinstance(raw, Tensor)
            return main_output(raw)

        line = self.linearize(function, backend)
        _, everything = self.leaves()
        return line, Outputs(self.objective, batch, everything, known=line.value if plain else None)
