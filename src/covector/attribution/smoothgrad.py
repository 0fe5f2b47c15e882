"""SmoothGrad and its relatives: moments of the input gradient under noise on the input.

With ``e_i ~ N(0, sigma^2)`` and ``g_i = grad f(x + e_i)``::

    SmoothGrad           mean of g_i        unbiased for the gradient of E f(x + e)
    SmoothGrad squared   mean of g_i^2
    VarGrad              variance of g_i    = SmoothGrad squared - SmoothGrad^2
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from covector.attribution.gradients import blocks, expand, per_row, row_gradients
from covector.attribution.selection import Function, Target, check_inputs, labels_of
from covector.errors import ArgumentError
from covector.random import Stream, check_seed, draw

__all__ = ["Smoothed", "smooth", "smoothgrad", "smoothgrad_squared", "vargrad"]


@dataclass(frozen=True)
class Smoothed:
    """What the gradients at the noisy copies have in common.

    Args:
        mean: SmoothGrad, signed, as the input.
        variance: VarGrad; the sum of squares over n, not n - 1.
        samples: n.
    """

    mean: Tensor
    variance: Tensor
    samples: int

    @property
    def square(self) -> Tensor:
        """SmoothGrad squared: the mean of the squares."""
        return self.variance + self.mean.square()

    @property
    def error(self) -> Tensor:
        """Standard error of :attr:`mean`, which says whether the samples were enough; NaN for one sample."""
        return (self.variance / (self.samples - 1)).sqrt() if self.samples > 1 else self.mean * math.nan


def smooth(
    f: Function,
    x: Tensor,
    target: Target = None,
    *,
    labels: Tensor | None = None,
    samples: int = 50,
    spread: float = 0.15,
    relative: bool = True,
    seed: int = 0,
    chunk: int = 64,
) -> Smoothed:
    """Mean and variance of the input gradient over noisy copies of each input, in one stream of batches.

    Args:
        f: a module or a function of a batch.
        x: inputs ``[B, ...]``.
        target: which output, see :func:`select`.
        labels: what belongs to each example, for a ``target`` that is a function of both.
        samples: noisy copies of each example; the paper takes 50.
        spread: standard deviation of the noise; the paper takes 0.1 to 0.2 of the range.
        relative: ``spread`` is a share of each input's own ``max - min``; false: in the units of ``x``.
        seed: of the noise, which depends on the sample, the example and the element, not on ``chunk`` or the device.
        chunk: at most so many noisy copies at a time, which bounds the memory.

    Returns:
        Mean and variance, each as ``x``, on its device, at least in float32.

    Raises:
        ArgumentError: ``samples``, ``spread`` or ``chunk`` out of range; and as :func:`input_gradient`.
        MismatchError, CompositionError, UnsupportedError: as :func:`input_gradient`.

    Source: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017, equation 3; Adebayo et al., "Local
    explanation methods for deep neural networks lack sensitivity to parameter values", 2018, for VarGrad.

    >>> found = smooth(lambda x: x**2, torch.tensor([[3.0, 1.0]]), lambda out: out.sum(1), samples=400, spread=0.1)
    >>> bool(((found.mean - torch.tensor([[6.0, 2.0]])).abs() < 4 * found.error).all())
    True
    """
    check_inputs(f, x)
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ArgumentError("samples", samples, "a whole number of at least 1")
    if not 0.0 <= spread < math.inf:
        raise ArgumentError("spread", spread, "a finite number of at least 0")
    check_seed(seed)
    own = labels_of(target, labels, x)
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    mean, squares = torch.zeros_like(x, dtype=kind), torch.zeros_like(x, dtype=kind)
    scale = per_row(_range(x) if relative else torch.ones(len(x), device=x.device), x) * spread
    for examples, copies in blocks(len(x), samples, chunk):
        part = x[examples]
        rows = torch.cat([part + (scale[examples] * _noise(part, seed, copy, examples)).to(x.dtype) for copy in copies])
        found = row_gradients(f, rows, target, expand(None if own is None else own[examples], len(copies)))
        _merge(mean[examples], squares[examples], copies.start, found.to(kind).unflatten(0, (len(copies), -1)))
    return Smoothed(mean, squares / samples, samples)


def smoothgrad(f: Function, x: Tensor, target: Target = None, **options: object) -> Tensor:
    """SmoothGrad: the mean of the input gradients at noisy copies; signed. Options as for :func:`smooth`.

    >>> smoothgrad(lambda x: 3 * x, torch.tensor([[1.0]]), samples=4)
    tensor([[3.]])
    """
    return smooth(f, x, target, **options).mean  # type: ignore[arg-type]  # smooth checks them


def smoothgrad_squared(f: Function, x: Tensor, target: Target = None, **options: object) -> Tensor:
    """The mean of the squared input gradients at noisy copies. Options as for :func:`smooth`.

    >>> smoothgrad_squared(lambda x: 3 * x, torch.tensor([[1.0]]), samples=4)
    tensor([[9.]])
    """
    return smooth(f, x, target, **options).square  # type: ignore[arg-type]  # smooth checks them


def vargrad(f: Function, x: Tensor, target: Target = None, **options: object) -> Tensor:
    """The variance of the input gradients at noisy copies. Options as for :func:`smooth`.

    >>> vargrad(lambda x: 3 * x, torch.tensor([[1.0]]), samples=4)
    tensor([[0.]])
    """
    return smooth(f, x, target, **options).variance  # type: ignore[arg-type]  # smooth checks them


def _range(x: Tensor) -> Tensor:
    flat = x.detach().flatten(1)
    return flat.amax(1) - flat.amin(1)


def _noise(part: Tensor, seed: int, copy: int, examples: slice) -> Tensor:
    kind = torch.float64 if part.dtype == torch.float64 else torch.float32
    start = examples.start * part[0].numel()
    flat = draw(seed, "input", part.numel(), "normal", start, Stream.NOISE, copy, kind, part.device)
    return flat.reshape(part.shape)


def _merge(mean: Tensor, squares: Tensor, before: int, found: Tensor) -> None:
    """Take ``found [copies, ...]`` into a mean and a sum of squares about it (Chan, Golub, LeVeque 1979)."""
    copies = len(found)
    new = found.mean(0)
    apart = new - mean
    mean += apart * (copies / (before + copies))
    squares += (found - new).square().sum(0) + apart.square() * (before * copies / (before + copies))
