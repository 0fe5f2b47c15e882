"""Scores of a model on examples, per client and overall, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from covector.errors import ArgumentError, MismatchError
from covector.random import Stream, derive, integers

__all__ = ["Interval", "Metric", "Scores", "bootstrap", "overall", "paired_bootstrap"]

Metric = Literal["accuracy", "perplexity"]
_CHUNK = 1 << 22


class Interval(NamedTuple):
    """A confidence interval.

    >>> Interval(0.25, 0.75).low
    0.25
    """

    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """What a task measured, example by example; the summary numbers are properties.

    Args:
        per_example_loss: mean loss of each example in nats, float64 ``[n]``.
        per_example_correct: how much of each example was right, float64 ``[n]`` in [0, 1].
        weights: how many predictions each example holds (1 for classification, tokens for language
            modeling), float64 ``[n]``.
        metric: which summary the task is judged by.

    >>> scores = Scores(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]))
    >>> scores.loss, scores.accuracy, scores.n
    (2.0, 0.5, 2)
    """

    per_example_loss: Tensor
    per_example_correct: Tensor
    weights: Tensor
    metric: Metric = "accuracy"

    @property
    def n(self) -> int:
        """Number of examples."""
        return self.per_example_loss.numel()

    @property
    def loss(self) -> float:
        """Mean loss over all predictions in nats; NaN without examples."""
        total = self.weights.sum()
        return float((self.per_example_loss * self.weights).sum() / total)

    @property
    def accuracy(self) -> float:
        """Mean of ``per_example_correct``; NaN without examples."""
        return float(self.per_example_correct.mean())

    @property
    def perplexity(self) -> float:
        """``exp(loss)``; infinite where that overflows."""
        return float(torch.tensor(self.loss, dtype=torch.float64).exp())

    @property
    def value(self) -> float:
        """The summary that ``metric`` names."""
        return self.accuracy if self.metric == "accuracy" else self.perplexity

    def interval(self, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
        """Bootstrap interval of ``value``; NaN at both ends without examples."""
        if self.n == 0:
            return Interval(math.nan, math.nan)
        if self.metric == "accuracy":
            return bootstrap(self.per_example_correct, level, resamples, seed)
        loss = bootstrap(self.per_example_loss, level, resamples, seed, self.weights)
        return Interval(math.exp(loss.low), math.exp(loss.high))


def overall(scores: Iterable[Scores]) -> Scores:
    """The scores of several clients as one: every example counts once, whoever holds it.

    Args:
        scores: at least one; clients without examples add nothing.

    >>> one = Scores(torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([1.0]))
    >>> two = Scores(torch.tensor([4.0, 4.0]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0]))
    >>> overall([one, two]).loss
    3.0
    """
    parts = list(scores)
    if not parts:
        raise ArgumentError("scores", parts, "the scores of at least one client")
    metrics = {part.metric for part in parts}
    if len(metrics) > 1:
        raise MismatchError(f"scores of different tasks do not add up: metrics {sorted(metrics)}")
    return Scores(
        torch.cat([part.per_example_loss for part in parts]),
        torch.cat([part.per_example_correct for part in parts]),
        torch.cat([part.weights for part in parts]),
        parts[0].metric,
    )


def bootstrap(
    values: Tensor | Sequence[float],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    weights: Tensor | Sequence[float] | None = None,
) -> Interval:
    """Percentile bootstrap interval of a mean.

    Source: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7, 1979.

    Args:
        values: one number an example, such as ``scores.per_example_correct``.
        level: probability the interval shall have, in (0, 1).
        resamples: number of resampled data sets.
        seed: seed of the resampling.
        weights: for a weighted mean: one weight a value, resampled with it. ``None``: all equal.

    >>> low, high = bootstrap([0.0, 1.0] * 50)
    >>> 0.35 < low < 0.5 < high < 0.65
    True
    """
    data = torch.as_tensor(values, dtype=torch.float64).flatten()
    if data.numel() == 0:
        raise ArgumentError("values", [], "at least one value")
    if not 0 < level < 1:
        raise ArgumentError("level", level, "a probability in (0, 1)")
    if resamples < 1:
        raise ArgumentError("resamples", resamples, "a whole number of at least 1")
    shares = torch.ones_like(data) if weights is None else torch.as_tensor(weights, dtype=torch.float64).flatten()
    if shares.numel() != data.numel():
        raise MismatchError(f"values has {data.numel()} numbers and weights {shares.numel()}")
    means = _resampled_means(data, shares, resamples, seed)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(means, tails).tolist()
    return Interval(low, high)


def paired_bootstrap(
    before: Tensor | Sequence[float],
    after: Tensor | Sequence[float],
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of ``mean(after - before)``, both measured on the same examples in the same order.

    Pairing removes the part of the spread that comes from easy and hard examples, so a gain shows that two
    separate intervals would hide.

    >>> paired_bootstrap([0.0, 1.0, 0.0], [1.0, 2.0, 1.0])
    Interval(low=1.0, high=1.0)
    """
    first = torch.as_tensor(before, dtype=torch.float64).flatten()
    second = torch.as_tensor(after, dtype=torch.float64).flatten()
    if first.numel() != second.numel():
        raise MismatchError(
            f"before has {first.numel()} values and after {second.numel()}: score the same examples twice"
        )
    return bootstrap(second - first, level, resamples, seed)


def _resampled_means(data: Tensor, weights: Tensor, resamples: int, seed: int) -> Tensor:
    n = data.numel()
    rows = max(1, min(resamples, _CHUNK // n))
    means = []
    for chunk in range(math.ceil(resamples / rows)):
        picks = integers(derive(seed, "bootstrap"), n, rows * n, Stream.SAMPLING, step=chunk).reshape(rows, n)
        means.append((data * weights)[picks].sum(1) / weights[picks].sum(1))
    return torch.cat(means)[:resamples]
