"""Subspace: train all parameters through the few coordinates of a pool, with any torch optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from covector import trees
from covector.errors import CompositionError, MismatchError
from covector.gradients.base import Gradient
from covector.gradients.dense import Dense
from covector.gradients.ledger import Ledger
from covector.gradients.pools import Pool, SeedPool, SketchPool
from covector.gradients.seeded import Seeded
from covector.gradients.sketch import Sketch, project
from covector.trees import Params

__all__ = ["Subspace", "coordinates"]


def coordinates(gradient: Gradient, pool: Pool) -> Tensor:
    """The derivative by a pool's coordinates that ``gradient`` carries: float64 ``[size]``.

    Args:
        gradient: a :class:`Sketch` of the pool's key, a :class:`Seeded` over the pool's seeds, or a
            :class:`Dense` gradient, which is projected onto a :class:`SketchPool`.
        pool: the coordinates.

    Raises:
        CompositionError: the gradient is carried by something else than this pool.

    >>> coordinates(Sketch(1, [1.0, 2.0]), SketchPool(1, 2))
    tensor([1., 2.], dtype=torch.float64)
    """
    if isinstance(pool, SketchPool):
        if isinstance(gradient, Sketch) and gradient.key == pool.key and gradient.x.numel() == pool.size:
            return gradient.x.double()
        if isinstance(gradient, Dense):
            return project(gradient.params, pool.key, pool.size)
    if isinstance(pool, SeedPool) and isinstance(gradient, Seeded) and gradient.distribution == pool.distribution:
        order = torch.argsort(pool.seeds)
        slots = torch.searchsorted(pool.seeds[order], gradient.seeds).clamp(max=pool.size - 1)
        found = order[slots]
        if torch.equal(pool.seeds[found], gradient.seeds):
            return torch.zeros(pool.size, dtype=torch.float64).index_add_(0, found, gradient.coefficients)
    raise CompositionError(
        f"{gradient!r} has no coordinates in {pool!r}: pass the same pool to the estimator (directions= or carrier=)"
    )


class Subspace:
    """``theta = theta_0 + (combination of x)``: ``x`` is a parameter of ``pool.size`` numbers, ``theta`` all of them.

    Args:
        params: the live parameters, written by :meth:`push`.
        pool: the directions.
        theta0: the base, only read; default: a copy of ``params`` as they are. Hand in a memory-mapped copy to
            save the memory.

    Raises:
        MismatchError: ``theta0`` and ``params`` differ in names or shapes.

    >>> params = {"w": torch.zeros(8)}
    >>> pool = SketchPool(key=1, size=4)
    >>> subspace = Subspace(params, pool)
    >>> optimizer = torch.optim.SGD([subspace.x], lr=0.5)
    >>> subspace.step(Sketch(1, [1.0, 0.0, 0.0, 0.0]), optimizer)
    >>> params["w"].abs().sort().values
    tensor([0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.5000, 0.5000])
    """

    def __init__(self, params: Params, pool: Pool, theta0: Params | None = None) -> None:
        trees.check_dense_real(params)
        self.params = params
        self.pool = pool
        self.theta0 = trees.clone(params) if theta0 is None else theta0
        trees.check_same(params, self.theta0, ("params", "theta0"))
        self.x = nn.Parameter(torch.zeros(pool.size))

    def pull(self, gradient: Gradient) -> None:
        """Write the derivative by ``x`` to ``x.grad``; see :func:`coordinates`."""
        self.x.grad = coordinates(gradient, self.pool).to(self.x.dtype)

    @torch.no_grad()
    def push(self) -> None:
        """Write ``theta_0 + (combination of x)`` to the live parameters."""
        trees.copy_(self.params, self.theta0)
        self.pool.combination(self.x.detach().double()).add_to_(self.params)

    def step(self, gradient: Gradient, optimizer: torch.optim.Optimizer) -> None:
        """:meth:`pull`, one step of an optimizer over ``[subspace.x]``, :meth:`push`."""
        self.pull(gradient)
        optimizer.step()
        self.push()

    def to_ledger(self, quantum: int = 32) -> Ledger:
        """The state as exact integers (``x`` rounded to units of ``2**-quantum``), for patches and other machines."""
        ledger = Ledger(self.pool, quantum)
        units = [ledger.units(value) for value in self.x.detach().tolist()]
        ledger.add_coordinates_(torch.tensor(units, dtype=torch.int64))
        return ledger

    def state_dict(self) -> dict[str, Any]:
        """``x``; the base is not part of it."""
        return {"x": self.x.detach().clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over ``x`` and write the live parameters."""
        if state["x"].shape != self.x.shape:
            raise MismatchError(f"x has shape {tuple(state['x'].shape)}, expected {tuple(self.x.shape)}")
        with torch.no_grad():
            self.x.copy_(state["x"])
        self.push()
