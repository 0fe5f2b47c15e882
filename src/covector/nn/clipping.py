"""Gradients that explode: the norm of all gradients together, held below a limit."""

from __future__ import annotations

import math

from covector import trees
from covector.errors import ArgumentError, MismatchError, NonFiniteError
from covector.linalg.checks import check_choice
from covector.trees import Params

__all__ = ["clip_norm_"]

SHRINK = 0.02


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
    if math.isfinite(norm):
        if norm > max_norm:
            trees.scale_(grads, max_norm / norm)
        return norm
    if on_nonfinite == "raise":
        raise NonFiniteError(f"the norm of the gradients is {norm}; on_nonfinite='zero' or 'shrink' goes on without")
    for name, gradient in grads.items():
        gradient.zero_()
        if name in pulled:
            gradient.add_(pulled[name].detach(), alpha=SHRINK)
    return norm
