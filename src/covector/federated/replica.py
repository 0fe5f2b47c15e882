"""Replica: the parameters of one machine as a cache of ``materialize(theta_0, ledger)``."""

from __future__ import annotations

from collections import OrderedDict
from weakref import WeakValueDictionary

import torch

from covector import trees
from covector.federated.commit import Commit, apply
from covector.federated.header import RunHeader
from covector.gradients import Ledger, SeedPool
from covector.objective import Objective
from covector.trees import Params

__all__ = ["Replica"]

# ledgers of recent commits, by digest: what one client has applied and checked, the next one need not
_REMEMBERED = 8


class Replica:
    """Base parameters, live parameters and the ledger they show; shared by the clients of one process.

    Materializing is skipped when the live parameters show the ledger already. With ``keep_start`` a copy of the
    last materialized parameters is kept, so that several clients of a process start from it for the price of a
    copy: worth its memory for a :class:`~covector.gradients.SeedPool`, whose materialization is K passes' work.

    Args:
        objective: its live parameters are written.
        theta0: base parameters, only read; default: a copy of the live ones as they are now.
        keep_start: default: yes for a seed pool, no for a sketch.

    >>> from covector import Objective, SketchPool
    >>> objective = Objective(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss)
    >>> replica = Replica(objective)
    >>> ledger = Ledger(SketchPool(1, 4))
    >>> replica.show(ledger), replica.show(ledger)
    (True, False)
    """

    def __init__(self, objective: Objective, theta0: Params | None = None, keep_start: bool | None = None) -> None:
        self.objective = objective
        self.theta0 = trees.clone(objective.params) if theta0 is None else theta0
        trees.check_same(self.theta0, objective.params, ("theta0", "live"))
        self.keep_start = keep_start
        self._digest: str | None = None
        self._start: Params | None = None
        self._start_digest: str | None = None
        self._base_digest: str | None = None
        self._ledgers: OrderedDict[str, Ledger] = OrderedDict()

    @classmethod
    def of(cls, objective: Objective) -> Replica:
        """The replica of an objective, the same one as long as anybody uses it: two would overwrite each other.

        >>> objective = Objective.from_function(lambda p, b: p["x"].sum(), {"x": torch.ones(1)})
        >>> mine = Replica.of(objective)
        >>> Replica.of(objective) is mine
        True
        """
        held = _SHARED.get(id(objective))
        if held is None:
            held = _SHARED[id(objective)] = cls(objective)
        return held

    @property
    def base_digest(self) -> str:
        """SHA-256 of theta_0, computed once."""
        if self._base_digest is None:
            self._base_digest = trees.digest(self.theta0)
        return self._base_digest

    @torch.no_grad()
    def show(self, ledger: Ledger) -> bool:
        """Make the live parameters those of ``ledger``; returns whether anything had to be written."""
        wanted = ledger.digest()
        if wanted == self._digest:
            return False
        self._digest = None
        if self._start is not None and wanted == self._start_digest:
            trees.copy_(self.objective.params, self._start)
        else:
            ledger.materialize(self.theta0, out=self.objective.params)
            self._keep(ledger, wanted)
        self._digest = wanted
        return True

    def _keep(self, ledger: Ledger, digest: str) -> None:
        if self.keep_start if self.keep_start is not None else isinstance(ledger.pool, SeedPool):
            self._start_digest = None
            if self._start is None:
                self._start = trees.clone(self.objective.params)
            else:
                trees.copy_(self._start, self.objective.params)
            self._start_digest = digest

    def after(self, ledger: Ledger, commit: Commit, header: RunHeader) -> Ledger:
        """:func:`~covector.federated.commit.apply`, done once for all clients that share this replica."""
        known = self._ledgers.get(commit.digest)
        if known is None or known.digest() != commit.digest:
            known = self._ledgers[commit.digest] = apply(ledger, commit, header)
            if len(self._ledgers) > _REMEMBERED:
                self._ledgers.popitem(last=False)
        return known

    def moved(self) -> None:
        """Say that the live parameters were changed by local steps and no longer show a ledger."""
        self._digest = None

    def walk(self, ledger: Ledger) -> None:
        """Show a local ledger without keeping it as a start."""
        ledger.materialize(self.theta0, out=self.objective.params)
        self._digest = None


# a replica keeps its objective alive, so an id here is never that of another objective
_SHARED: WeakValueDictionary[int, Replica] = WeakValueDictionary()
