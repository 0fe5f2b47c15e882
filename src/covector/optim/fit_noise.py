"""Normal numbers that a fit draws: a function of seed and step, so that a resumed run draws the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from covector.random import derive

__all__ = ["FitNoise"]


class FitNoise:
    """Draws one after the other within a step, from the device's own generator.

    Args:
        seed: 64 bits.
        labels: of what is drawn: the step, the parameters.

    >>> torch.equal(FitNoise(0, 3).normal((2,), torch.zeros(1)), FitNoise(0, 3).normal((2,), torch.zeros(1)))
    True
    """

    def __init__(self, seed: int, *labels: int | str) -> None:
        self.seed = derive(seed, *labels)
        self._generators: dict[torch.device, torch.Generator] = {}

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Independent normal numbers, of the dtype and on the device of a tensor."""
        return torch.randn(tuple(shape), dtype=like.dtype, device=like.device, generator=self._generator(like.device))

    def signs(self, like: Tensor) -> Tensor:
        """Independent signs, of the shape, the dtype and on the device of a tensor."""
        generator = self._generator(like.device)
        bits = torch.randint(0, 2, tuple(like.shape), device=like.device, generator=generator)
        return bits.to(like.dtype) * 2 - 1

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]
