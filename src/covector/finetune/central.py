"""The one-machine methods, for comparison: all data pooled, zeroth-order steps or AdamW on all parameters."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch

from covector.estimators import ZerothOrder
from covector.federated.schedule import share
from covector.finetune.federation import Federation
from covector.finetune.settings import Settings
from covector.objective import Objective
from covector.random import derive

__all__ = ["central_rounds"]


def central_rounds(settings: Settings, objective: Objective, federation: Federation) -> Iterator[dict[str, float]]:
    """Train round by round, ``local_steps`` steps each; yields the mean loss under the name ``"pooled"``."""
    examples = [example for client in federation.clients for example in federation.train[client]]
    batches = federation.task.batches(examples, settings.batch_size, derive(settings.seed, "pooled"))
    estimator = ZerothOrder(eps=settings.eps, seed=derive(settings.seed, "mezo"), nonfinite="skip")
    optimizer = torch.optim.AdamW(objective.params.values(), lr=settings.lr, weight_decay=0.0)
    for number in range(1, settings.rounds + 1):
        lr = settings.lr * share(settings.schedule, number, settings.rounds)
        optimizer.param_groups[0]["lr"] = lr
        losses = []
        for _ in range(settings.local_steps):
            batch = next(batches)
            if settings.method == "mezo":
                estimate = estimator(objective, batch)
                estimate.gradient.add_to_(objective.params, -lr)
                losses.append(estimate.loss)
                continue
            optimizer.zero_grad(set_to_none=True)
            loss = objective(batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        yield {"pooled": statistics.fmean(losses)}
    optimizer.zero_grad(set_to_none=True)
