"""Logistic regression on the Wisconsin breast cancer data, whole batches, its features standardized or badly scaled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from covector import data

__all__ = ["SETTING", "BreastCancer"]

SETTING = (
    "logistic regression on 569 x 30 measurements of breast cancer, standardized, and one intercept, whole batches"
)


@dataclass(frozen=True)
class BreastCancer:
    """Features ``[569, 31]`` in float64, the last one constant, and signs."""

    features: Tensor
    signs: Tensor

    @classmethod
    def load(cls, spread: float = 0.0, seed: int = 0) -> BreastCancer:
        """Read the data.

        Args:
            spread: each feature is multiplied by ``exp(u)``, u uniform between -spread and spread.
            seed: of these factors.
        """
        found = data.load("breast-cancer")
        x = found.x.double()
        x = (x - x.mean(0)) / x.std(0)
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        u = torch.rand(x.shape[1], generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
        return cls(x * ((2 * u - 1) * spread).exp(), 2.0 * found.y.double() - 1.0)

    def loss(self, w: Tensor, rows: Tensor | None = None) -> Tensor:
        """Mean logistic loss, of some rows or all."""
        x, y = (self.features, self.signs) if rows is None else (self.features[rows], self.signs[rows])
        return nn.functional.softplus(-y * (x @ w)).mean()

    def smoothness(self) -> float:
        """The largest curvature that the loss can have."""
        return float(torch.linalg.matrix_norm(self.features, 2)) ** 2 / (4 * len(self.features))

    def run(self, make: Callable[[Any], Any], steps: int, batch: int | None = None, seed: int = 0) -> list[float]:
        """Losses over all rows before each step, and at the end; large ones where it diverged."""
        w = nn.Parameter(torch.zeros(self.features.shape[1], dtype=torch.float64))
        optimizer = make([w])
        evaluates = any(slots.evaluates for slots in optimizer.slots.values())
        generator = torch.Generator().manual_seed(seed)
        losses = []
        for _ in range(steps):
            with torch.no_grad():
                losses.append(float(self.loss(w)))
            if not math.isfinite(losses[-1]) or losses[-1] > 1e6:
                return [*losses[:-1], *[1e9] * (steps + 2 - len(losses))]
            rows = None if batch is None else torch.randint(len(self.signs), (batch,), generator=generator)

            def closure(rows: Tensor | None = rows) -> Tensor:
                w.grad = None
                loss = self.loss(w, rows)
                if not evaluates:
                    loss.backward()
                return loss

            optimizer.step(closure)
        with torch.no_grad():
            losses.append(float(self.loss(w)))
        return losses
