"""Gram matrices of gradients, exactly and without the gradients: layer by layer, as products of small Gram matrices.

For outputs ``z`` of ``N`` examples with Jacobian ``J``, and ``B = S S^T`` the Hessian of the loss by them, all non-zero
eigenvalues of the Gauss-Newton matrix ``J^T B J`` are those of ``S^T J J^T S``. A linear layer's part of it is the
elementwise product of the Gram matrices of its inputs and of what is backpropagated to its outputs.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.func import vjp, vmap

from covector.curvature.capture import Capture
from covector.curvature.examples import leaves_of
from covector.curvature.factors import Explicit, Factors
from covector.curvature.flat import Selection, select
from covector.curvature.frozen import check_deterministic, differentiable, leaves
from covector.curvature.outputs import (
    CROSS_ENTROPY,
    LOGISTIC,
    SQUARED,
    UNKNOWN,
    Outputs,
    main_output,
    outputs_of,
    raw_outputs,
)
from covector.errors import ArgumentError, CompositionError
from covector.objective import Batch, Objective
from covector.trees import Params

__all__ = ["GramKind", "clipped_sum", "gram", "per_example_inner_products", "per_example_norms"]

GramKind = Literal["tangent", "gauss_newton", "fisher", "gradients"]


def gram(objective: Objective, batch: Batch, kind: GramKind = "tangent", *, params: Selection = None) -> Tensor:
    """The Gram matrix of the gradients of all outputs of all examples, exact to rounding.

    Args:
        objective: made from a module whose examples do not mix.
        batch: one batch of N examples, each with Q outputs.
        kind: ``"tangent"``: ``J J^T`` ``[N Q, N Q]``, the tangent kernel, in the order of :class:`Jacobian`'s rows.
            ``"gauss_newton"``: ``S^T J J^T S``, with the non-zero eigenvalues of :class:`GaussNewton`; for cross
            entropy of C classes ``[N (C - 1), N (C - 1)]``, elsewhere ``[N Q, N Q]``. ``"fisher"``: the same, for a
            loss that is a likelihood. ``"gradients"``: ``<g_i, g_j>`` ``[N, N]`` of the examples' losses.
        params: of some parameters only, by names or a predicate.

    Returns:
        A symmetric matrix. Linear, convolutional, embedding and norm layers take part in factored form; the gradients
        of all other parameters are written out.

    Raises:
        ArgumentError: an unknown kind, or a loss that is not convex in the outputs.
        CompositionError: a plain function, or ``"fisher"`` of a loss that is no likelihood.
        UnsupportedError: the loss is not a function of the parameters, see :class:`CurvatureOperator`.

    >>> objective = Objective(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss)
    >>> gram(objective, (torch.eye(2), torch.zeros(2, 1)))
    tensor([[2., 1.],
            [1., 2.]])
    """
    if kind not in get_args(GramKind):
        raise ArgumentError("kind", kind, f"one of {get_args(GramKind)}")
    check_deterministic(objective, batch)
    examples = _Examples(objective, batch, params)
    found = _sum_of_inner(examples.factors(examples.cotangents(kind), merge=True))
    if found is None:
        size = examples.count * len(examples.cotangents(kind))
        found = examples.z.new_zeros(size, size)
    copies = len(found) // examples.count
    # from one cotangent after the other to one example after the other
    return found.view(copies, -1, copies, examples.count).permute(1, 0, 3, 2).reshape(found.shape)


def per_example_inner_products(objective: Objective, batch: Batch, *, params: Selection = None) -> Tensor:
    """``<g_i, g_j>`` ``[N, N]`` of the gradients of the examples' losses; see :func:`gram`.

    >>> objective = Objective(torch.nn.Linear(2, 1, bias=False), torch.nn.functional.mse_loss)
    >>> _ = torch.nn.init.zeros_(objective.params["weight"])
    >>> per_example_inner_products(objective, (torch.eye(2), torch.ones(2, 1)))
    tensor([[4., 0.],
            [0., 4.]])
    """
    return gram(objective, batch, "gradients", params=params)


def per_example_norms(objective: Objective, batch: Batch, *, params: Selection = None) -> Tensor:
    """``||g_i||`` ``[N]`` of the gradients of the examples' losses: one forward and one backward pass.

    >>> objective = Objective(torch.nn.Linear(2, 1, bias=False), torch.nn.functional.mse_loss)
    >>> _ = torch.nn.init.zeros_(objective.params["weight"])
    >>> per_example_norms(objective, (torch.eye(2), torch.ones(2, 1)))
    tensor([2., 2.])
    """
    examples = _Examples(objective, batch, params)
    return examples.norms(examples.cotangents("gradients"))


def clipped_sum(
    objective: Objective, batch: Batch, max_norm: float, *, params: Selection = None
) -> tuple[Params, Tensor]:
    """``sum_i min(1, max_norm / ||g_i||) g_i`` and the norms ``[N]``: one forward pass, two backward passes.

    Args:
        objective: made from a module whose examples do not mix.
        batch: one batch.
        max_norm: the norm to which the gradient of each example is clipped.
        params: of some parameters only, by names or a predicate.

    Raises:
        ArgumentError: ``max_norm`` is not positive.

    Source: Lee, Kifer, "Scaling up differentially private deep learning with fast per-example gradient clipping",
    PoPETs 2021.

    >>> objective = Objective(torch.nn.Linear(2, 1, bias=False), torch.nn.functional.mse_loss)
    >>> _ = torch.nn.init.zeros_(objective.params["weight"])
    >>> clipped_sum(objective, (torch.eye(2), torch.ones(2, 1)), 0.5)
    ({'weight': tensor([[-0.5000, -0.5000]])}, tensor([2., 2.]))
    """
    if not max_norm > 0.0 or math.isnan(max_norm):
        raise ArgumentError("max_norm", max_norm, "a positive number")
    examples = _Examples(objective, batch, params)
    slopes = examples.cotangents("gradients")
    norms = examples.norms(slopes)
    weights = (max_norm / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1.0)
    return examples.gradient(slopes[0] * weights.view(-1, *[1] * (slopes[0].ndim - 1))), norms


class _Examples:
    """The outputs of a batch, with what is needed to pull cotangents back to each example's own gradients."""

    def __init__(self, objective: Objective, batch: Batch, params: Selection) -> None:
        self.objective, self.batch = objective, batch
        self.count = objective.size(batch)
        self.own, self.everything = leaves(objective, select(objective.params, params))
        self.capture = Capture(objective, self.own, self.count)
        with differentiable(), self.capture.watching():
            raw = raw_outputs(objective, batch, self.everything)
        self.z = main_output(raw)
        self.capture.check(self.z)
        known = self.z.detach() if isinstance(raw, Tensor) else None
        self.outputs = Outputs(objective, batch, self.everything, known)
        if self.capture.left_out:  # these are evaluated once more, example by example
            check_deterministic(objective, batch)

    def factors(self, cotangents: list[Tensor], merge: bool = False) -> dict[str, Factors]:
        found = self.capture.pull(self.z, cotangents, merge)
        rest = {name: self.own[name] for name in self.capture.left_out}
        return found | self._written_out(rest, cotangents) if rest else found

    def norms(self, cotangents: list[Tensor]) -> Tensor:
        found = [factors.squared_norms() for factors in self.factors(cotangents).values()]
        return torch.stack(found).sum(0).clamp_min_(0.0).sqrt() if found else self.z.new_zeros(self.count)

    def gradient(self, cotangent: Tensor) -> Params:
        found = torch.autograd.grad(self.z, list(self.own.values()), cotangent, retain_graph=True, allow_unused=True)
        return {
            name: torch.zeros_like(p, requires_grad=False) if g is None else g
            for (name, p), g in zip(self.own.items(), found, strict=True)
        }

    def cotangents(self, kind: GramKind) -> list[Tensor]:
        if kind == "gradients":
            return [self.outputs.gradient() * self.count]  # an example's own loss, where the loss is their mean
        if kind == "fisher" and not self.outputs.kind:
            raise CompositionError(UNKNOWN)
        if kind == "tangent":
            return _unit(self.z, torch.ones_like(self.z.detach()))
        return roots(self.outputs)

    def _written_out(self, rest: Params, cotangents: list[Tensor]) -> dict[str, Factors]:
        """Gradients of the parameters that have no factored form, as they are."""
        parts, rebuild = leaves_of(self.batch, self.count)
        fixed = {name: p.detach() for name, p in self.everything.items()}
        moving = {name: fixed[name] for name in rest}

        def one(own: Tensor, *example: Tensor) -> Params:
            alone = rebuild([leaf[None] for leaf in example])
            pull = vjp(lambda chosen: outputs_of(self.objective, alone, fixed | chosen)[0], moving)[1]
            found: Params = vmap(lambda u: pull(u)[0])(own)
            return found

        stacked = torch.stack(cotangents, 1)  # [N, C, ...]
        with differentiable():
            try:
                found = vmap(one)(stacked, *parts)
            except RuntimeError:  # recurrent kernels, for one, know no batches of batches
                alone = [one(stacked[i], *(leaf[i] for leaf in parts)) for i in range(self.count)]
                found = {name: torch.stack([own[name] for own in alone]) for name in moving}
        return {
            name: Explicit(g.transpose(0, 1).reshape(len(cotangents) * self.count, -1)) for name, g in found.items()
        }


def roots(outputs: Outputs) -> list[Tensor]:
    """Columns of ``S``, with ``S S^T`` the Hessian of the loss by the outputs, those of all examples in one tensor.

    Cross entropy has ``S = (diag(sqrt p) - p sqrt(p)^T) / sqrt(N)``, which loses nothing by one column less.

    >>> objective = Objective(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss)
    >>> batch = (torch.eye(2), torch.zeros(2, 1))
    >>> roots(Outputs(objective, batch, objective.params))
    [tensor([[1.],
            [1.]])]
    """
    z = outputs.value
    if outputs.kind in (SQUARED, LOGISTIC):
        return _unit(z, outputs.hessian(torch.ones_like(z)).sqrt())
    if outputs.kind == CROSS_ENTROPY:
        return _cross_entropy_roots(outputs)
    return _numeric_roots(outputs)


def _cross_entropy_roots(outputs: Outputs) -> list[Tensor]:
    # one column less than there are classes: S sqrt(p) = 0, and Householder's reflection of sqrt(p) onto the last class
    # turns that into S' of columns S_k - S_last sqrt(p_k) / (1 + sqrt(p_last))
    z = outputs.value
    masked, p = outputs.probabilities()
    size, classes = z.shape[:2]
    p, masked = p.reshape(size, classes, -1), masked.reshape(size, classes, -1)
    valid, root = (masked.sum(1, keepdim=True) > 0).to(z.dtype) / outputs.count**0.5, p.sqrt()
    last = -p * root[:, -1:]
    last[:, -1] += root[:, -1]
    columns = []
    for label in range(classes - 1):
        column = -p * root[:, label, None]
        column[:, label] += root[:, label]
        column -= last * (root[:, label, None] / (1 + root[:, -1:]))
        column *= valid
        # the predictions of an example do not meet in its Hessian: each has its own column
        columns += [column.view(z.shape)] if p.shape[2] == 1 else _apart(column, z.shape)
    return columns


def _apart(column: Tensor, shape: torch.Size) -> list[Tensor]:
    apart = torch.diag_embed(column)  # [N, C, T, T]
    return [apart[..., position].reshape(shape) for position in range(column.shape[2])]


def _numeric_roots(outputs: Outputs) -> list[Tensor]:
    units = _unit(outputs.value, torch.ones_like(outputs.value))
    columns = [outputs.hessian(unit).reshape(len(unit), -1) for unit in units]
    blocks = torch.stack(columns, 2)
    values, vectors = torch.linalg.eigh((blocks + blocks.mT) / 2)
    largest = values.abs().amax()
    if bool((values < -1e3 * torch.finfo(values.dtype).eps * largest).any()):
        raise ArgumentError(
            "loss", float(values.min()), "a loss that is convex in the outputs (an eigenvalue is negative)"
        )
    scaled = vectors * values.clamp_min(0.0).sqrt()[:, None, :]
    return [scaled[:, :, c].reshape(outputs.value.shape) for c in range(scaled.shape[2])]


def _unit(z: Tensor, scale: Tensor) -> list[Tensor]:
    """For each output of an example, ``scale`` there and zero elsewhere, for all examples at once."""
    flat, columns = scale.reshape(len(z), -1), []
    for k in range(flat.shape[1]):
        column = torch.zeros_like(flat)
        column[:, k] = flat[:, k]
        columns.append(column.view(z.shape))
    return columns


def _sum_of_inner(factors: dict[str, Factors]) -> Tensor | None:
    found: Tensor | None = None
    for part in factors.values():
        own = part.inner()
        found = own if found is None else found.add_(own)
    return found
