"""Slot 3: the eigenbasis of Shampoo's statistics, in which an elementwise rule whitens.

``L = EMA(G G^T)``, ``R = EMA(G^T G)``, eigenvectors ``QL``, ``QR``: a rule sees ``QL^T G QR``, and its direction ``D``
becomes ``QL D QR^T``. The basis is made of the first gradient, whose step is left out, and renewed every ``refresh``
steps, either by one step of the power iteration and a QR factorization (from one basis to the next eigenvectors turn
little) or by an eigendecomposition. Averages of gradients are carried over exactly; averages of squares have no exact
image, and are only reordered as the columns are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from covector.errors import ArgumentError
from covector.linalg import orthonormalize, symmetric_eigh
from covector.optim.matrices import Stack, from_matrices, stacks
from covector.optim.slots import Bucket
from covector.optim.variance import VARIANCES, advance_squares, squares

__all__ = ["Eigenbasis"]

SIDES = {"left": -2, "right": -1}
States = list[dict[str, Any]]


class Eigenbasis:
    """Coordinates in which the second moments of a gradient are nearly diagonal.

    Reads ``betas`` from the param group, and ``statistics_beta`` if it is there (default ``betas[1]``).

    Args:
        refresh: steps from one basis to the next.
        method: ``"qr"`` (power iteration) or ``"eigh"``.
        max_dim: a side with more rows (columns) than this is not rotated.
        variance: ``"none"``: the rule does it; ``"lowrank"`` or ``"rows"``: divide here, by averages of squares in the
            basis that take ``m + n`` or ``m`` numbers.

    Raises:
        ArgumentError: a setting out of range.

    >>> Eigenbasis(refresh=10).method
    'qr'
    """

    def __init__(self, refresh: int = 10, method: str = "qr", max_dim: int = 10_000, variance: str = "none") -> None:
        if refresh < 1:
            raise ArgumentError("refresh", refresh, "a whole number of at least 1")
        if method not in ("qr", "eigh"):
            raise ArgumentError("method", method, "'qr' or 'eigh'")
        if variance not in VARIANCES or variance == "full":
            raise ArgumentError("variance", variance, "'full', 'lowrank' or 'rows'")
        self.refresh, self.method, self.max_dim, self.variance = refresh, method, max_dim, variance

    def project(self, bucket: Bucket, grads: list[Tensor]) -> list[Tensor]:
        """``QL^T G QR`` as ``[blocks, m, n]``; zeros for a first gradient, of which the basis is made."""
        out = list(grads)
        for stack in stacks(grads, bucket.group):
            if not stack.known(bucket.states, "seen"):
                self._begin(stack, bucket)
                rotated = torch.zeros_like(stack.matrices)
            else:
                rotated = significant(self._rotate(stack, bucket.states, stack.matrices))
                if self.variance != "none":
                    advance_squares(self.variance, stack, bucket.states, rotated, bucket.group["betas"][1])
            for i, value in zip(stack.owners, stack.split(rotated), strict=True):
                out[i] = value
        return out

    def lift(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """``QL D QR^T``, shaped as the gradients; statistics and basis then take in the gradient."""
        group, states = bucket.group, bucket.states
        out = list(directions)
        for stack in stacks(grads, group):
            rotated = torch.cat([directions[i] for i in stack.owners])
            if self.variance != "none" and stack.known(states, "row_sq"):
                corrected = squares(self.variance, stack, states) / (1 - group["betas"][1] ** (bucket.t - 1))
                rotated = rotated / (corrected.sqrt() + group["eps"])
            lifted = self._rotate(stack, states, rotated, back=True)
            for i, value in zip(stack.owners, stack.split(lifted), strict=True):
                out[i] = from_matrices(value, grads[i], group.get("transposed", False))
            if bucket.t > 1:
                self._collect(stack, bucket)
                if int(bucket.t - 1) % self.refresh == 0:
                    self._renew(stack, bucket)
        return out

    def _sides(self, stack: Stack) -> list[str]:
        return [side for side, dim in SIDES.items() if stack.matrices.shape[dim] <= self.max_dim]

    def _rotate(self, stack: Stack, states: States, x: Tensor, back: bool = False) -> Tensor:
        """``QL^T X QR``, or ``QL X QR^T`` back."""
        for side in self._sides(stack):
            q = stack.read(states, side + "_basis")
            x = (q if back else q.mT) @ x if side == "left" else x @ (q.mT if back else q)
        return x

    def _begin(self, stack: Stack, bucket: Bucket) -> None:
        stack.write(bucket.states, "seen", torch.ones(len(stack.matrices), dtype=torch.bool))
        self._collect(stack, bucket)
        for side in self._sides(stack):
            stack.write(bucket.states, side + "_basis", eigenvectors(stack.read(bucket.states, side)))

    def _collect(self, stack: Stack, bucket: Bucket) -> None:
        """``L <- b L + (1 - b) G G^T``, ``R <- b R + (1 - b) G^T G``."""
        g, beta = stack.matrices, bucket.group.get("statistics_beta") or bucket.group["betas"][1]
        for side in self._sides(stack):
            now = g @ g.mT if side == "left" else g.mT @ g
            past = stack.read(bucket.states, side) if stack.known(bucket.states, side) else torch.zeros_like(now)
            stack.write(bucket.states, side, past * beta + now * (1 - beta))

    def _renew(self, stack: Stack, bucket: Bucket) -> None:
        """A new basis, and the rule's states in it."""
        states = bucket.states
        names = [name for name in (*bucket.slots.rule.states, "row_sq", "column_sq") if stack.known(states, name)]
        averages = [name for name in names if not name.endswith("_sq")]
        plain = {name: self._rotate(stack, states, stack.read(states, name), back=True) for name in averages}
        for side in self._sides(stack):
            statistics, basis = stack.read(states, side), stack.read(states, side + "_basis")
            if self.method == "eigh":
                stack.write(states, side + "_basis", eigenvectors(statistics))
                continue
            order = (basis * (statistics @ basis)).sum(-2).argsort(-1, descending=True)
            basis = basis.gather(-1, order.unsqueeze(-2).expand_as(basis))
            stack.write(states, side + "_basis", orthonormalize(statistics @ basis, check=False))
            for name in set(names) - set(averages):
                stack.write(states, name, reorder(stack.read(states, name), order, SIDES[side]))
        for name, value in plain.items():
            stack.write(states, name, self._rotate(stack, states, value))


def significant(x: Tensor) -> Tensor:
    """``x [batch, m, n]`` with zeros where an element is no more than the rounding errors of the others.

    A gradient of low rank leaves most of the basis empty; a rule that divides by the root of a mean square, or takes
    signs, would blow up the rounding errors that are left there.

    >>> significant(torch.tensor([[[1.0, 1e-8]]]))
    tensor([[[1., 0.]]])
    """
    level = x.square().mean((-2, -1), keepdim=True).sqrt() * (64 * torch.finfo(x.dtype).eps)
    return torch.where(x.abs() > level, x, 0.0)


def eigenvectors(matrix: Tensor) -> Tensor:
    """Eigenvectors of symmetric matrices in columns, the largest eigenvalue first.

    >>> eigenvectors(torch.diag(torch.tensor([1.0, 2.0]))).abs()
    tensor([[0., 1.],
            [1., 0.]])
    """
    return symmetric_eigh(matrix)[1].flip(-1)


def reorder(x: Tensor, order: Tensor, dim: int) -> Tensor:
    """The rows (dim -2) or columns (-1) of ``x [batch, m, n]`` by ``order [batch, m or n]``, where there are several.

    >>> reorder(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[1, 0]]), -1)
    tensor([[[2., 1.]]])
    """
    if x.shape[dim] == 1:
        return x
    index = order.unsqueeze(-1 if dim == -2 else -2)
    return x.gather(dim, index.expand_as(x))
