"""Momentum as an average of gradients: what matrix optimizers map to a direction.

``m <- mu m + (1 - mu) g``; the direction is ``m``, or with Nesterov ``(1 - mu) g + mu m``::

    plain      m                        Muon, trust regions: a map follows that does not see m's length
    corrected  m / (1 - mu^t)           Shampoo, SOAP with factored variance
    warm       m starts at the first g  Kovalev 2025, Algorithm 1
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from covector.optim.rule import Rule
from covector.optim.sgd import heavy_ball
from covector.optim.signs import signum

__all__ = ["CORRECTED", "MOMENTUM", "SIGNS", "WARM", "corrected_numbers"]


def momentum_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``mu, 1 - mu``, and the shares of gradient and average in the direction."""
    mu = group["momentum"]
    return (mu, 1 - mu, 1 - mu, mu) if group.get("nesterov", False) else (mu, 1 - mu, 0.0, 1.0)


def corrected_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """As :func:`momentum_numbers` for ``betas[0]``, the bias of the average taken out."""
    mu = group["betas"][0]
    return mu, 1 - mu, 0.0, 1 / (1 - mu**t)


def warm_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """As :func:`momentum_numbers`, the first gradient counted in full."""
    mu, rate, now, past = momentum_numbers(t, group)
    return mu, rate + mu * (t < 2), now, past


MOMENTUM = Rule(heavy_ball, ("momentum_buffer",), momentum_numbers)
CORRECTED = Rule(heavy_ball, ("exp_avg",), corrected_numbers)
WARM = Rule(heavy_ball, ("momentum_buffer",), warm_numbers)
SIGNS = Rule(signum, ("exp_avg",), lambda t, group: (group["betas"][0], 1 - group["betas"][0]))
