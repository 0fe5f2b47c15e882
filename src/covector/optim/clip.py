"""Clipping by the norm of the whole gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from covector.errors import ArgumentError, NonFiniteError
from covector.optim.magnitude import squared_norm
from covector.optim.slots import Bucket, SkipStep

__all__ = ["ClipNorm"]


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

    def __init__(self, max_norm: float, on_nonfinite: str = "raise", shrink: float = 0.02) -> None:
        if not max_norm > 0.0:
            raise ArgumentError("max_norm", max_norm, "a number above 0")
        if on_nonfinite not in ("raise", "skip", "shrink"):
            raise ArgumentError("on_nonfinite", on_nonfinite, "'raise', 'skip' or 'shrink'")
        if not 0.0 <= shrink < 1.0:
            raise ArgumentError("shrink", shrink, "a number in [0, 1)")
        self.max_norm, self.on_nonfinite, self.shrink = max_norm, on_nonfinite, shrink
        self.norm = torch.zeros(())
        self.skipped = 0

    def __call__(self, buckets: Sequence[Bucket]) -> None:
        self.norm = squared_norm(buckets).sqrt()
        if not bool(self.norm.isfinite()):
            self._nonfinite(buckets)
            return
        factor = (self.max_norm / self.norm).clamp(max=1.0)
        for bucket in buckets:
            bucket.signs[:] = [sign * factor for sign in bucket.signs]

    def _nonfinite(self, buckets: Sequence[Bucket]) -> None:
        if self.on_nonfinite == "raise":
            raise NonFiniteError(
                f"the norm of the gradients is {float(self.norm)}: lower the learning rate, or clip with "
                "on_nonfinite='skip'"
            )
        self.skipped += 1
        if self.on_nonfinite == "skip":
            raise SkipStep
        for bucket in buckets:
            bucket.grads[:] = [self.shrink * p if p.ndim >= 2 else torch.zeros_like(p) for p in bucket.params]
            bucket.signs[:] = [1.0] * len(bucket.params)
