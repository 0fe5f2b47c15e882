"""A square root of the loss's Hessian by the outputs, ``S S^T = d^2 L / dz^2``, in closed form or by eigenvectors.

With N predictions, p their probabilities, ``s = sqrt(p)`` and m outputs::

    cross entropy   S = (diag(s) - p s^T) / sqrt(N)      exact without jitter, for s^T s = 1
    squared error   S = sqrt(2 / m)
    logistic        S = diag(sqrt(p (1 - p) / m))
    other losses    S = U sqrt(max(e, 0)), with U diag(e) U^T the Hessian of an example's loss over their number
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import hessian, vmap

from covector.curvature.outputs import CROSS_ENTROPY, LOGISTIC, SQUARED, Outputs
from covector.errors import UnsupportedError
from covector.linalg import symmetric_eigh
from covector.objective import Batch, Objective

__all__ = ["OutputRoot"]

# probabilities have roots that may be divided by above this
SMALL = 1e-3


class OutputRoot:
    """S of one batch, in float64: blocks ``[N, C, C]``, one for each prediction, and 1 x 1 where S is diagonal.

    Args:
        objective: made from a module.
        batch: one batch; its targets a tensor.
        outputs: of the module, a tensor; class scores in dimension 1.

    Attributes:
        loss: the loss, 0-d.
        gradient: ``r = dL / dz``, flat ``[m]``.

    Raises:
        UnsupportedError: a loss that has no closed form, on a batch that is not a pair of tensors.

    >>> objective = Objective(torch.nn.Linear(2, 3), torch.nn.functional.cross_entropy)
    >>> batch = (torch.ones(4, 2), torch.tensor([0, 1, 2, 0]))
    >>> root = OutputRoot(objective, batch, objective.outputs(batch))
    >>> u = torch.arange(12.0)
    >>> exact = Outputs(objective, batch, objective.params).hessian(u.view(4, 3)).flatten()
    >>> bool((root(root.transposed(u.double())) - exact).abs().max() < 1e-6)
    True
    """

    def __init__(self, objective: Objective, batch: Batch, outputs: Tensor) -> None:
        known = Outputs(objective, batch, objective.params, known=outputs.detach())
        self.kind, self.shape, self.count = known.kind, known.value.shape, known.count
        self.loss = known.loss
        self.gradient = known.gradient().detach().double().flatten()
        z = known.value.double()
        if self.kind == SQUARED:
            self.blocks = torch.full_like(z, (2.0 / z.numel()) ** 0.5).view(-1, 1, 1)
        elif self.kind == LOGISTIC:
            p = z.sigmoid().view(-1, 1, 1)
            self.blocks = (p * (1 - p) / z.numel()).sqrt()
        elif self.kind == CROSS_ENTROPY:
            self.blocks = self._softmax(z, batch[1])
        else:
            self.blocks = _eigenvectors(objective, batch, z)

    def __call__(self, u: Tensor) -> Tensor:
        """``S u``, for ``u`` ``[m]`` or ``[m, k]``."""
        return self._flat(self.blocks @ self._rows(u)).view(u.shape)

    def transposed(self, u: Tensor) -> Tensor:
        """``S^T u``, for ``u`` ``[m]`` or ``[m, k]``."""
        return self._flat(self.blocks.mT @ self._rows(u)).view(u.shape)

    def split(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """z and a rest with ``r = S z + rest``: what S cannot be divided out of without loss stays in the rest.

        For the gradient of these losses the rest is rounding, but for examples that are all but certain of a wrong
        class, and for losses that have a slope where they have no curvature.
        """
        rows = self._rows(r)
        if self.kind == CROSS_ENTROPY:
            # S z = r for z = sqrt(N) r / s, as r sums to zero
            z = torch.where(self.s > SMALL, rows / self.s.clamp_min(SMALL), 0.0) * float(self.count) ** 0.5
        else:
            z = torch.linalg.pinv(self.blocks, rtol=SMALL) @ rows
        z = self._flat(z).view(r.shape)
        return z, r - self(z)

    def _softmax(self, z: Tensor, targets: Tensor) -> Tensor:
        p = z.softmax(1) * (targets != -100).unsqueeze(1)
        p = p.movedim(1, -1).reshape(-1, p.shape[1], 1)
        self.s = p.sqrt()
        blocks: Tensor = torch.diag_embed(self.s[..., 0]) - p * self.s.mT
        return blocks / float(self.count) ** 0.5

    def _rows(self, u: Tensor) -> Tensor:
        """``[m, ...]`` as ``[N, C, k]``."""
        k = u.shape[1] if u.ndim > 1 else 1
        if self.kind == CROSS_ENTROPY:
            return u.reshape(*self.shape, k).movedim(1, -2).reshape(-1, self.shape[1], k)
        return u.reshape(len(self.blocks), -1, k)

    def _flat(self, rows: Tensor) -> Tensor:
        k = rows.shape[-1]
        if self.kind == CROSS_ENTROPY:
            batch, classes, *others = self.shape
            return rows.reshape(batch, *others, classes, k).movedim(-2, 1).reshape(-1, k)
        return rows.reshape(-1, k)


def _eigenvectors(objective: Objective, batch: Batch, z: Tensor) -> Tensor:
    loss = objective.loss
    pair = isinstance(batch, (tuple, list)) and isinstance(batch[1], Tensor)
    if loss is None or not pair:
        raise UnsupportedError(
            "the loss has no closed form: its outputs' Hessian needs Objective(module, loss) and a "
            "batch (inputs, targets) of tensors"
        )
    targets = batch[1].double() if batch[1].is_floating_point() else batch[1]
    one = hessian(lambda o, t: loss(o[None], t[None]))
    size = z[0].numel()
    blocks: Tensor = vmap(one)(z, targets).reshape(-1, size, size) / len(z)
    values, vectors = symmetric_eigh(blocks)
    # curvature that is negative is none: the matrix stays positive
    return torch.mul(vectors, values.clamp_min(0.0).sqrt().unsqueeze(-2))
