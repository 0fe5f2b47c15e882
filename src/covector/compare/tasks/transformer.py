"""A small transformer on characters of English text: two blocks of attention and a hidden layer, norms before each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from covector.compare.tasks.base import Task
from covector.compare.tasks.charlm import HELD_OUT, characters
from covector.objective import Objective

__all__ = ["Transformer", "task"]

_CONTEXT, _WIDTH, _HEADS, _BLOCKS, _BATCH, _VALIDATION = 64, 64, 4, 2, 32, 128


class Block(nn.Module):
    """Causal attention and a hidden layer, each added to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_attention, self.norm_hidden = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.qkv, self.out = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.up, self.down = nn.Linear(_WIDTH, 4 * _WIDTH), nn.Linear(4 * _WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes ``[batch, time, width]`` in and out."""
        batch, time, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, time, 3, _HEADS, width // _HEADS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        heads = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(heads.transpose(1, 2).reshape(batch, time, width))
        hidden: Tensor = self.down(nn.functional.gelu(self.up(self.norm_hidden(x))))
        return x + hidden


class Transformer(nn.Module):
    """Scores ``[batch, time, symbols]`` of the character after each of ``inputs [batch, time]``."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(symbols, _WIDTH), nn.Embedding(_CONTEXT, _WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(_BLOCKS)])
        self.norm, self.head = nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, symbols)

    def forward(self, inputs: Tensor) -> Tensor:
        places = torch.arange(inputs.shape[1])
        scores: Tensor = self.head(self.norm(self.blocks(self.embedding(inputs) + self.position(places))))
        return scores


def _cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def task(seed: int = 0) -> Task:
    """The transformer with initial weights and an order of batches that are functions of the seed.

    >>> [tuple(t.shape) for t in next(task(0).batches(1))]
    [(32, 64), (32, 64)]
    """
    letters, symbols = characters()
    cut = int(len(letters) * (1 - HELD_OUT))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Transformer(symbols)

    def windows(starts: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
        places = starts[:, None] + torch.arange(_CONTEXT)
        return of[places], of[places + 1]

    def batches(steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        last = cut - _CONTEXT - 1
        return (windows(torch.randint(last, (_BATCH,), generator=generator), letters[:cut]) for _ in range(steps))

    loss = Objective(model, _cross_entropy)
    held_out = letters[cut:]
    last = len(held_out) - _CONTEXT - 1
    fixed = windows(torch.arange(_VALIDATION) * (last // _VALIDATION), held_out)

    @torch.no_grad()
    def validation() -> float:
        return float(loss(fixed))

    return Task(model, loss, batches, validation)
