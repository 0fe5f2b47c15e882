"""How a gradient becomes a step: in its carrier, through an optimizer, or through a subspace's coordinates."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from covector import trees
from covector.errors import ArgumentError, CompositionError, MismatchError
from covector.gradients import Gradient, Subspace
from covector.objective import Objective
from covector.training.carrier import CarrierSGD, deposit, innermost
from covector.trees import Params

__all__ = ["CarrierStep", "OptimizerStep", "StepRule", "SubspaceStep", "step_rule"]


class StepRule(ABC):
    """A gradient and perhaps a limit on its norm, to a change of the parameters."""

    optimizer: torch.optim.Optimizer

    @abstractmethod
    def apply(self, gradient: Gradient, clip_norm: float | None) -> float | None:
        """Take the step; returns the norm before clipping, or ``None`` if there is no limit."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """What training has changed, from which :meth:`restore` writes the live parameters."""

    @abstractmethod
    def check(self, state: dict[str, Any]) -> None:
        """Raise :class:`~covector.errors.MismatchError` unless :meth:`restore` can take ``state``."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Write the live parameters from what :meth:`parameters` returned."""

    @property
    def lr(self) -> float:
        """The step size of the first group."""
        return float(self.optimizer.param_groups[0]["lr"])


class _WholeStep(StepRule):
    """Rules that work on all parameters themselves, which a checkpoint then holds."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def parameters(self) -> dict[str, Any]:
        return {"tensors": dict(self.params)}

    def check(self, state: dict[str, Any]) -> None:
        saved: Params = state.get("tensors", {})
        trees.check_same(saved, self.params, ("the checkpoint", "the objective"))
        for name, p in self.params.items():
            if saved[name].dtype != p.dtype:
                raise MismatchError(
                    f"tensor {name!r} is {saved[name].dtype} in the checkpoint but {p.dtype} in the objective"
                )

    def restore(self, state: dict[str, Any]) -> None:
        trees.copy_(self.params, state["tensors"])


class CarrierStep(_WholeStep):
    """``params -= lr * gradient`` in the carrier: no dense gradient is allocated."""

    def __init__(self, params: Params, optimizer: CarrierSGD) -> None:
        super().__init__(params)
        self.optimizer: CarrierSGD = optimizer

    def apply(self, gradient: Gradient, clip_norm: float | None) -> float | None:
        deposit(gradient, self.params, self.optimizer)
        norm = None if clip_norm is None else self.optimizer.clip(clip_norm)
        self.optimizer.step()
        return norm


class OptimizerStep(_WholeStep):
    """``.grad`` and any ``torch.optim`` optimizer."""

    def __init__(self, params: Params, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(params)
        self.optimizer = optimizer

    def apply(self, gradient: Gradient, clip_norm: float | None) -> float | None:
        self.optimizer.zero_grad()
        deposit(gradient, self.params, self.optimizer)
        norm = None if clip_norm is None else float(clip_grad_norm_(self.params.values(), clip_norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm


class SubspaceStep(StepRule):
    """The coordinates of a :class:`~covector.gradients.Subspace` and any optimizer over them.

    A checkpoint holds the coordinates only; the base they stand on is checked by its digest.
    """

    def __init__(self, subspace: Subspace, optimizer: torch.optim.Optimizer) -> None:
        self.subspace = subspace
        self.optimizer = optimizer
        self._base: str | None = None

    def apply(self, gradient: Gradient, clip_norm: float | None) -> float | None:
        self.subspace.pull(gradient)
        norm = None if clip_norm is None else float(clip_grad_norm_([self.subspace.x], clip_norm))
        self.optimizer.step()
        self.subspace.push()
        return norm

    def base(self) -> str:
        """Digest of the parameters that the coordinates are relative to."""
        if self._base is None:
            self._base = trees.digest(self.subspace.theta0)
        return self._base

    def parameters(self) -> dict[str, Any]:
        return {**self.subspace.state_dict(), "pool": repr(self.subspace.pool), "base": self.base()}

    def check(self, state: dict[str, Any]) -> None:
        mine = {"pool": repr(self.subspace.pool), "base": self.base()}
        for name, value in mine.items():
            if state.get(name) != value:
                raise MismatchError(
                    f"the subspace's {name} is {value} but {state.get(name)} in the checkpoint; build the "
                    "Subspace from the same model and pool as the interrupted run"
                )

    def restore(self, state: dict[str, Any]) -> None:
        self.subspace.load_state_dict(state)


def step_rule(
    objective: Objective, optimizer: torch.optim.Optimizer | None, lr: float | None, subspace: Subspace | None
) -> StepRule:
    """The rule meant by these arguments of :func:`covector.train`.

    Raises:
        ArgumentError: neither or both of ``optimizer`` and ``lr``.
        CompositionError: optimizer, subspace and objective hold different tensors.

    >>> objective = Objective.from_function(lambda p, batch: (p["x"] ** 2).sum(), {"x": torch.ones(3)})
    >>> type(step_rule(objective, None, 0.1, None)).__name__
    'CarrierStep'
    """
    if (optimizer is None) == (lr is None):
        raise ArgumentError("lr", lr, "a step size and no optimizer, or an optimizer, which has its own")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise CompositionError("optimizer=LBFGS evaluates the objective by itself; pass one that steps once a gradient")
    if subspace is not None:
        _check_tensors("subspace", subspace.params.values(), "objective", objective.params.values())
        own = torch.optim.SGD([subspace.x], lr=lr) if optimizer is None and lr is not None else optimizer
        assert own is not None
        _check_tensors("optimizer", _tensors_of(own), "subspace", [subspace.x])
        return SubspaceStep(subspace, own)
    if optimizer is None:
        assert lr is not None
        return CarrierStep(objective.params, CarrierSGD(objective.params, lr))
    _check_tensors("optimizer", _tensors_of(optimizer), "objective", objective.params.values())
    if isinstance(inner := innermost(optimizer), CarrierSGD):
        return CarrierStep(objective.params, inner)
    return OptimizerStep(objective.params, optimizer)


def _tensors_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return list(itertools.chain.from_iterable(group["params"] for group in optimizer.param_groups))


def _check_tensors(left: str, a: Iterable[Tensor], right: str, b: Iterable[Tensor]) -> None:
    mine, others = {id(t) for t in a}, {id(t) for t in b}
    if mine != others:
        raise CompositionError(
            f"{left} and {right} hold different tensors: {len(mine - others)} only in {left}, {len(others - mine)} "
            f"only in {right}. An optimizer is built over objective.params.values(), or over [subspace.x] with "
            "subspace=; Objective(..., trainable=...) selects parameters"
        )
