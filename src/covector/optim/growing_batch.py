"""AdAdaGrad: AdaGrad's steps on batches that grow; Lau, Liu and Kolar 2024."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from covector.optim.adagrad import Adagrad
from covector.optim.adagrad_norm import AdaGradNorm
from covector.optim.batch_sampler import DynamicBatchSampler
from covector.optim.batch_size import BatchController
from covector.optim.optimizer import Params

__all__ = ["adadagrad", "adadagrad_norm"]


def adadagrad(
    params: Params, sampler: DynamicBatchSampler | int, lr: float | Tensor = 1e-2, *, eps: float = 1e-10, **options: Any
) -> tuple[Adagrad, BatchController]:
    """Adagrad, and the controller that sets the size of its batches.

    Args:
        params: a module, parameters, or param groups.
        sampler: what draws the batches, or the size of the first batch.
        lr: learning rate; it is not rescaled with the batch, Adagrad's accumulator does that.
        eps: of Adagrad.
        options: for :class:`BatchController`: ``test``, ``eta``, ``estimator``, ``max``, ...

    Returns:
        The optimizer, and the controller for ``train(..., estimator=controller.estimator, callbacks=[controller])``.

    Source: "AdAdaGrad: adaptive batch size schemes for adaptive gradient methods", arXiv:2402.11215, Algorithm 1.

    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from covector import Objective, train
    >>> from covector.optim import DynamicBatchSampler
    >>> data = TensorDataset(torch.randn(64, 2), torch.randn(64, 1))
    >>> objective = Objective(torch.nn.Linear(2, 1), torch.nn.functional.mse_loss)
    >>> sampler = DynamicBatchSampler(data, batch_size=4)
    >>> optimizer, controller = adadagrad(objective.params.values(), sampler, lr=0.1, estimator="ghost")
    >>> loader = DataLoader(data, batch_sampler=sampler)
    >>> estimator = controller.estimator
    >>> _ = train(objective, loader, optimizer=optimizer, estimator=estimator, callbacks=[controller], steps=20)
    >>> sampler.batch_size > 4
    True
    """
    return Adagrad(params, lr, eps=eps), BatchController(sampler, **options)


def adadagrad_norm(
    params: Params, sampler: DynamicBatchSampler | int, lr: float | Tensor = 1.0, *, b0: float = 1e-2, **options: Any
) -> tuple[AdaGradNorm, BatchController]:
    """AdaGradNorm, with one step size for all parameters, and the controller that sets the size of its batches.

    Args:
        params: a module, parameters, or param groups.
        sampler: what draws the batches, or the size of the first batch.
        lr: of the order of the distance to the solution.
        b0: of AdaGradNorm.
        options: for :class:`BatchController`.

    Returns:
        As for :func:`adadagrad`.

    >>> import torch
    >>> optimizer, controller = adadagrad_norm(torch.nn.Linear(2, 1), 8, test="augmented", max=512)
    >>> type(optimizer).__name__, controller.batch_size
    ('AdaGradNorm', 8)
    """
    return AdaGradNorm(params, lr, b0), BatchController(sampler, **options)
