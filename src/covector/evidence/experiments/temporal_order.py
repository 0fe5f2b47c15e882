"""The temporal-order task of Hochreiter and Schmidhuber (1997), and a plain tanh network with its gradient by hand.

Two symbols out of {A, B}, one early and one in the middle of a sequence of distractors, decide the class by their
order: AA, AB, BA or BB. The network of 50 units makes ten thousands of small steps, for which autograd's bookkeeping
takes longer than the arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from covector.trees import Params

__all__ = ["Pass", "forward_and_back", "initial", "sequences"]

SYMBOLS, CLASSES = 6, 4


class Pass(NamedTuple):
    """One forward and backward pass.

    Args:
        loss: mean cross-entropy.
        wrong: share of the sequences that were classified wrong.
        grads: of the parameters.
        upstream: the total derivatives dE/dh_t, ``[T, B, n]``.
        derivative: tanh' at each step, ``[T, B, n]``.
    """

    loss: float
    wrong: float
    grads: Params
    upstream: Tensor
    derivative: Tensor


def sequences(length: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw symbols ``[T, B]`` (0 and 1 are A and B, 2 to 5 distract) and classes ``[B]``."""
    symbols = torch.randint(2, SYMBOLS, (length, count), generator=generator)
    marks = torch.randint(2, (2, count), generator=generator)
    tenth = length // 10
    for mark, first in zip(marks, (tenth, 5 * tenth), strict=True):
        symbols[torch.randint(first, first + tenth, (count,), generator=generator), torch.arange(count)] = mark
    return symbols, marks[0] * 2 + marks[1]


def initial(seed: int, hidden: int = 50, std: float = 0.1) -> Params:
    """Normal weights of deviation ``std`` and zero biases, in torch's orientation ``[out, in]``."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weight_hh": (hidden, hidden), "weight_ih": (hidden, SYMBOLS), "head": (CLASSES, hidden)}
    params = {name: torch.randn(shape, generator=generator) * std for name, shape in shapes.items()}
    return {**params, "bias": torch.zeros(hidden), "head_bias": torch.zeros(CLASSES)}


@torch.no_grad()
def forward_and_back(params: Params, symbols: Tensor, classes: Tensor) -> Pass:
    """Loss and gradients of a batch, and what the vanishing-gradient penalty is made of."""
    length, count = symbols.shape
    weight, head = params["weight_hh"], params["head"]
    states = weight.new_zeros(length + 1, count, weight.shape[0])
    drive = params["weight_ih"].mT[symbols] + params["bias"]
    for t in range(length):
        torch.addmm(drive[t], states[t], weight.mT, out=states[t + 1]).tanh_()
    logits = torch.addmm(params["head_bias"], states[-1], head.mT)
    loss = nn.functional.cross_entropy(logits, classes)
    error = (logits.softmax(1) - nn.functional.one_hot(classes, CLASSES)) / count
    derivative = 1 - states[1:].square()
    upstream, pulled = torch.empty_like(derivative), torch.empty_like(derivative)
    torch.mm(error, head, out=upstream[-1])
    for t in range(length - 1, -1, -1):
        torch.mul(upstream[t], derivative[t], out=pulled[t])
        if t:
            torch.mm(pulled[t], weight, out=upstream[t - 1])
    flat = pulled.flatten(0, 1)
    grads = {
        "weight_hh": flat.mT @ states[:-1].flatten(0, 1),
        "weight_ih": flat.mT @ nn.functional.one_hot(symbols.flatten(), SYMBOLS).to(flat),
        "head": error.mT @ states[-1],
        "bias": flat.sum(0),
        "head_bias": error.sum(0),
    }
    wrong = (logits.argmax(1) != classes).double().mean()
    return Pass(float(loss), float(wrong), grads, upstream, derivative)
