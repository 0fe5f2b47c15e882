"""The Hessian of the loss by the module's outputs: in closed form where the loss is known, by autograd elsewhere.

With ``z`` the outputs of a batch, ``N`` predictions of which ``p`` are the probabilities:

    cross entropy   B u = (p * u - p <p, u>) / N
    squared error   B u = 2 u / (number of outputs)
    logistic        B u = p (1 - p) u / (number of outputs)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covector.curvature.frozen import differentiable
from covector.errors import CompositionError, UnsupportedError
from covector.objective import Batch, Objective
from covector.trees import Params

__all__ = ["Outputs", "likelihood", "outputs_of"]

CROSS_ENTROPY, SQUARED, LOGISTIC = "cross_entropy", "squared_error", "logistic"

UNKNOWN = (
    "the loss is of no known likelihood, so that no targets can be drawn from the model; give the objective "
    "cross_entropy, mse_loss or binary_cross_entropy_with_logits, or use GaussNewton, which is the same matrix for them"
)


def likelihood(objective: Objective) -> str:
    """Which negative log-likelihood the loss is: "cross_entropy", "squared_error", "logistic", or "" for any other.

    >>> likelihood(Objective(nn.Linear(2, 2), nn.MSELoss()))
    'squared_error'
    """
    loss = objective.loss
    if loss is F.cross_entropy or (
        isinstance(loss, nn.CrossEntropyLoss)
        and loss.weight is None
        and loss.reduction == "mean"
        and loss.ignore_index == -100
    ):
        return CROSS_ENTROPY
    if loss is F.mse_loss or (isinstance(loss, nn.MSELoss) and loss.reduction == "mean"):
        return SQUARED
    if loss is F.binary_cross_entropy_with_logits or (
        isinstance(loss, nn.BCEWithLogitsLoss)
        and loss.weight is None
        and loss.pos_weight is None
        and loss.reduction == "mean"
    ):
        return LOGISTIC
    return ""


def outputs_of(objective: Objective, batch: Batch, params: Params) -> Tensor:
    """The tensor the loss is a function of: what the module returns, or the logits in what it returns.

    Raises:
        CompositionError: the objective is a plain function.
        UnsupportedError: the module returns neither.

    >>> objective = Objective(nn.Linear(2, 3), nn.functional.cross_entropy)
    >>> outputs_of(objective, (torch.ones(4, 2), None), objective.params).shape
    torch.Size([4, 3])
    """
    return main_output(raw_outputs(objective, batch, params))


class Outputs:
    """The outputs of one batch, and the loss as a function of them.

    Args:
        objective: made from a module.
        batch: one batch.
        params: where to evaluate.
        known: the outputs there, if they have been evaluated and the module returns a tensor.

    Attributes:
        value: the outputs ``z``.
        kind: the likelihood, see :func:`likelihood`; "" where the Hessian is by autograd.

    >>> objective = Objective(nn.Linear(2, 3), nn.functional.mse_loss)
    >>> outputs = Outputs(objective, (torch.ones(4, 2), torch.zeros(4, 3)), objective.params)
    >>> outputs.hessian(torch.ones(4, 3)).unique()  # 2 / 12
    tensor([0.1667])
    """

    def __init__(self, objective: Objective, batch: Batch, params: Params, known: Tensor | None = None) -> None:
        self.kind = likelihood(objective)
        self._targets = None if isinstance(batch, Mapping) else batch[1]
        with differentiable():
            raw = raw_outputs(objective, batch, params) if known is None else known
            if isinstance(raw, Tensor):
                raw = raw.detach().requires_grad_()
            self._z = main_output(raw)
            self._loss = _loss(objective, raw, batch)
        self.value = self._z.detach()
        if self.kind == CROSS_ENTROPY and not _plain_targets(self._targets, self.value):
            self.kind = ""
        self._slope: Tensor | None = None
        self._cached: Tensor | None = None

    @property
    def loss(self) -> Tensor:
        """The loss, detached."""
        return self._loss.detach()

    def gradient(self) -> Tensor:
        """``d loss / d z``."""
        return torch.autograd.grad(self._loss, self._z, retain_graph=True)[0]

    def hessian(self, tangent: Tensor) -> Tensor:
        """``(d^2 loss / d z^2) u``, for ``u`` of the shape of ``z``."""
        if self.kind == SQUARED:
            return tangent * (2.0 / self.value.numel())
        if self.kind == LOGISTIC:
            return tangent * self._once(lambda: _bernoulli(self.value) / self.value.numel())
        if self.kind == CROSS_ENTROPY:
            weighted = self._once(self._probabilities) * tangent
            return (weighted - self._p * weighted.sum(_classes(self.value), keepdim=True)).div_(self.count)
        return self._by_autograd(tangent)

    def sample(self, generator: torch.Generator) -> Tensor:
        """``d loss / d z`` of each prediction for targets drawn from the model, times the number of predictions.

        Raises:
            CompositionError: the loss is of no known likelihood.
        """
        if self.kind == SQUARED:  # a Gaussian of variance 1/2 has the squared error as its negative logarithm
            noise = torch.randn(self.value.shape, generator=generator, dtype=self.value.dtype, device=self.value.device)
            return noise * 2**0.5
        if self.kind == LOGISTIC:
            p = self.value.sigmoid()
            return p - torch.bernoulli(p, generator=generator)
        if self.kind != CROSS_ENTROPY:
            raise CompositionError(UNKNOWN)
        weighted, axis = self._once(self._probabilities), _classes(self.value)
        rows = self._p.movedim(axis, -1)
        drawn = torch.multinomial(rows.reshape(-1, rows.shape[-1]), 1, generator=generator)
        hot = torch.zeros_like(weighted).scatter_(axis, drawn.view(rows.shape[:-1]).unsqueeze(axis), 1.0)
        return weighted - hot * (weighted.sum(axis, keepdim=True) > 0)

    def outer(self, slopes: Tensor, tangent: Tensor) -> Tensor:
        """``s <s, u>`` of each prediction, over the number of predictions."""
        if self.kind == CROSS_ENTROPY:
            return slopes * ((slopes * tangent).sum(_classes(self.value), keepdim=True) / self.count)
        return slopes.square() * tangent / self.count

    @cached_property
    def count(self) -> int:
        """Number of predictions: rows of class scores that have a target, or single outputs."""
        if self.kind != CROSS_ENTROPY:
            return self.value.numel()
        assert isinstance(self._targets, Tensor)
        return max(1, int((self._targets != -100).sum()))

    def probabilities(self) -> tuple[Tensor, Tensor]:
        """For cross entropy, the probabilities of the predictions that count (zeros elsewhere), and of all."""
        return self._once(self._probabilities), self._p

    def _probabilities(self) -> Tensor:
        assert isinstance(self._targets, Tensor)
        p = self.value.softmax(_classes(self.value))
        valid = (self._targets != -100).unsqueeze(_classes(self.value))
        self._p = p
        return p if bool(valid.all()) else p * valid

    def _once(self, make: Callable[[], Tensor]) -> Tensor:
        if self._cached is None:
            self._cached = make()
        return self._cached

    def _by_autograd(self, tangent: Tensor) -> Tensor:
        if self._slope is None:
            with differentiable():
                self._slope = torch.autograd.grad(self._loss, self._z, create_graph=True)[0]
        if not self._slope.requires_grad:
            return torch.zeros_like(self.value)
        found = torch.autograd.grad(self._slope, self._z, tangent, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(self.value) if found is None else found


def _classes(z: Tensor) -> int:
    return 1 if z.ndim > 1 else 0


def _plain_targets(targets: Any, z: Tensor) -> bool:
    return isinstance(targets, Tensor) and not targets.is_floating_point() and z.ndim > 1


def _bernoulli(z: Tensor) -> Tensor:
    p = z.sigmoid()
    return p * (1 - p)


def raw_outputs(objective: Objective, batch: Batch, params: Params) -> Any:
    """What the module returns, whatever it is.

    Raises:
        CompositionError: the objective is a plain function.
    """
    if objective.module is None:
        raise CompositionError(
            "the objective is a plain function, which has no outputs to take the loss of; use Objective(module, loss), "
            "or the Hessian"
        )
    return objective.outputs(batch, params)


def main_output(raw: Any) -> Tensor:
    """The tensor itself, or the ``.logits``.

    Raises:
        UnsupportedError: neither.
    """
    if isinstance(raw, Tensor):
        return raw
    logits = raw.get("logits") if isinstance(raw, Mapping) else getattr(raw, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise UnsupportedError(
        f"the module returns a {type(raw).__name__}; expected a tensor, or an output with .logits that its loss is of"
    )


def _loss(objective: Objective, raw: Any, batch: Batch) -> Tensor:
    if objective.loss is not None:
        return objective.loss(raw, batch if isinstance(batch, Mapping) else batch[1])
    loss = raw.get("loss") if isinstance(raw, Mapping) else getattr(raw, "loss", None)
    if not isinstance(loss, Tensor):
        raise UnsupportedError("the outputs have no .loss; give the objective a loss, or put labels into the batch")
    return loss
