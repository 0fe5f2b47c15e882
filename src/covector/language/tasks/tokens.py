"""Loss and score of next-token prediction, shared by the tasks that predict text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from covector.language.encoding import IGNORED

__all__ = ["token_loss", "token_scores"]


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the labeled positions of a batch, in nats.

    Args:
        logits: ``[B, L - 1, V]``, or ``[T, V]`` for the labeled positions alone.
        labels: ``[B, L]`` token ids, the ignored ones -100. Position ``t`` predicts label ``t + 1``.
    """
    targets = labels[:, 1:].to(logits.device)
    if logits.dim() == 2:
        targets = targets[targets != IGNORED]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1), ignore_index=IGNORED)


def token_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean loss, fraction predicted right and number of the labeled tokens of each row: ``[B]`` each."""
    targets = labels[:, 1:].to(logits.device)
    wanted = targets != IGNORED
    flat = logits if logits.dim() == 2 else logits[wanted]
    losses = torch.zeros(targets.shape, device=logits.device)
    right = torch.zeros(targets.shape, device=logits.device)
    losses[wanted] = F.cross_entropy(flat.float(), targets[wanted], reduction="none")
    right[wanted] = (flat.argmax(1) == targets[wanted]).float()
    count = wanted.sum(1)
    return losses.sum(1) / count.clamp(min=1), right.sum(1) / count.clamp(min=1), count.float()
