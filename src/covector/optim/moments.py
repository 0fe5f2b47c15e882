"""The moments of per-example gradients: their mean, the trace of their covariance, their variance along the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from covector import trees
from covector.errors import ArgumentError
from covector.trees import Params

__all__ = ["GradientMoments"]


@dataclass(frozen=True)
class GradientMoments:
    """What a batch tells about the noise of its gradient; variances are unbiased, of single examples.

    Args:
        count: examples b.
        mean: the mean gradient.
        trace: trace of the covariance, ``sum_j Var_i[g_i]_j``; NaN for one example.
        inner: ``Var_i <g_i, mean>``, or None where it was not measured.
        inner_by_tensor: the sum over parameter tensors of the variance of their own part of the inner product, without
            the covariances between tensors; what the code published with AdAdaGrad uses in place of ``inner``.
        variance: ``Var_i[g_i]_j`` by coordinate, or None.

    >>> moments = GradientMoments.from_examples({"x": torch.tensor([[1.0, 0.0], [3.0, 0.0]])})
    >>> moments.squared_norm, moments.trace, moments.inner
    (4.0, 2.0, 8.0)
    """

    count: int
    mean: Params
    trace: float
    inner: float | None = None
    inner_by_tensor: float | None = None
    variance: Params | None = None

    @property
    def squared_norm(self) -> float:
        """``||mean||^2``; on average larger than the true gradient's by ``trace / count``."""
        return trees.dot(self.mean, self.mean)

    @property
    def signal(self) -> float:
        """Unbiased estimate of the squared norm of the true gradient; may be negative."""
        return self.squared_norm - self.trace / self.count

    @property
    def noise_scale(self) -> float:
        """``trace / signal``, the batch size at which noise and gradient are of the same norm; infinite without signal.

        Source: McCandlish et al., "An empirical model of large-batch training", 2018, equation 2.9 (B_simple).
        """
        return self.trace / self.signal if self.signal > 0.0 else math.inf

    @classmethod
    def from_examples(cls, gradients: Params) -> GradientMoments:
        """All moments from per-example gradients ``[B, ...]``.

        >>> GradientMoments.from_examples({"x": torch.eye(2)}).trace
        1.0
        """
        count = next(iter(gradients.values())).shape[0]
        mean = {name: g.mean(0) for name, g in gradients.items()}
        products = {
            name: g.flatten(1) @ mean[name].flatten() if g.ndim > 1 else g * mean[name] for name, g in gradients.items()
        }
        variance = {name: g.var(0) for name, g in gradients.items()} if count > 1 else None
        return cls(count, mean, total(variance), *inner_variances(products), variance)

    @classmethod
    def from_means(cls, means: Sequence[Params], sizes: Sequence[int]) -> GradientMoments:
        """Estimates from the mean gradients of micro-batches or workers alone, as the variance between them.

        Args:
            means: at least two mean gradients.
            sizes: the number of examples of each.

        Raises:
            ArgumentError: fewer than two means, or another number of sizes.

        >>> means = [{"x": torch.tensor([1.0])}, {"x": torch.tensor([3.0])}]
        >>> GradientMoments.from_means(means, [8, 8]).trace
        16.0
        """
        if len(means) < 2 or len(means) != len(sizes):
            raise ArgumentError("means", len(means), f"at least two, and as many as sizes ({len(sizes)})")
        count, mean = _pooled(means, sizes)
        groups = len(means) - 1
        variance = {name: torch.zeros_like(m) for name, m in mean.items()}
        inner = by_tensor = 0.0
        for own, size in zip(means, sizes, strict=True):
            apart = {name: own[name] - m for name, m in mean.items()}
            products = [float((d.double() * mean[name].double()).sum()) for name, d in apart.items()]
            inner += size * sum(products) ** 2 / groups
            by_tensor += size * sum(product**2 for product in products) / groups
            for name, d in apart.items():
                variance[name].add_(d.square(), alpha=size / groups)
        return cls(count, mean, total(variance), inner, by_tensor, variance)

    @classmethod
    def merge(cls, parts: Sequence[GradientMoments]) -> GradientMoments:
        """The moments of all examples together, by the law of total variance; exact, but for the inner variance.

        That one is relative to the common mean, which the parts did not know: it is None unless there is one part.

        >>> parts = [GradientMoments.from_examples({"x": x}) for x in torch.randn(8, 3).split(4)]
        >>> GradientMoments.merge(parts).count
        8
        """
        if len(parts) == 1:
            return parts[0]
        sizes = [part.count for part in parts]
        count, mean = _pooled([part.mean for part in parts], sizes)
        scatter = 0.0
        variance = None if any(p.variance is None and p.count > 1 for p in parts) else trees.zeros_like(mean)
        for part in parts:
            apart = {name: part.mean[name] - m for name, m in mean.items()}
            scatter += part.count * trees.dot(apart, apart)
            scatter += (part.count - 1) * part.trace if part.count > 1 else 0.0
            for name, sums in (variance or {}).items():
                sums.add_(apart[name].square(), alpha=part.count / (count - 1))
                if part.variance is not None:
                    sums.add_(part.variance[name], alpha=(part.count - 1) / (count - 1))
        return cls(count, mean, scatter / (count - 1), variance=variance)


def inner_variances(products: Params) -> tuple[float | None, float | None]:
    """Variance of the inner products ``[B]``, and the sum of those of each tensor's own.

    >>> inner_variances({"a": torch.tensor([0.0, 2.0]), "b": torch.tensor([0.0, 2.0])})
    (8.0, 4.0)
    """
    columns = [column.double() for column in products.values()]
    if columns[0].numel() < 2:
        return None, None
    return float(torch.stack(columns).sum(0).var()), sum(float(column.var()) for column in columns)


def total(variance: Params | None) -> float:
    """The sum of all coordinates, in double precision; NaN where there are none.

    >>> total({"x": torch.ones(3)})
    3.0
    """
    return math.nan if variance is None else sum(float(v.double().sum()) for v in variance.values())


def _pooled(means: Sequence[Params], sizes: Sequence[int]) -> tuple[int, Params]:
    count = sum(sizes)
    mean: dict[str, Tensor] = trees.zeros_like(means[0])
    for own, size in zip(means, sizes, strict=True):
        trees.axpy_(mean, own, size / count)
    return count, mean
