"""Batch normalization that also removes the correlations between features, by ZCA whitening."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.linalg import inv_sqrtm
from covector.linalg.checks import check_choice
from covector.linalg.sqrtm import METHODS

__all__ = ["DecorrelatedBatchNorm"]


class DecorrelatedBatchNorm(nn.Module):
    """``y = (C + eps I)^(-1/2) (x - mean)``, with mean and covariance ``C`` of the batch, or running ones in ``eval``.

    Of all whitening transforms this one (ZCA) stays closest to its input. The backward pass goes through the root by
    a Lyapunov equation (:func:`covector.linalg.inv_sqrtm`). Features are whitened in groups where the batch is too
    small to tell all their correlations: a group of one is batch normalization.

    Args:
        num_features: channels C of the input ``[N, C]`` or ``[N, C, ...]``.
        group_size: channels whitened together; has to divide ``num_features`` (default: all).
        eps: added to the variances, in the units of the input (default 1e-3); also bounds the condition number, which
            the approximate methods need.
        momentum: weight of the newest batch in the running statistics (default 0.1).
        affine: learn a scale and a shift for each channel (default).
        method: of the inverse root: ``"eigh"`` (``"auto"``), ``"mpa"``, ``"mtp"`` or ``"newton-schulz"``.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ArgumentError: a size that does not fit, an unknown method; in the forward pass an input of another shape, or
            in training one with a single value a channel.

    Source: Huang, Yang, Lang, Deng, "Decorrelated batch normalization" (2018); Song, Sebe, Wang (2022), Section 5.1.

    >>> layer = DecorrelatedBatchNorm(2, eps=1e-6)
    >>> y = layer(torch.tensor([[1.0, 1.0], [2.0, 2.5], [3.0, 2.5], [4.0, 4.0]]))
    >>> (y.T @ y / 4).round(decimals=3).abs()
    tensor([[1., 0.],
            [0., 1.]], grad_fn=<AbsBackward0>)
    """

    running_mean: Tensor
    running_covariance: Tensor

    def __init__(
        self,
        num_features: int,
        group_size: int | None = None,
        eps: float = 1e-3,
        momentum: float = 0.1,
        affine: bool = True,
        method: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        group_size = num_features if group_size is None else group_size
        if num_features < 1:
            raise ArgumentError("num_features", num_features, "at least 1")
        if group_size < 1 or num_features % group_size:
            raise ArgumentError("group_size", group_size, f"a divisor of num_features={num_features}")
        if not 0.0 < eps < float("inf"):
            raise ArgumentError("eps", eps, "a number above 0")
        if not 0.0 < momentum <= 1.0:
            raise ArgumentError("momentum", momentum, "a number above 0, up to 1")
        check_choice("method", method, METHODS)
        self.num_features, self.group_size = num_features, group_size
        self.eps, self.momentum, self.method = eps, momentum, method
        groups = num_features // group_size
        eye = torch.eye(group_size, device=device, dtype=dtype)
        self.register_buffer("running_mean", torch.zeros(num_features, device=device, dtype=dtype))
        self.register_buffer("running_covariance", eye.repeat(groups, 1, 1))
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype)) if affine else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Whiten ``[N, C, ...]`` over all axes but the second."""
        if inputs.ndim < 2 or inputs.shape[1] != self.num_features:
            raise ArgumentError("inputs.shape", tuple(inputs.shape), f"[N, {self.num_features}] or [N, C, ...]")
        x = inputs.movedim(1, 0).reshape(self.num_features, -1)
        if self.training and x.shape[1] < 2:
            raise ArgumentError("inputs", x.shape[1], "more than one value a channel in training, or eval()")
        mean = x.mean(1) if self.training else self.running_mean
        centered = (x - mean.unsqueeze(1)).view(-1, self.group_size, x.shape[1])
        covariance = centered @ centered.mT / x.shape[1] if self.training else self.running_covariance
        eye = torch.eye(self.group_size, dtype=x.dtype, device=x.device)
        whitening = inv_sqrtm(covariance + self.eps * eye, self.method)
        if self.training:  # after what may fail, so that an error leaves the statistics as they were
            self._follow(mean, covariance, x.shape[1])
        y = (whitening @ centered).view_as(x)
        if self.weight is not None and self.bias is not None:
            y = y * self.weight.unsqueeze(1) + self.bias.unsqueeze(1)
        return y.view(inputs.movedim(1, 0).shape).movedim(0, 1)

    @torch.no_grad()
    def _follow(self, mean: Tensor, covariance: Tensor, count: int) -> None:
        """Move the running statistics towards those of the batch, without its bias."""
        self.running_mean.lerp_(mean, self.momentum)
        self.running_covariance.lerp_(covariance * (count / (count - 1)), self.momentum)

    def extra_repr(self) -> str:
        """The arguments, for ``print(layer)``."""
        return f"{self.num_features}, group_size={self.group_size}, eps={self.eps}, method={self.method!r}"
