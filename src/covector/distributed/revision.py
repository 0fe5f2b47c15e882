"""AdaptiveRevision: Adagrad that knows what was applied while a gradient was under way."""

from __future__ import annotations

import torch

from covector import trees
from covector.distributed.schemes import Replica, Scheme, Server
from covector.errors import ArgumentError
from covector.trees import Params

__all__ = ["AdaptiveRevision"]

_SUM = "sum/"


class AdaptiveRevision(Scheme):
    """Delay-tolerant Adagrad: each coordinate's step counts past gradients and how they add up with delayed ones.

    With ``s`` the sum of all gradients applied, a gradient g that was measured when the sum was ``s_read``, and
    ``b = s - s_read``, coordinate by coordinate::

        z <- z + g^2 + 2 g b,    z' <- max(z', z)
        x <- x - lr g / sqrt(z'_new) + (lr / sqrt(z'_old) - lr / sqrt(z'_new)) b

    The last term takes back what steps of the old size were too long. Without delay ``b = 0`` and this is Adagrad.

    Args:
        lr: learning rate.
        initial: value of z and z' at the start.

    Raises:
        ArgumentError: a value that is not positive.

    Source: McMahan and Streeter, "Delay-tolerant algorithms for asynchronous distributed online learning", 2014,
    Algorithm 3.

    >>> server = AdaptiveRevision(lr=1.0, initial=1.0).server({"x": torch.zeros(1)})
    >>> server.apply({"x": torch.ones(1), "sum/x": torch.zeros(1)})
    >>> server.params["x"]
    tensor([-0.7071])
    """

    def __init__(self, lr: float, initial: float = 1.0) -> None:
        for name, value in (("lr", lr), ("initial", initial)):
            if not 0.0 < value < float("inf"):
                raise ArgumentError(name, value, "a finite number above 0")
        self.lr, self.initial = lr, initial

    def server(self, params: Params) -> Server:
        """Parameters, sums of gradients, and accumulators."""
        return _RevisingServer(params, self.lr, self.initial)

    def replica(self, params: Params) -> Replica:
        """A worker that sends back, with its gradient, the sums it read."""
        return _Remembering(params)


class _RevisingServer(Server):
    def __init__(self, params: Params, lr: float, initial: float) -> None:
        self.params = trees.clone(params)
        self.lr = lr
        self.sums = trees.zeros_like(params)
        self.z = {name: torch.full_like(p, initial) for name, p in self.params.items()}
        self.largest = trees.clone(self.z)

    def read(self) -> Params:
        return {**trees.clone(self.params), **{_SUM + name: s.clone() for name, s in self.sums.items()}}

    def apply(self, message: Params) -> None:
        for name, x in self.params.items():
            g, z, largest = message[name], self.z[name], self.largest[name]
            behind = self.sums[name] - message[_SUM + name]
            before = self.lr * largest.rsqrt()
            z.add_(g * g + 2 * g * behind)
            torch.maximum(largest, z, out=largest)
            after = self.lr * largest.rsqrt()
            x.add_((before - after) * behind - after * g)
            self.sums[name].add_(g)


class _Remembering(Replica):
    def __init__(self, params: Params) -> None:
        self.params = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        self.sums: Params = {}

    def wants(self) -> bool:
        return True

    def pull(self, shared: Params) -> None:
        trees.copy_(self.params, {name: shared[name] for name in self.params})
        self.sums = {_SUM + name: shared[_SUM + name] for name in self.params}

    def step(self, gradient: Params) -> Params:
        self.steps += 1
        return {**gradient, **self.sums}
