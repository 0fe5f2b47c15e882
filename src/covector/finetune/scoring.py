"""Scores before and after, honestly: per client, with bootstrap intervals, and against a recalibrated base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from covector import language
from covector.finetune.federation import Examples, Federation

__all__ = ["Scorecard", "calibrated_accuracy", "margins", "score"]


@dataclass(frozen=True)
class Scorecard:
    """Scores of each client and of all examples together."""

    clients: dict[str, language.Scores]

    @property
    def overall(self) -> language.Scores:
        """All examples of all clients."""
        return language.overall(self.clients.values())

    def to_dict(self) -> dict[str, Any]:
        """Value, interval, loss and n of each client and overall, JSON-ready."""
        rows = {**self.clients, "overall": self.overall}
        return {
            name: {"value": s.value, "interval": list(s.interval()), "loss": s.loss, "n": s.n, "metric": s.metric}
            for name, s in rows.items()
            if s.n
        }


def score(federation: Federation, model: nn.Module, examples: Examples, batch_size: int = 32) -> Scorecard:
    """Score a model on the examples of each client."""
    task = federation.task
    return Scorecard({client: task.evaluate(model, own, batch_size) for client, own in examples.items()})


def margins(scores: language.Scores, labels: Tensor) -> Tensor:
    """Log-odds of class 1 against class 0, recovered from the losses of a two-class task.

    >>> losses = -torch.log(torch.tensor([0.9, 0.1], dtype=torch.float64))
    >>> margins(language.Scores(losses, torch.ones(2), torch.ones(2)), torch.tensor([1, 0])).round(decimals=3)
    tensor([2.1970, 2.1970], dtype=torch.float64)
    """
    p = torch.exp(-scores.per_example_loss.double()).clamp(1e-12, 1 - 1e-12)
    return torch.logit(p) * (2 * labels.double() - 1)


def calibrated_accuracy(validation: Scorecard, checked: Examples, test: Scorecard, tested: Examples) -> float | None:
    """Accuracy of a two-class base model after its threshold is moved to the median log-odds on validation.

    A language model may know the answer and still prefer one word: moving one number repairs that, so an honest
    comparison asks for more than the repair. Only inputs of the validation split are used, no labels.

    Returns:
        The accuracy on the test examples, or ``None`` when the task has not exactly the labels 0 and 1.
    """
    labels = {example.get("label") for part in tested.values() for example in part}
    if labels != {0, 1}:
        return None
    shift = torch.cat([margins(s, _labels(checked[c])) for c, s in validation.clients.items() if s.n]).median()
    hits = [
        (margins(s, _labels(tested[c])) > shift) == (_labels(tested[c]) == 1) for c, s in test.clients.items() if s.n
    ]
    return float(torch.cat(hits).double().mean())


def _labels(examples: list[dict[str, Any]]) -> Tensor:
    return torch.tensor([example["label"] for example in examples])
