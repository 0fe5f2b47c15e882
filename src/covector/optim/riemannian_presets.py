"""Riemannian SGD, Adagrad, Adam and AMSGrad: the rules, and the optimizers that read them in the metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from covector.optim.adagrad import adagrad
from covector.optim.adam import ADAM
from covector.optim.amsgrad import amsgrad
from covector.optim.optimizer import Params
from covector.optim.riemannian import Move, RiemannianOptimizer
from covector.optim.rule import Rule
from covector.optim.sgd import heavy_ball

__all__ = ["RiemannianAMSGrad", "RiemannianAdagrad", "RiemannianAdam", "RiemannianSGD"]


def amsgrad_numbers(t: Any, group: Mapping[str, Any]) -> tuple[Any, ...]:
    """As Adam's; with ``average``, ``b2 = 1 - 1/t``: v is the mean of all squares, which needs no correction."""
    b1, b2 = group["betas"]
    k2: Any = (1 - b2**t) ** -0.5
    if group["average"]:
        b2, k2 = 1 - 1 / t, 1.0
    return b1, 1 - b1, b2, 1 - b2, 1 / (1 - b1**t), k2, group["eps"]


MOMENTUM = Rule(heavy_ball, ("momentum_buffer",), lambda t, group: (group["momentum"], 1.0, 0.0, 1.0))
ADAGRAD = Rule(adagrad, ("sum",), lambda t, group: (1.0, 0.0, group["eps"]))
AMSGRAD = Rule(amsgrad, ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), amsgrad_numbers)


class RiemannianSGD(RiemannianOptimizer):
    """Gradient descent along geodesics, with momentum that is carried along.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-2.
        momentum: decay of the velocity, default 0.
        update: ``"exp"`` or ``"retract"``.
        lazy: step only the points that have a gradient.
        weight_decay: strength; along the geodesic to the origin.
        options: as for :class:`RiemannianOptimizer`.

    Source: Bonnabel, "Stochastic gradient descent on Riemannian manifolds", 2013.

    >>> import torch
    >>> from covector.optim.manifolds import ManifoldParameter, PoincareBall
    >>> p = ManifoldParameter(torch.zeros(1, 2), PoincareBall())
    >>> p.grad = torch.tensor([[-4.0, 0.0]])
    >>> RiemannianSGD([p], lr=1.0).step()  # the metric at the origin is 4: a geodesic of length 2
    >>> p.detach()  # tanh(1)
    tensor([[0.7616, 0.0000]])
    """

    fractions = ("momentum",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        momentum: float = 0.0,
        *,
        update: Move = "exp",
        lazy: bool = False,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(
            params, MOMENTUM, ("momentum_buffer",), lr,
            update=update, lazy=lazy, weight_decay=weight_decay, momentum=momentum, **options,
        )  # fmt: skip


class RiemannianAdagrad(RiemannianOptimizer):
    """The Riemannian gradient over the root of the sum of its square norms, one sum for each point.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-2.
        eps: added to the root.
        update: ``"exp"`` or ``"retract"``.
        lazy: step only the points that have a gradient.
        weight_decay: strength; along the geodesic to the origin.
        options: as for :class:`RiemannianOptimizer`.

    Source: Becigneul and Ganea, "Riemannian adaptive optimization methods", 2019, section 3.

    >>> import torch
    >>> from covector.optim.manifolds import Euclidean, ManifoldParameter
    >>> p = ManifoldParameter(torch.zeros(1, 2), Euclidean())
    >>> p.grad = torch.tensor([[3.0, -4.0]])
    >>> RiemannianAdagrad([p], lr=1.0).step()
    >>> p.detach()
    tensor([[-0.6000,  0.8000]])
    """

    nonnegative = ("eps",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        eps: float = 1e-10,
        *,
        update: Move = "exp",
        lazy: bool = False,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(
            params, ADAGRAD, (), lr, update=update, lazy=lazy, weight_decay=weight_decay, eps=eps, **options
        )  # fmt: skip


class RiemannianAdam(RiemannianOptimizer):
    """Adam with one second moment for each point, in the metric.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-3.
        betas: decay of the two averages.
        eps: added to the root.
        update: ``"exp"`` or ``"retract"``.
        lazy: step only the points that have a gradient; the averages of a point are corrected by its own steps.
        weight_decay: strength; along the geodesic to the origin.
        options: as for :class:`RiemannianOptimizer`.

    Source: Becigneul and Ganea, "Riemannian adaptive optimization methods", 2019, section 4; with bias correction.

    >>> import torch
    >>> from covector.optim.manifolds import ManifoldParameter, Sphere
    >>> p = ManifoldParameter(torch.tensor([[1.0, 0.0]]), Sphere())
    >>> p.grad = torch.tensor([[0.0, -7.0]])
    >>> RiemannianAdam([p], lr=0.1).step()  # an angle of 0.1, whatever the gradient's length
    >>> p.detach()
    tensor([[0.9950, 0.0998]])
    """

    fractions = ("betas",)
    nonnegative = ("eps",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        update: Move = "exp",
        lazy: bool = False,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(
            params, self.rule, ("exp_avg",), lr,
            update=update, lazy=lazy, weight_decay=weight_decay, betas=betas, eps=eps, **options,
        )  # fmt: skip

    rule = ADAM


class RiemannianAMSGrad(RiemannianAdam):
    """Adam in the metric with the largest second moment so far, for which the authors prove convergence.

    Args:
        params: a module, parameters, or param groups.
        lr: learning rate, default 1e-3; the theory divides it by the root of the step.
        betas: decay of the two averages.
        eps: added to the root.
        average: ``b2 = 1 - 1/t`` instead of the second of ``betas`` (RAMSNc): the mean of all squares.
        options: as for :class:`RiemannianAdam`.

    Source: Becigneul and Ganea, "Riemannian adaptive optimization methods", 2019, Figure 1a.

    >>> import torch
    >>> from covector.optim.manifolds import ManifoldParameter, Sphere
    >>> p = ManifoldParameter(torch.tensor([[1.0, 0.0]]), Sphere())
    >>> p.grad = torch.tensor([[0.0, -7.0]])
    >>> RiemannianAMSGrad([p], lr=0.1, average=True).step()
    >>> p.detach()
    tensor([[0.9950, 0.0998]])
    """

    rule = AMSGRAD

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        average: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(params, lr, betas, eps, average=average, **options)
