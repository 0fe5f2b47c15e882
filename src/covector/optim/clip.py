"""Clipping by the norm of the whole gradient: as a part of an optimizer, and for gradients at hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from covector import trees
from covector.errors import ArgumentError, MismatchError, NonFiniteError
from covector.linalg.checks import check_choice
from covector.optim.magnitude import squared_norm
from covector.optim.slots import Bucket, SkipStep
from covector.trees import Params

__all__ = ["ClipNorm", "clip_norm_"]

SHRINK = 0.02  # the authors' code


class ClipNorm:
    """Scale all gradients so that their norm together is at most ``max_norm``.

    The factor becomes part of the optimizer's pass over memory: the gradients are read once for the norm and are
    never written. It is exactly ``min(1, max_norm / norm)``, without torch's 1e-6 in the denominator.

    Args:
        max_norm: bound of the norm; ``math.inf`` only watches for gradients that are not finite.
        on_nonfinite: what to do then: ``"raise"``; ``"skip"`` leaves parameters and states as they are, and counts;
            ``"shrink"`` takes ``shrink`` times the parameters as gradients of matrices, and zero for the rest.
        shrink: see there.

    Raises:
        ArgumentError: a bound that is not positive, or an unknown policy.
        NonFiniteError: from ``step`` under ``"raise"``; nothing has changed then.

    Attributes:
        norm: the norm in the last step, a 0-d tensor.
        skipped: steps that were not taken, or shrunk.

    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013, Algorithm 1;
    shrinking: the authors' code.

    >>> from covector.optim import SGD
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3.0, 4.0])
    >>> SGD([p], lr=1.0, transforms=[ClipNorm(1.0)]).update()[p]
    tensor([-0.6000, -0.8000])
    """

    parts = True

    def __init__(self, max_norm: float, on_nonfinite: str = "raise", shrink: float = SHRINK) -> None:
        if not max_norm > 0.0:
            raise ArgumentError("max_norm", max_norm, "a number above 0")
        check_choice("on_nonfinite", on_nonfinite, ("raise", "skip", "shrink"))
        if not 0.0 <= shrink < 1.0:
            raise ArgumentError("shrink", shrink, "a number in [0, 1)")
        self.max_norm, self.on_nonfinite, self.shrink = max_norm, on_nonfinite, shrink
        self.norm = torch.zeros(())
        self.skipped = 0

    def __call__(self, buckets: Sequence[Bucket]) -> None:
        self.norm = squared_norm(buckets).sqrt()
        factor = _factor(self.norm, self.max_norm, self.on_nonfinite)
        if factor is None:
            self._replace(buckets)
            return
        for bucket in buckets:
            bucket.signs[:] = [sign * factor for sign in bucket.signs]

    def _replace(self, buckets: Sequence[Bucket]) -> None:
        self.skipped += 1
        if self.on_nonfinite == "skip":
            raise SkipStep
        for bucket in buckets:
            bucket.grads[:] = [_pull(p, p if p.ndim >= 2 else None, self.shrink) for p in bucket.params]
            bucket.signs[:] = [1.0] * len(bucket.params)


def clip_norm_(grads: Params, max_norm: float, on_nonfinite: str = "raise", shrink: Params | None = None) -> float:
    """Scale gradients in place so that their Euclidean norm over all tensors together is at most ``max_norm``.

    Args:
        grads: the gradients.
        max_norm: the limit, above 0. The paper suggests half to ten times the mean norm of a run.
        on_nonfinite: what to do where the norm is NaN or infinite. ``"raise"``; ``"zero"``: all gradients become 0, so
            that a plain step changes nothing; ``"shrink"``: as zero, but those named in ``shrink`` become 0.02 times
            the parameter, so that a plain step pulls it towards 0.
        shrink: parameters to shrink, by the names of their gradients; the paper's code gives the recurrent matrix.

    Returns:
        The norm before clipping.

    Raises:
        ArgumentError: ``max_norm`` is not above 0, ``on_nonfinite`` is unknown, or ``shrink`` is missing.
        MismatchError: ``shrink`` names a gradient that is not there, or one of another shape.
        NonFiniteError: the norm is NaN or infinite, and ``on_nonfinite`` is ``"raise"``. Nothing was changed.

    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks" (2013), Algorithm 1.

    >>> import torch
    >>> grads = {"w": torch.tensor([3.0, 4.0])}
    >>> clip_norm_(grads, 1.0), grads["w"]
    (5.0, tensor([0.6000, 0.8000]))
    """
    if not 0.0 < max_norm < math.inf:
        raise ArgumentError("max_norm", max_norm, "a number above 0")
    check_choice("on_nonfinite", on_nonfinite, ("raise", "zero", "shrink"))
    if (on_nonfinite == "shrink") != (shrink is not None):
        raise ArgumentError("shrink", shrink, "the parameters to shrink, with on_nonfinite='shrink' and only then")
    pulled = shrink or {}
    for name, parameter in pulled.items():
        if name not in grads or grads[name].shape != parameter.shape:
            raise MismatchError(f"shrink names {name!r}, which is no gradient of shape {tuple(parameter.shape)}")
    norm = trees.norm(grads)
    factor = _factor(torch.tensor(norm, dtype=torch.float64), max_norm, on_nonfinite)
    if factor is not None:
        trees.scale_(grads, float(factor))
        return norm
    for name, gradient in grads.items():
        gradient.copy_(_pull(gradient, pulled.get(name)))
    return norm


def _factor(norm: Tensor, max_norm: float, on_nonfinite: str) -> Tensor | None:
    """What gradients of a norm are multiplied by; None where it is not finite and that is no error."""
    if bool(norm.isfinite()):
        return (max_norm / norm).clamp(max=1.0)
    if on_nonfinite == "raise":
        raise NonFiniteError(
            f"the norm of the gradients is {float(norm)}: lower the learning rate, or choose another on_nonfinite"
        )
    return None


def _pull(like: Tensor, parameter: Tensor | None, strength: float = SHRINK) -> Tensor:
    """A gradient that makes a parameter smaller, or one that leaves it."""
    return torch.zeros_like(like) if parameter is None else strength * parameter.detach()
