"""The loss as a function of a batch's outputs, to second order: ``r = dL/dz`` and ``S S^T = d^2 L/dz^2``.

To solve with the Gauss-Newton matrix, r is wanted as ``S z + rest``, with nothing left for the usual losses. For cross
entropy, ``S = (diag(s) - p s^T) / sqrt(N)`` with ``s = sqrt(p)`` is singular, and yet ``z = sqrt(N) r / s`` solves
``S z = r``, for r sums to zero: r lies in the range of S, and the pseudo-inverse finds it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from covector.curvature.gram import roots
from covector.curvature.outputs import LOGISTIC, SQUARED, Outputs
from covector.objective import Batch, Objective

__all__ = ["OutputRoot"]

# singular values, relative to the largest, that may be divided by
SMALL = 1e-3


class OutputRoot:
    """r and S of one batch, in float64; vectors are flat over all outputs of all examples.

    Args:
        objective: made from a module.
        batch: one batch.
        outputs: of the module, a tensor; class scores in dimension 1.

    Attributes:
        loss: the loss, 0-d.
        gradient: r ``[m]``.
        blocks: S, a matrix for each example, ``[B, Q, columns]``.

    >>> objective = Objective(torch.nn.Linear(2, 3), torch.nn.functional.cross_entropy)
    >>> batch = (torch.ones(4, 2), torch.tensor([0, 1, 2, 0]))
    >>> root = OutputRoot(objective, batch, objective.outputs(batch))
    >>> u = torch.arange(12.0)
    >>> exact = Outputs(objective, batch, objective.params).hessian(u.view(4, 3)).flatten()
    >>> bool((root(root.transposed(u.double())) - exact).abs().max() < 1e-6)
    True
    """

    def __init__(self, objective: Objective, batch: Batch, outputs: Tensor) -> None:
        self._outputs = Outputs(objective, batch, objective.params, known=outputs.detach())
        self.loss = self._outputs.loss
        self.gradient = self._outputs.gradient().detach().double().flatten()
        size = len(outputs)
        self.blocks = torch.stack([column.double().reshape(size, -1) for column in roots(self._outputs)], 2)

    def __call__(self, u: Tensor) -> Tensor:
        """``S u``, for ``u`` ``[columns]`` or ``[columns, k]``."""
        return _by_example(self.blocks, u)

    def transposed(self, u: Tensor) -> Tensor:
        """``S^T u``, for ``u`` ``[m]`` or ``[m, k]``."""
        return _by_example(self.blocks.mT, u)

    def split(self) -> tuple[Tensor, Tensor]:
        """z and a rest with ``r = S z + rest``: what cannot be divided by S without loss stays in the rest.

        It is rounding, but for examples that are all but certain of a wrong class, and losses that have a slope where
        they have no curvature.
        """
        if self._outputs.kind in (SQUARED, LOGISTIC):
            diagonal = self.blocks.diagonal(dim1=1, dim2=2).flatten()
            z = torch.where(diagonal > SMALL * diagonal.max(), self.gradient / diagonal, 0.0)
        else:
            rows = self.gradient.view(len(self.blocks), -1, 1)
            z = (torch.linalg.pinv(self.blocks, rtol=SMALL) @ rows).flatten()
        return z, self.gradient - self(z)


def _by_example(blocks: Tensor, u: Tensor) -> Tensor:
    found: Tensor = blocks @ u.reshape(len(blocks), blocks.shape[2], -1)
    return found.reshape(-1, *u.shape[1:])
