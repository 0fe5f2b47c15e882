"""Random scaling: every update times one random number, which makes the step a fair sample of the way it takes.

For s ~ Exp(1), and any function that is differentiable almost everywhere::

    E[f(x + s d) - f(x)] = E[<grad f(x + s d), d>]

exactly, without smoothness: the gradient where the step ended says, in the mean, what the step brought. An online
learner that is fed these gradients is therefore an optimizer of non-smooth non-convex functions. Momentum is such a
learner: ``Delta <- (beta / (1 + lr mu)) (Delta - lr g)``, mirror descent whose past fades.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError
from covector.optim.optimizer import Optimizer, Params, Updates
from covector.optim.rule import Rule
from covector.optim.slots import Bucket, Slots
from covector.optim.wrapper import Wrapper
from covector.random import check_seed, derive, uniform

__all__ = ["FadingMirrorDescent", "RandomScaling"]


class RandomScaling(Wrapper):
    """Multiply every update by one random number of mean 1, the same for all parameters.

    Args:
        optimizer: whose updates are scaled.
        distribution: ``"exponential"`` as published; ``"uniform"`` on [0, 2), for which the next gradient is weighted
            with ``2 - s``, as the identity then asks for; None scales nothing.
        seed: 64 bits; the numbers are a function of it and of the step, so that a resumed run goes on with the same.

    Raises:
        ArgumentError: another distribution.

    Source: Zhang and Cutkosky, "Random scaling and momentum for non-smooth non-convex optimization", 2024, Algorithm 2.

    >>> import torch
    >>> from covector.optim import SGD
    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> optimizer = RandomScaling(SGD([p], lr=1.0), seed=1)
    >>> p.grad = torch.ones(2)
    >>> optimizer.step()
    >>> bool((p[0] == p[1]) & (p[0] < 0))
    True
    """

    def __init__(self, optimizer: Optimizer | Wrapper, distribution: str | None = "exponential", seed: int = 0) -> None:
        if distribution not in ("exponential", "uniform", None):
            raise ArgumentError("distribution", distribution, "'exponential', 'uniform' or None")
        check_seed(seed)
        super().__init__(optimizer)
        self.distribution, self.seed = distribution, seed
        if distribution == "uniform":
            innermost: Optimizer | Wrapper = optimizer
            while isinstance(innermost, Wrapper):
                innermost = innermost.inner
            innermost.transforms.append(self._weigh)

    def draw(self, step: int) -> float:
        """The number of a step, from 0.

        >>> import torch
        >>> from covector.optim import SGD
        >>> optimizer = RandomScaling(SGD([torch.nn.Parameter(torch.zeros(2))]), distribution=None)
        >>> optimizer.draw(0)
        1.0
        """
        if self.distribution is None:
            return 1.0
        fraction = float(uniform(derive(self.seed, "random scaling"), 1, step=step))
        return 2.0 * fraction if self.distribution == "uniform" else -math.log1p(-fraction)

    def transform(self, updates: Updates) -> Updates:
        step = self.shared.get("scaled_steps", 0)
        self.shared["scaled_steps"] = step + 1
        s = self.draw(step)
        return {param: s * update for param, update in updates.items()} if s != 1.0 else updates

    def _weigh(self, buckets: Sequence[Bucket]) -> None:
        step = self.shared.get("scaled_steps", 0)
        weight = 2.0 - self.draw(step - 1) if step else 1.0
        for bucket in buckets:
            bucket.signs[:] = [sign * weight for sign in bucket.signs]


def fading(g: Any, delta: Any, decay: Any, lr: Any) -> tuple[Any, ...]:
    """``Delta = decay (Delta - lr g)``; the parameter moves by Delta."""
    delta = decay * (delta - lr * g)
    return -delta, delta


def fading_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """``beta / (1 + lr mu)`` and lr."""
    return group["beta"] / (1.0 + group["lr"] * group["mu"]), group["lr"]


FADING = Rule(fading, ("delta",), fading_numbers, rated=True)


class FadingMirrorDescent(Optimizer):
    """The online learner of the conversion: mirror descent on the updates, whose past losses fade.

    ``Delta <- (beta / (1 + lr mu)) (Delta - lr g)``. It is momentum: with ``a = beta / (1 + lr mu)``, the same steps as
    ``M = EMA(a)(g)`` with the learning rate ``a lr / (1 - a)``. Wrap it in :class:`RandomScaling` for the published
    method.

    Args:
        params: a module, parameters, or param groups.
        lr: the learner's step, default 1e-3.
        beta: how fast past losses fade, in (0, 1].
        mu: strength of the pull of the update toward zero.
        weight_decay: strength; decoupled.
        options: as for :class:`~covector.optim.Optimizer`.

    Source: Zhang and Cutkosky, "Random scaling and momentum for non-smooth non-convex optimization", 2024, equation 5.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = FadingMirrorDescent([p], lr=1.0, beta=0.5)
    >>> for _ in range(2):
    ...     p.grad = torch.ones(1)
    ...     optimizer.step()
    ...     print(p.item())
    -0.5
    -1.25
    """

    nonnegative = ("mu",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        beta: float = 0.99,
        mu: float = 0.0,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(params, Slots(FADING), lr, weight_decay=weight_decay, beta=beta, mu=mu, **options)

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if not 0.0 < group["beta"] <= 1.0:
            raise ArgumentError("beta", group["beta"], "a number in (0, 1]")
