"""FedAvg of LoRA adapters, the usual way to make federated fine-tuning cheap: the baseline in bytes and quality."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from covector.errors import require_extra
from covector.federated.schedule import share
from covector.finetune.federation import Federation
from covector.finetune.settings import Settings

__all__ = ["LoraRound", "lora_rounds"]


@dataclass
class LoraRound:
    """Losses and bytes of a round, and the adapted model."""

    model: Any
    losses: dict[str, float] = field(default_factory=dict)
    nbytes: int = 0


def lora_rounds(settings: Settings, model: Any, federation: Federation, rank: int = 8) -> Iterator[LoraRound]:
    """Train round by round: every client takes AdamW steps from the common adapters, then theirs are averaged.

    Args:
        settings: rounds, local steps, batch size, learning rate.
        model: the base model; PEFT wraps it in place.
        federation: clients and their data; averages are weighted by examples.
        rank: rank of the adapters.

    Raises:
        MissingExtraError: peft is not installed.
    """
    require_extra("peft", "language")
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(model, config)
    adapted.eval()
    objective = federation.task.objective(adapted)
    clients = [name for name in federation.clients if federation.train[name]]
    data = {name: federation.batches(name, settings.batch_size, settings.seed) for name in clients}
    total = sum(len(federation.train[name]) for name in clients)
    moments: dict[str, dict[str, Any]] = {}
    common = {name: p.detach().clone() for name, p in objective.params.items()}
    nbytes = sum(p.numel() * p.element_size() for p in common.values())
    for number in range(settings.rounds):
        result = LoraRound(adapted, nbytes=nbytes)
        average = {name: torch.zeros_like(p) for name, p in common.items()}
        for client in clients:
            _set(objective.params, common)
            optimizer = torch.optim.AdamW(objective.params.values(), lr=settings.lr, weight_decay=0.0)
            lr = settings.lr * share(settings.schedule, number + 1, settings.rounds)
            if client in moments:  # the moments stay at the client, as its data do
                optimizer.load_state_dict(moments[client])
            optimizer.param_groups[0]["lr"] = lr
            for step in range(settings.local_steps):
                batch = data[client][(number * settings.local_steps + step) % len(data[client])]
                optimizer.zero_grad(set_to_none=True)
                loss = objective(batch)
                loss.backward()
                optimizer.step()
            moments[client] = optimizer.state_dict()
            result.losses[client] = float(loss.detach())
            for name, p in objective.params.items():
                average[name].add_(p.detach(), alpha=len(federation.train[client]) / total)
        common = average
        _set(objective.params, common)
        yield result


@torch.no_grad()
def _set(params: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    for name, p in params.items():
        p.copy_(values[name])
