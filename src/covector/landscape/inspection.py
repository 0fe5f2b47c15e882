"""inspect: the loss surface around the parameters as they are, in numbers, for a stated number of products.

The ends of the spectrum come with the eigenvectors that the gradient is compared with, and one set of probes gives the
trace, the root mean square eigenvalue and each tensor's share.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from covector import random
from covector.curvature import Hessian
from covector.errors import ArgumentError
from covector.landscape.generalization import GradientScatter, gradient_scatter, scatter_of_batches
from covector.linalg import LinearOperator, eigsh, slq
from covector.objective import Batch, Objective
from covector.trees import Params, flatten, unflatten

__all__ = ["PARTS", "Inspection", "LayerTrace", "inspect"]

PARTS = {
    "ends": "the largest eigenvalues and the smallest, and how much of the gradient lies along the former",
    "traces": "the trace, each tensor's share of it, and the root mean square eigenvalue",
    "density": "how the eigenvalues are distributed",
    "noise": "how much the gradients of single examples differ",
}

# above this, vectors are held one at a time and gradients of single examples are not asked for
LARGE = 20_000_000


@dataclass(frozen=True)
class LayerTrace:
    """A tensor's block of the trace.

    Args:
        trace: estimate of the block's trace.
        error: standard error over the probes.
        elements: of the tensor.
    """

    trace: float
    error: float
    elements: int


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect` found; what was not measured is None, or empty.

    Args:
        parameters: how many numbers are trained.
        examples: how many were looked at.
        loss: mean over them.
        gradient: norm of its gradient.
        lr: learning rate it is judged for.
        momentum: heavy-ball momentum it is judged for.
        train_examples: size of the training set, for the gap.
        top: largest eigenvalues, descending.
        bottom: the smallest eigenvalue.
        converged: whether both ends were found to the tolerance.
        overlap: share of the gradient's squared norm in the space of the ``top`` eigenvectors.
        trace: sum of all eigenvalues.
        trace_error: its standard error.
        square: sum of their squares, estimated.
        layers: by tensor.
        grid: where the density was evaluated.
        density: of the eigenvalues, on ``grid``.
        density_error: its standard error.
        negative: share of the eigenvalues below zero, by more than a thousandth of the largest.
        scatter: of the gradients.
        products: with the Hessian.
        seconds: by part.

    >>> found = Inspection(10, 64, 0.5, 0.1, lr=0.1, top=(30.0,), trace=40.0, square=1000.0)
    >>> round(found.stable_lr, 4), found.sharpness_ratio, round(found.effective_rank, 2), found.condition
    (0.0667, 1.5, 1.11, 7.5)
    """

    parameters: int
    examples: int
    loss: float
    gradient: float
    lr: float | None = None
    momentum: float = 0.0
    train_examples: int | None = None
    top: tuple[float, ...] = ()
    bottom: float | None = None
    converged: bool = True
    overlap: float | None = None
    trace: float | None = None
    trace_error: float | None = None
    square: float | None = None
    layers: dict[str, LayerTrace] = field(default_factory=dict)
    grid: tuple[float, ...] = ()
    density: tuple[float, ...] = ()
    density_error: tuple[float, ...] = ()
    negative: float | None = None
    scatter: GradientScatter | None = None
    products: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def sharpness(self) -> float | None:
        """The largest eigenvalue."""
        return self.top[0] if self.top else None

    @property
    def stable_lr(self) -> float | None:
        """``2 (1 + momentum) / sharpness``: above it gradient descent moves away along the sharpest direction."""
        if self.sharpness is None:
            return None
        return 2 * (1 + self.momentum) / self.sharpness if self.sharpness > 0 else math.inf

    @property
    def sharpness_ratio(self) -> float | None:
        """Sharpness over what ``lr`` bears: 1 is the edge of stability."""
        if self.lr is None or self.stable_lr is None:
            return None
        return self.lr / self.stable_lr

    @property
    def condition(self) -> float | None:
        """The largest eigenvalue over the mean one: how much the sharpest direction holds back the others."""
        if self.sharpness is None or self.trace is None or self.trace <= 0:
            return None
        return self.sharpness * self.parameters / self.trace

    @property
    def effective_rank(self) -> float | None:
        """``square / outermost^2``: so many eigenvalues of the outermost one's size have the same sum of squares."""
        if self.sharpness is None or self.square is None:
            return None
        outermost = max(abs(self.sharpness), abs(self.bottom or 0.0))
        return self.square / outermost**2 if outermost else None

    @property
    def batch_size(self) -> int | None:
        """The noise scale as a batch size: far below it steps are noise, far above it examples are wasted."""
        if self.scatter is None or not math.isfinite(self.scatter.noise_scale):
            return None
        return max(1, round(self.scatter.noise_scale))

    @property
    def gap_rate(self) -> float | None:
        """What a step at ``lr`` adds to test loss minus training loss, as long as data are fresh."""
        if self.scatter is None or self.lr is None:
            return None
        return self.scatter.gap_rate(self.lr, self.train_examples or self.examples)

    def to_dict(self) -> dict[str, Any]:
        """All of it and what follows from it, JSON-ready.

        >>> Inspection(10, 64, 0.5, 0.1, top=(4.0,)).to_dict()["stable_lr"]
        0.5
        """
        derived = (
            "sharpness", "stable_lr", "sharpness_ratio", "condition", "effective_rank", "batch_size", "gap_rate"
        )  # fmt: skip
        values = asdict(replace(self, scatter=None)) | {name: getattr(self, name) for name in derived}
        values["scatter"] = None if self.scatter is None else self.scatter._asdict()
        values["noise_scale"] = None if self.scatter is None else self.scatter.noise_scale
        return {name: _plain(value) for name, value in values.items()}


def inspect(
    objective: Objective,
    batches: Iterable[Batch],
    *,
    lr: float | None = None,
    momentum: float = 0.0,
    train_examples: int | None = None,
    parts: Iterable[str] = tuple(PARTS),
    top: int = 3,
    probes: int = 8,
    steps: int = 40,
    tol: float = 1e-2,
    seed: int = 0,
    curvature: Callable[..., LinearOperator] = Hessian,
    listener: Callable[[str], None] | None = None,
) -> Inspection:
    """Look at the loss surface where the parameters are. Nothing is changed.

    Args:
        objective: the loss. The mode of its module is the caller's; evaluation mode is what one usually wants.
        batches: what to look at: a list of batches, or an iterable of them that ends.
        lr: learning rate to judge; optional.
        momentum: heavy-ball momentum to judge it with.
        train_examples: size of the training set, for the gap; default: the examples in ``batches``.
        parts: which of :data:`PARTS` to measure.
        top: how many of the largest eigenvalues.
        probes: random vectors for traces; the density takes a quarter as many, at least one.
        steps: Lanczos steps of a density probe.
        tol: of the eigenvalues' residuals, relative.
        seed: of all random vectors.
        curvature: the operator: :class:`~covector.curvature.Hessian`, or another of its signature.
        listener: called with the name of each part before it is measured.

    Returns:
        An :class:`Inspection`.

    Raises:
        ArgumentError: no batch, an unknown part, or a number that cannot be.
        UnsupportedError: the module cannot be differentiated twice, or is not deterministic.

    >>> from torch import nn
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch...>
    >>> objective = Objective(nn.Linear(4, 1), nn.functional.mse_loss)
    >>> found = inspect(objective, [(torch.randn(32, 4), torch.randn(32, 1))], lr=0.1)
    >>> found.sharpness_ratio < 1, found.bottom > 0
    (True, True)
    """
    batches = list(batches)
    chosen = _checked(batches, parts, top, probes, steps)
    tell = listener or (lambda part: None)
    sizes = [objective.size(batch) for batch in batches]
    count = sum(p.numel() for p in objective.params.values())
    loss, gradient = _loss_and_gradient(objective, batches, sizes)
    found = Inspection(
        count, sum(sizes), loss, float(gradient.double().norm()), lr, momentum, train_examples
    )  # fmt: skip
    operator = curvature(objective, batches) if chosen - {"noise"} else None
    values: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for part in [part for part in PARTS if part in chosen]:
        tell(part)
        with _timed(seconds, part):
            if part == "noise":
                values["scatter"] = _noise(objective, batches, sizes, count)
            else:
                assert operator is not None
                values |= _MEASURES[part](operator, objective.params, gradient, _Effort(top, probes, steps, tol, seed))
    products = 0 if operator is None else operator.products
    return replace(found, **values, products=products, seconds=seconds)


@dataclass(frozen=True)
class _Effort:
    top: int
    probes: int
    steps: int
    tol: float
    seed: int


def _checked(batches: list[Batch], parts: Iterable[str], top: int, probes: int, steps: int) -> set[str]:
    if not batches:
        raise ArgumentError("batches", "none", "at least one batch")
    chosen = set(parts)
    if not chosen or not chosen <= set(PARTS):
        raise ArgumentError("parts", sorted(chosen), "some of " + ", ".join(PARTS))
    for name, value in (("top", top), ("probes", probes), ("steps", steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(name, value, "a whole number of at least 1")
    return chosen


def _loss_and_gradient(objective: Objective, batches: list[Batch], sizes: list[int]) -> tuple[float, torch.Tensor]:
    total, loss = None, 0.0
    for batch, size in zip(batches, sizes, strict=True):
        value = objective(batch)
        parts = torch.autograd.grad(value, list(objective.params.values()), materialize_grads=True)
        flat = flatten(dict(zip(objective.params, parts, strict=True))) * (size / sum(sizes))
        total = flat if total is None else total.add_(flat)
        loss += float(value.detach()) * size / sum(sizes)
    assert total is not None
    return loss, total


def _ends(operator: LinearOperator, params: Params, gradient: torch.Tensor, effort: _Effort) -> dict[str, Any]:
    large = operator.shape[0] > LARGE
    k = min(effort.top, operator.shape[0])
    # a basis of a few vectors is all that the memory of a large model bears
    size = min(operator.shape[0], max(k + 2, 8)) if large else None
    upper = eigsh(operator, k, "LA", tol=effort.tol, seed=effort.seed, size=size)
    length = float(gradient.double().square().sum())
    along = float((upper.vectors.mT @ gradient.to(upper.vectors)).double().square().sum())
    top = tuple(upper.values.tolist())
    done = upper.converged
    del upper
    lower = eigsh(operator, 1, "SA", tol=effort.tol, seed=effort.seed, size=size, max_products=60 if large else None)
    return {
        "top": top,
        "bottom": float(lower.values[0]),
        "converged": done and lower.converged,
        "overlap": along / length if length else None,
    }


def _traces(operator: LinearOperator, params: Params, gradient: torch.Tensor, effort: _Effort) -> dict[str, Any]:
    n = operator.shape[0]
    blocks = torch.zeros(effort.probes, len(params), dtype=torch.float64)
    squares = torch.zeros(effort.probes, dtype=torch.float64)
    for probe in range(effort.probes):
        vector = random.draw(effort.seed, "inspect traces", n, step=probe, dtype=operator.dtype, device=operator.device)
        image = operator @ vector
        squares[probe] = image.double().square().sum()
        parts = unflatten(vector * image, params)
        blocks[probe] = torch.stack([part.sum(dtype=torch.float64) for part in parts.values()]).cpu()
    # a single probe knows no error
    error = blocks.std(0, correction=min(1, effort.probes - 1)) / math.sqrt(effort.probes)
    traces = blocks.sum(1)
    total_error = float(traces.std(correction=min(1, effort.probes - 1))) / math.sqrt(effort.probes)
    layers = {
        name: LayerTrace(float(blocks[:, i].mean()), float(error[i]), p.numel())
        for i, (name, p) in enumerate(params.items())
    }
    return {
        "trace": float(traces.mean()),
        "trace_error": total_error,
        "square": float(squares.mean()),
        "layers": layers,
    }


def _density(operator: LinearOperator, params: Params, gradient: torch.Tensor, effort: _Effort) -> dict[str, Any]:
    steps = min(effort.steps, operator.shape[0], 10 if operator.shape[0] > LARGE else effort.steps)
    spectrum = slq(operator, probes=max(1, effort.probes // 4), steps=steps, seed=effort.seed)
    low, high = float(spectrum.nodes.min()), float(spectrum.nodes.max())
    margin = 0.05 * (high - low) or 1.0
    grid = torch.linspace(low - margin, high + margin, 400, dtype=torch.float64)
    small = 1e-3 * max(abs(low), abs(high))
    return {
        "grid": tuple(grid.tolist()),
        "density": tuple(spectrum.density(grid).tolist()),
        "density_error": tuple(spectrum.density_error(grid).nan_to_num(0.0).tolist()),
        "negative": spectrum.fraction_below(-small).value,
    }


_MEASURES = {"ends": _ends, "traces": _traces, "density": _density}


def _noise(objective: Objective, batches: list[Batch], sizes: list[int], count: int) -> GradientScatter:
    """By single examples where they fit, else by batches of equal size."""
    if count <= LARGE and len(batches) == 1:
        return gradient_scatter(objective, batches[0])
    even = [batch for batch, size in zip(batches, sizes, strict=True) if size == sizes[0]]
    if len(even) > 1:
        return scatter_of_batches(objective, even)
    return gradient_scatter(objective, batches[0])


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - begin


def _plain(value: Any) -> Any:
    """NaN and infinities are no JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
