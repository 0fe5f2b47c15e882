"""Slot 1: refuse gradients that are not finite, before a step has changed anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from covector.errors import NonFiniteError
from covector.optim.slots import Bucket

__all__ = ["Finite"]


class Finite:
    """Refuse NaN and infinities where factorizations follow, which fail on them halfway through a step.

    Elementwise compositions pass them on, as torch does; capturable groups are not looked at, as that would wait for
    the device.

    Raises:
        NonFiniteError: a gradient of a matrix is not finite.

    >>> Finite()([])
    """

    def __call__(self, buckets: Sequence[Bucket]) -> None:
        for bucket in buckets:
            if (bucket.slots.maps or bucket.slots.basis) and not bucket.group["capturable"]:
                check_finite(bucket)


def check_finite(bucket: Bucket) -> None:
    """Raise where a gradient of the bucket is not finite."""
    largest: Sequence[Tensor] = torch._foreach_norm(bucket.grads, float("inf"))
    if bool(torch.stack(list(largest)).isfinite().all()):
        return
    shapes = [tuple(p.shape) for p, value in zip(bucket.params, largest, strict=True) if not value.isfinite()]
    raise NonFiniteError(f"the gradients of parameters of shapes {shapes} are NaN or infinite; nothing was changed")
