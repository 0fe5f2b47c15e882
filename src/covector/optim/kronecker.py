"""Slot 4: Shampoo's preconditioner, inverse roots of the second moments of rows and of columns, block by block.

``L <- b L + (1 - b) G G^T``, ``R <- b R + (1 - b) G^T G`` (sums for b = 1), and a direction ``D`` becomes
``L^(-1/p) D R^(-1/p)``. The roots are renewed every ``refresh`` steps. In the background a root is computed from the
statistics of one renewal and used from the next on, always: when it happens to be ready changes nothing, so that runs
repeat bit for bit. The statistics that it is computed from are part of the state, and a resumed run goes on the same.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor

from covector.errors import ArgumentError
from covector.linalg import inv_root
from covector.optim.matrices import Stack, map_matrices, stacks
from covector.optim.shards import Shards
from covector.optim.slots import Bucket

__all__ = ["Kronecker"]

SIDES = ("left", "right")
States = list[dict[str, Any]]


class Kronecker:
    """The preconditioner of Shampoo. Reads ``betas[1]`` from the param group.

    Args:
        block: matrices are cut into blocks of at most this many rows and columns; None: not at all.
        refresh: steps from one renewal of the roots to the next.
        start: the first step that is preconditioned.
        p: inverse p-th roots; 4 for two sides.
        root: ``"eigh"``, ``"newton"`` or ``"auto"``, see :func:`covector.linalg.inv_root`.
        ridge: added to the diagonal, in units of the largest eigenvalue.
        background: compute roots in a thread, for use from the next renewal on.
        shards: divides the roots among processes.

    Raises:
        ArgumentError: a setting out of range.

    >>> Kronecker(refresh=10).block
    1024
    """

    def __init__(
        self,
        block: int | None = 1024,
        refresh: int = 20,
        start: int = 1,
        p: int = 4,
        root: str = "auto",
        ridge: float = 1e-6,
        background: bool = False,
        shards: Shards | None = None,
    ) -> None:
        wholes = {"refresh": refresh, "start": start, "power": p, "block": 1 if block is None else block}
        for name, value in wholes.items():
            if value < 1:
                raise ArgumentError(name, value, "a whole number of at least 1")
        if root not in ("auto", "eigh", "newton"):
            raise ArgumentError("root", root, "'auto', 'eigh' or 'newton'")
        if not ridge >= 0.0:
            raise ArgumentError("ridge", ridge, "a number of at least 0")
        self.block, self.refresh, self.start, self.p = block, refresh, start, p
        self.root, self.ridge, self.background = root, ridge, background
        self.shards = shards or Shards(None)
        self.jobs: dict[tuple[Any, ...], Future[Tensor]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        t, states = int(bucket.t), bucket.states
        first = t == self.start
        for stack in stacks(grads, bucket.group, self.block):
            self._collect(stack, bucket)
            if first or (t > self.start and t % self.refresh == 0):
                for side in SIDES:
                    self._renew(stack, states, side, bucket.group["betas"][1], t, wait=first or not self.background)
        return map_matrices(lambda stack: self._apply(stack, states), directions, bucket.group, self.block)

    def _collect(self, stack: Stack, bucket: Bucket) -> None:
        g, beta = stack.matrices, bucket.group["betas"][1]
        for side, now in zip(SIDES, (g @ g.mT, g.mT @ g), strict=True):
            fresh = now * (1 - beta if beta < 1 else 1.0)
            if stack.known(bucket.states, side):
                fresh = stack.read(bucket.states, side) * beta + fresh
            stack.write(bucket.states, side, fresh)

    def _renew(self, stack: Stack, states: States, side: str, beta: float, t: int, wait: bool) -> None:
        """Take over the root that is due, and begin the next one."""
        statistics = stack.read(states, side)
        statistics = statistics / (1 - beta**t) if beta < 1 else statistics
        if wait:
            stack.write(states, side + "_root", self._finish(statistics, self._compute(self._mine(statistics))))
        else:
            self._take_over(stack, states, side)
        if self.background:
            stack.write(states, side + "_next", statistics)
            own = self._mine(stack.read(states, side + "_next")).clone()
            self._thread = self._thread or ThreadPoolExecutor(1, "covector-roots")
            self.jobs[self._key(stack, states, side)] = self._thread.submit(self._compute, own)

    def _take_over(self, stack: Stack, states: States, side: str) -> None:
        job = self.jobs.pop(self._key(stack, states, side), None)
        if stack.known(states, side + "_next"):
            due = stack.read(states, side + "_next")
            # after a resume, or where the stack holds other matrices than then, nobody has computed it
            own = job.result() if job is not None else self._compute(self._mine(due))
            stack.write(states, side + "_root", self._finish(due, own))

    def _apply(self, stack: Stack, states: States) -> Tensor:
        x = stack.matrices
        if stack.known(states, "left_root"):
            x = stack.read(states, "left_root") @ x @ stack.read(states, "right_root")
        return x

    def _mine(self, statistics: Tensor) -> Tensor:
        return self.shards.own(statistics)

    def _compute(self, statistics: Tensor) -> Tensor:
        return inv_root(statistics, self.p, self.root, self.ridge, check=False)

    def _finish(self, statistics: Tensor, own: Tensor) -> Tensor:
        return self.shards.gather(own, len(statistics))

    def _key(self, stack: Stack, states: States, side: str) -> tuple[Any, ...]:
        return (side, *((id(states[i]), suffix) for i, suffix in zip(stack.owners, stack.suffixes, strict=True)))
