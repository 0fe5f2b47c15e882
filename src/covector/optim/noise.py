"""Noise added to gradients, which fades as training goes on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.slots import Bucket
from covector.random import check_seed, derive, draw

__all__ = ["GradientNoise"]


class GradientNoise:
    """Add ``N(0, eta / (1 + t)^gamma)`` to each coordinate of the gradient in step t.

    The noise of a step is a function of the seed and the step's number, so that a resumed run sees the same.

    Args:
        eta: variance at the start, before it decays; the paper tries 0.01, 0.3 and 1.
        gamma: speed of the decay.
        seed: 64 bits.

    Raises:
        ArgumentError: a negative eta or gamma.

    Source: Neelakantan et al., "Adding gradient noise improves learning for very deep networks", 2015, equation 1.

    >>> import torch
    >>> from covector.optim import SGD
    >>> p = torch.nn.Parameter(torch.zeros(10_000))
    >>> p.grad = torch.zeros(10_000)
    >>> update = SGD([p], lr=1.0, transforms=[GradientNoise(eta=4.0, gamma=2.0)]).update()[p]
    >>> round(update.std().item(), 1)
    1.0
    """

    def __init__(self, eta: float = 0.01, gamma: float = 0.55, seed: int = 0) -> None:
        for name, value in (("eta", eta), ("gamma", gamma)):
            if not 0.0 <= value < float("inf"):
                raise ArgumentError(name, value, "a finite number of at least 0")
        check_seed(seed)
        self.eta, self.gamma, self.seed = eta, gamma, seed

    def __call__(self, buckets: Sequence[Bucket]) -> None:
        for place, bucket in enumerate(buckets):
            t = int(bucket.t)
            deviation = (self.eta / (1 + t) ** self.gamma) ** 0.5
            seed = derive(self.seed, "gradient noise", place, t)
            noisy = [
                g * sign + deviation * _normal(seed, i, g)
                for i, (g, sign) in enumerate(zip(bucket.grads, bucket.signs, strict=True))
            ]
            bucket.grads[:] = [new.to(g.dtype) for new, g in zip(noisy, bucket.grads, strict=True)]
            bucket.signs[:] = [1.0] * len(noisy)


def _normal(seed: int, place: int, like: Tensor) -> Tensor:
    return draw(seed, str(place), like.numel(), "normal", device=like.device).reshape(like.shape).to(like.dtype)
