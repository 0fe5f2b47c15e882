"""Steepest descent in a norm: ``-lr ||G||_* T(G)``, the minimizer of ``<G, D> + ||D||^2 / (2 lr)``.

In the norm of a whole model, the largest of its layers', every layer moves along its own ``T(G_l)`` and all by the
same factor, the sum of all dual norms. Without averages Adam's step is the direction ``T`` of the largest element,
Shampoo's that of the largest singular value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from covector.optim.advance import state_dtype
from covector.optim.matrices import map_matrices
from covector.optim.normed import NormOptimizer
from covector.optim.norms import MatrixNorm
from covector.optim.optimizer import Params
from covector.optim.roles import Roles
from covector.optim.rule import Rule
from covector.optim.sgd import plain
from covector.optim.slots import Bucket, Slots

__all__ = ["Dualize", "SteepestDescent"]

GRADIENT = Rule(plain, (), lambda t, group: ())


class Dualize:
    """Slot 1: gradients, which are covectors, become the vectors that are steepest in the norms of their parameters.

    Args:
        norms: by the name of the composition in which they are used.
        coupled: one factor for all layers, the sum of their dual norms; else each layer has its own.

    >>> Dualize({}, coupled=True)([])
    """

    def __init__(self, norms: Mapping[str, MatrixNorm], coupled: bool) -> None:
        self.norms, self.coupled = norms, coupled

    def __call__(self, buckets: Sequence[Bucket]) -> None:
        found = [self._directions(bucket) for bucket in buckets]
        duals = [
            [abs(sign) * (g * d).sum() for sign, g, d in zip(bucket.signs, grads, directions, strict=True)]
            for bucket, (grads, directions) in zip(buckets, found, strict=True)
        ]
        total = sum((float(dual) for row in duals for dual in row), 0.0)
        for bucket, (_, directions), row in zip(buckets, found, duals, strict=True):
            bucket.grads = [
                (d * (total if self.coupled else dual)).to(p.dtype)
                for p, d, dual in zip(bucket.params, directions, row, strict=True)
            ]
            bucket.signs = [float(sign > 0) - float(sign < 0) for sign in bucket.signs]

    def _directions(self, bucket: Bucket) -> tuple[list[Tensor], list[Tensor]]:
        norm, kind = self.norms[bucket.group["slots"]], state_dtype(bucket.params[0].dtype)
        grads = [g.to(kind) for g in bucket.grads]
        return grads, map_matrices(lambda stack: norm.lmo(stack.matrices), grads, bucket.group)


class SteepestDescent(NormOptimizer):
    """Steepest descent in the norm of a model's layers.

    Args:
        params: a module (norms are chosen by role), parameters, or param groups.
        lr: learning rate, default 1e-2; ``1 / lr`` is the sharpness of the loss in the norm.
        norm: ``"auto"``, or one norm for all.
        weight_decay: strength, decoupled.
        coupled: one factor for all layers, the dual norm of the model; false: each layer its own.
        method: of polar factors.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Bernstein and Newhouse, "Old optimizer, new norm: an anthology", 2024, Propositions 1 and 2.

    >>> import torch
    >>> from covector.optim import MaxAbs
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, -1.0])
    >>> SteepestDescent([p], lr=1.0, norm=MaxAbs()).update()[p]
    tensor([-4.,  4.])
    """

    def __init__(
        self,
        params: Params | Roles,
        lr: float | Tensor = 1e-2,
        norm: str | MatrixNorm = "auto",
        weight_decay: float = 0.0,
        *,
        coupled: bool = True,
        method: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(
            params, norm, lambda _: Slots(GRADIENT), lr, method=method, weight_decay=weight_decay, **options
        )
        self.transforms.append(Dualize(self.norms, coupled))
