"""Watch: follow curvature and noise while a model trains, for a stated share of the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from covector import random
from covector.curvature import Hessian
from covector.errors import ArgumentError
from covector.landscape.generalization import gradient_scatter
from covector.linalg import LinearOperator, eigsh, trace
from covector.objective import Batch, Objective
from covector.training import Callback
from covector.training.modes import evaluating
from covector.trees import flatten

if TYPE_CHECKING:
    from covector.training.run import Run

__all__ = ["QUANTITIES", "Watch"]

QUANTITIES = {
    "sharpness": "largest eigenvalue of the Hessian, and its ratio to what the learning rate bears",
    "overlap": "share of the gradient's squared norm along the eigenvectors of the largest eigenvalues",
    "trace": "sum of the Hessian's eigenvalues",
    "noise": "noise scale of the gradient: the batch size at which noise and signal are equal",
}


class Watch(Callback):
    """Measure chosen quantities on one batch, again and again, without taking more than a share of the time.

    The first step is always measured; from then on a measurement is due when it fits the budget by the time the last
    one took. A warm start makes it cheap: where the surface changes slowly, the largest eigenvalue takes few products.
    The module is measured in evaluation mode; neither parameters, gradients, modes nor random states are changed.

    In :func:`covector.train` it is a callback; each step's record then holds the latest numbers, and with it the
    metrics, TensorBoard and the history. In a loop of your own, call the watch after each step.

    Args:
        objective: what to look at.
        batch: on what; the same one throughout.
        quantities: which of :data:`QUANTITIES`; default: ``"sharpness"``.
        budget: share of the time of training that measuring may take (default 0.05).
        every: steps between two measurements at least.
        top: eigenvectors that ``"overlap"`` looks at; also how many eigenvalues are recorded.
        probes: random vectors of ``"trace"``.
        tol: of the eigenvalues' residuals, relative.
        seed: of all random vectors.
        curvature: the operator: :class:`~covector.curvature.Hessian`, or another of its signature.

    Attributes:
        records: ``{"step": ..., "sharpness": ...}`` of each measurement.
        spent: seconds that measuring took.

    Raises:
        ArgumentError: an unknown quantity, a budget that is not positive, or counts below 1.

    >>> objective = Objective(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss)
    >>> batch = torch.randn(8, 2), torch.randn(8, 1)
    >>> watch = Watch(objective, batch, ["sharpness", "noise"])
    >>> sorted(watch(lr=0.1))
    ['noise_scale', 'sharpness', 'sharpness_ratio', 'step']
    """

    def __init__(
        self,
        objective: Objective,
        batch: Batch,
        quantities: Iterable[str] = ("sharpness",),
        *,
        budget: float = 0.05,
        every: int = 1,
        top: int = 1,
        probes: int = 4,
        tol: float = 1e-2,
        seed: int = 0,
        curvature: Callable[..., LinearOperator] = Hessian,
    ) -> None:
        chosen = list(quantities)
        if not chosen or not set(chosen) <= set(QUANTITIES):
            raise ArgumentError("quantities", chosen, "some of " + ", ".join(QUANTITIES))
        if not budget > 0:
            raise ArgumentError("budget", budget, "a positive share of the time, such as 0.05")
        for name, value in (("every", every), ("top", top), ("probes", probes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(name, value, "a whole number of at least 1")
        self.objective, self.batch, self.quantities = objective, batch, chosen
        self.budget, self.every, self.top, self.probes = budget, every, top, probes
        self.tol, self.seed, self.curvature = tol, seed, curvature
        self.records: list[dict[str, float]] = []
        self.spent = 0.0
        self._step = 0
        self._began: float | None = None
        self._cost = 0.0
        self._latest: dict[str, float] = {}
        self._vectors: Tensor | None = None

    def __call__(
        self, step: int | None = None, lr: float | None = None, momentum: float = 0.0
    ) -> dict[str, float] | None:
        """Measure if it is due.

        Args:
            step: number of the step; default: one more than at the last call.
            lr: learning rate, for ``sharpness_ratio``.
            momentum: heavy-ball momentum, for the same.

        Returns:
            The numbers, or None when nothing was measured.
        """
        now = time.perf_counter()
        self._began = now if self._began is None else self._began
        self._step = self._step + 1 if step is None else step
        if not self._due(now):
            return None
        found = self._measure(lr, momentum)
        self._cost = time.perf_counter() - now
        self.spent += self._cost
        self._latest = found
        self.records.append({"step": self._step, **found})
        return self.records[-1]

    def on_step(self, run: Run, record: dict[str, float]) -> None:
        """After each step of :func:`covector.train`."""
        group = run.optimizer.param_groups[0]
        self(int(record["step"]), float(group["lr"]), float(group.get("momentum", 0.0)))
        record.update(self._latest)

    def _due(self, now: float) -> bool:
        if not self.records:
            return True
        if self._step - self.records[-1]["step"] < self.every:
            return False
        assert self._began is not None
        trained = now - self._began - self.spent
        return self.spent + self._cost <= self.budget * trained

    def _measure(self, lr: float | None, momentum: float) -> dict[str, float]:
        found: dict[str, float] = {}
        with nullcontext() if self.objective.module is None else evaluating(self.objective.module):
            if set(self.quantities) - {"noise"}:
                operator = self.curvature(self.objective, self.batch)
                if {"sharpness", "overlap"} & set(self.quantities):
                    found |= self._spectrum(operator, lr, momentum)
                if "trace" in self.quantities:
                    found["trace"] = self._trace(operator)
            if "noise" in self.quantities:
                found["noise_scale"] = gradient_scatter(self.objective, self.batch).noise_scale
        return found

    def _spectrum(self, operator: LinearOperator, lr: float | None, momentum: float) -> dict[str, float]:
        k = min(self.top, operator.shape[0])
        ends = eigsh(operator, k, "LA", tol=self.tol, start=self._vectors, seed=self.seed)
        self._vectors = ends.vectors
        found = {"sharpness": float(ends.values[0])}
        found |= {f"eigenvalue_{i + 1}": float(ends.values[i]) for i in range(1, k)}
        if lr is not None:
            found["sharpness_ratio"] = found["sharpness"] * lr / (2 * (1 + momentum))
        if "overlap" in self.quantities:
            params = list(self.objective.params.values())
            parts = torch.autograd.grad(self.objective(self.batch), params, materialize_grads=True)
            gradient = flatten(dict(zip(self.objective.params, parts, strict=True))).to(ends.vectors)
            length = gradient.double().square().sum().clamp_min(torch.finfo(torch.float64).tiny)
            found["overlap"] = float((ends.vectors.mT @ gradient).double().square().sum() / length)
        return found

    def _trace(self, operator: LinearOperator) -> float:
        # other vectors at each measurement, so that errors average out over the run
        return trace(operator, self.probes, seed=random.derive(self.seed, "watch trace", len(self.records))).value

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far."""
        return {"records": self.records, "latest": self._latest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after what an earlier run measured."""
        self.records, self._latest = list(state["records"]), dict(state["latest"])
