"""OASIS: the Hessian's diagonal as the metric, and a step size from the smoothness seen in it; AdGD without the metric.

The composition of :class:`~covector.optim.diagonals.HutchinsonDiagonal` and
:class:`~covector.optim.adgd.AdGDStep`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.errors import UnsupportedError
from covector.optim.adgd import AdGDStep
from covector.optim.diagonals import DiagonalMetric, HutchinsonDiagonal, UnitDiagonal
from covector.optim.optimizer import Optimizer, Params
from covector.optim.rule import Rule
from covector.optim.slots import Slots

__all__ = ["OASIS", "AdGD"]

COVECTOR = Rule(lambda g: (g,), (), lambda t, group: ())


class OASIS(Optimizer):
    """Doubly adaptive: gradients divided by the Hessian's diagonal, step sizes without a learning rate.

    ``step`` needs a closure, and takes one product with the Hessian; by batches it also evaluates one more gradient.

    Args:
        params: a module, parameters, or param groups.
        lr: factor of the step size, default 1.
        beta2: decay of the average of products; 0.95 to 0.999.
        floor: least curvature of a coordinate, alpha; 1e-2 to 1e-5, and lower where scales differ much.
        eta0: the first step size.
        probes: products averaged before the first step.
        stochastic: True for batches: the gradient before the last step is evaluated again on the present batch.
        adaptive: False keeps the step size ``eta0``.
        metric: another metric in place of the Hessian's diagonal.
        weight_decay: strength; added to gradient and curvature (L2).
        seed: of the signs that are drawn.
        options: as for :class:`~covector.optim.Optimizer`.

    Raises:
        ArgumentError: a value out of range; from ``step``, where there is no closure.
        NonFiniteError: from ``step``, where a gradient is not finite. Nothing has changed then.

    Source: Jahani et al., "Doubly adaptive scaled algorithm for machine learning using second-order information", 2021,
    Algorithm 1.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    >>> optimizer = OASIS([p], stochastic=False)
    >>> for _ in range(60):
    ...     loss = optimizer.step(lambda: p[0] ** 2 + 1000 * p[1] ** 2)
    >>> bool(loss < 1e-20), round(optimizer.eta, 3)
    (True, 0.5)
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        beta2: float = 0.999,
        floor: float = 1e-3,
        *,
        eta0: float = 1e-3,
        probes: int = 100,
        stochastic: bool = True,
        adaptive: bool = True,
        metric: DiagonalMetric | None = None,
        weight_decay: float = 0.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        chosen = HutchinsonDiagonal(beta2, floor, probes, seed) if metric is None else metric
        self.rule = AdGDStep(chosen, eta0, stochastic, adaptive)
        slots = Slots(COVECTOR, maps=(self.rule,), scales=(self.rule,))
        super().__init__(params, slots, lr, weight_decay=weight_decay, **{"decoupled": False, **options})

    @property
    def eta(self) -> float:
        """The step size of the last step."""
        return self.rule.eta

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if group["capturable"]:
            raise UnsupportedError("the step size is a number, which a CUDA graph freezes; capturable=False")


class AdGD(OASIS):
    """Gradient descent that chooses its step sizes: OASIS in the Euclidean metric.

    Args:
        params: a module, parameters, or param groups.
        lr: factor of the step size, default 1.
        eta0: the first step size.
        stochastic: True for batches, which takes a closure; False keeps the last gradient.
        options: as for :class:`OASIS`.

    Source: Malitsky and Mishchenko, "Adaptive gradient descent without descent", 2020, Algorithm 1.

    >>> import torch
    >>> p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    >>> optimizer = AdGD([p])
    >>> for _ in range(50):
    ...     loss = optimizer.step(lambda: p.square().sum())
    >>> bool(loss < 1e-6)
    True
    """

    def __init__(
        self, params: Params, lr: float | Tensor = 1.0, *, eta0: float = 1e-3, stochastic: bool = True, **options: Any
    ) -> None:
        super().__init__(params, lr, eta0=eta0, stochastic=stochastic, metric=UnitDiagonal(), **options)
