"""Gradients that vanish: how much of one gets through a step of a recurrent network, and a penalty on what is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from covector.errors import ArgumentError, MismatchError
from covector.linalg.checks import check_choice

__all__ = ["VanishingGradientPenalty", "explicit_penalty", "jacobian_norm_profile"]

RATIOS = ("squared", "norm")
VANISHED = 1e-20  # below this squared length a gradient has no direction worth keeping

Cell = Callable[[Tensor, Tensor], Tensor]


class VanishingGradientPenalty(nn.Module):
    """``Omega``: how far a recurrent cell is from keeping the length of the gradient that flows back through it.

    For each step, with ``d = dE/dh_(t+1)`` the total derivative of the loss,

    ``Omega_t = ( |d . dh_(t+1)/dh_t|^2 / |d|^2 - 1 )^2``

    averaged over steps and examples, leaving out those whose ``d`` has vanished. The paper's text has the ratio of
    the lengths (``"norm"``), its code that of their squares (``"squared"``). ``d`` and the states are constants: the
    penalty is differentiated through the cell's one-step Jacobian only, whatever the cell. For ``tanh(W h + ...)`` the
    paper's code also keeps ``tanh'`` constant; :func:`explicit_penalty` is that form.

    Args:
        cell: ``cell(inputs, state) -> state`` for a batch, such as ``nn.RNNCell`` or ``nn.GRUCell``; it is called once
            for all steps. Where the state has two parts, as an LSTM's, wrap the cell so that it is one tensor.
        ratio: ``"squared"`` (default) or ``"norm"``.

    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks" (2013), Equation 9.

    >>> _ = torch.manual_seed(0)
    >>> cell, inputs = nn.RNNCell(2, 3), torch.randn(5, 4, 2)
    >>> states = [torch.zeros(4, 3)]
    >>> for x in inputs:
    ...     states.append(cell(x, states[-1]))
    >>> loss = states[-1].square().mean()
    >>> omega = VanishingGradientPenalty(cell)(loss, inputs, states)
    >>> (loss + 2.0 * omega).backward()
    >>> 0.0 < omega.item() < 1.0
    True
    """

    def __init__(self, cell: Cell, ratio: str = "squared") -> None:
        super().__init__()
        check_choice("ratio", ratio, RATIOS)
        self.cell, self.ratio = cell, ratio

    def forward(self, loss: Tensor, inputs: Tensor, states: Sequence[Tensor]) -> Tensor:
        """The penalty of one run over a batch of sequences.

        Args:
            loss: a scalar computed from the states.
            inputs: ``[T, B, k]``.
            states: the T + 1 states ``[B, n]`` that were computed, the initial one first.

        Returns:
            A scalar that can be added to the loss. The graph of ``loss`` is kept.
        """
        if len(states) != len(inputs) + 1:
            raise MismatchError(f"{len(states)} states for {len(inputs)} inputs: expected one more, the initial one")
        upstream = _state_gradients(loss, states[1:]).flatten(0, 1)
        before = torch.stack([state.detach() for state in states[:-1]]).flatten(0, 1).requires_grad_()
        with torch.enable_grad():
            after = self.cell(inputs.detach().flatten(0, 1), before)
            (passed,) = torch.autograd.grad(after, before, upstream, create_graph=True)
        return _omega(passed, upstream, self.ratio)


def explicit_penalty(weight: Tensor, upstream: Tensor, derivative: Tensor, ratio: str = "squared") -> Tensor:
    """The penalty as the paper's code has it: a function of the recurrent matrix alone.

    For ``h_(t+1) = act(W h_t + ...)`` the gradient ``d`` becomes ``(d * act') W`` in one step back.

    Args:
        weight: W, ``[n, n]``, ``nn.RNNCell.weight_hh``.
        upstream: the total derivatives ``dE/dh_(t+1)``, ``[T, B, n]``.
        derivative: ``act'`` at step t + 1, ``[T, B, n]``; for tanh ``1 - h_(t+1)^2``.
        ratio: ``"squared"`` (default, the code) or ``"norm"`` (the text).

    Returns:
        A scalar; only ``weight`` gets a gradient.

    >>> d = torch.ones(3, 2, 4)
    >>> explicit_penalty(torch.eye(4), d, torch.ones_like(d)).item()
    0.0
    """
    check_choice("ratio", ratio, RATIOS)
    if weight.ndim != 2 or upstream.shape != derivative.shape or upstream.shape[-1] != weight.shape[0]:
        raise MismatchError(
            f"weight has shape {tuple(weight.shape)}, upstream {tuple(upstream.shape)}, derivative "
            f"{tuple(derivative.shape)}: expected [n, n] and twice [T, B, n]"
        )
    upstream = upstream.detach()
    return _omega((upstream * derivative.detach()) @ weight, upstream, ratio)


def jacobian_norm_profile(loss: Tensor, states: Sequence[Tensor]) -> Tensor:
    """The length of ``dE/dh_t`` for each state, in the mean over examples: where gradients vanish or explode.

    Args:
        loss: a scalar computed from the states.
        states: T states ``[B, n]``, parts of the graph of ``loss``.

    Returns:
        ``[T]``, detached. The graph of ``loss`` is kept.

    >>> h = [torch.ones(1, 2, requires_grad=True)]
    >>> for _ in range(3):
    ...     h.append(0.5 * h[-1])
    >>> jacobian_norm_profile(h[-1].sum(), h) / 2**0.5
    tensor([0.1250, 0.2500, 0.5000, 1.0000])
    """
    lengths: Tensor = torch.linalg.vector_norm(_state_gradients(loss, states), dim=-1)
    return lengths.mean(-1)


def _state_gradients(loss: Tensor, states: Sequence[Tensor]) -> Tensor:
    """``dE/dh_t`` for all t, ``[T, B, n]``."""
    if loss.numel() != 1:
        raise ArgumentError("loss.shape", tuple(loss.shape), "a scalar")
    if not states or not any(state.requires_grad for state in states):
        raise ArgumentError("states", len(states), "states that the loss was computed from, with their graph")
    wanted = [state for state in states if state.requires_grad]
    found = iter(torch.autograd.grad(loss, wanted, retain_graph=True, materialize_grads=True, allow_unused=True))
    return torch.stack([next(found) if state.requires_grad else torch.zeros_like(state) for state in states]).detach()


def _omega(passed: Tensor, upstream: Tensor, ratio: str) -> Tensor:
    before = upstream.square().sum(-1)
    kept = before >= VANISHED
    squared = passed.square().sum(-1)[kept] / before[kept]
    # the derivative of a root is infinite at 0: what has vanished in this very step pulls nowhere
    value = squared if ratio == "squared" else squared.clamp_min(VANISHED).sqrt()
    return (value - 1.0).square().sum() / max(1, int(kept.sum()))
