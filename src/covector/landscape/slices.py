"""The one kernel behind all pictures of a loss: its values at combinations of a few vectors of parameters.

A point is ``sum_j w_j v_j``: the parameters and directions from them, or checkpoints with weights that sum to one. So a
weight of 0 or 1 gives the very bits of a checkpoint, and the middle of a symmetric grid those of the parameters. Many
points are evaluated at once as copies of the parameters, as many as a cap on memory allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from covector.curvature.batches import Batches
from covector.errors import ArgumentError, MismatchError, UnsupportedError
from covector.objective import Batch, Objective
from covector.training.modes import evaluating, seeded
from covector.trees import Params, numel, unflatten

__all__ = ["losses_at", "slices", "symmetric_grid"]

# bytes: on a CPU, what does not fit its caches gains nothing
CPU_MEMORY, MEMORY = 2**25, 2**30
MOST = 128  # copies at once: more gain nothing
LIVE = 4  # activations alive at the same time, in units of the largest


def slices(
    objective: Objective,
    batches: Any,
    directions: Tensor,
    at: Sequence[float] | Tensor,
    *,
    center: Params | None = None,
    chunk: int | None = None,
    memory: int | None = None,
    seed: int = 0,
) -> Tensor:
    """The loss at ``center + s d`` for each direction d and each s; nothing is changed.

    Args:
        objective: the loss. Its module is evaluated in eval mode, so with the running statistics of batch
            normalization, and gets its modes back.
        batches: one batch, a list of batches or a loader that can be read again, for each direction; the same for all
            points, so that what varies is the loss and not the sample.
        directions: rows ``[M, n]`` in the order of ``objective.params``.
        at: values of s, ``[m]``; :func:`symmetric_grid` makes them.
        center: where s is 0 (default: the live parameters).
        chunk: points to evaluate at once; 1: one after another. Default: as many as ``memory`` allows, and one after
            another where the module has operations that ``vmap`` does not know.
        memory: bytes that copies of the parameters and their activations may take, roughly. Default: 32 MiB on a CPU,
            where more would leave its caches, 1 GiB elsewhere.
        seed: of anything random in the loss, so that it is the same at all points.

    Returns:
        Float64 ``[M, m]`` on the CPU.

    Raises:
        MismatchError: directions of another length than the parameters.
        ArgumentError: ``chunk`` or ``memory`` below 1.
        UnsupportedError: a ``chunk`` of many was asked for and the loss cannot be evaluated that way.

    >>> bowl = Objective.from_function(lambda p, batch: (p["x"] ** 2).sum(), {"x": torch.zeros(2)})
    >>> slices(bowl, None, torch.eye(2), [-1.0, 0.0, 2.0])
    tensor([[1., 0., 4.],
            [1., 0., 4.]], dtype=torch.float64)
    """
    evaluator = Evaluator(objective, batches, chunk, memory, seed)
    origin = dict(objective.params) if center is None else center
    steps = torch.as_tensor(at, dtype=torch.float64)
    weights = torch.stack([torch.ones_like(steps), steps], dim=1)
    return torch.stack([evaluator([origin, row], weights) for row in named(directions, objective.params)])


def losses_at(
    objective: Objective,
    batches: Any,
    vectors: Sequence[Params],
    weights: Tensor,
    *,
    chunk: int | None = None,
    memory: int | None = None,
    seed: int = 0,
) -> Tensor:
    """The loss at ``sum_j weights[i, j] vectors[j]`` for each i: what all slices, planes and lines are made of.

    Args:
        objective: the loss.
        batches: one batch, a list of batches or a loader that can be read again.
        vectors: k Params. The first names what is moved; in the others a tensor that is not named counts as zero.
        weights: ``[points, k]``.
        chunk: as for :func:`slices`.
        memory: as for :func:`slices`.
        seed: as for :func:`slices`.

    Returns:
        Float64 ``[points]``, on the CPU.

    Raises:
        MismatchError: a vector does not fit the parameters, or the weights not the vectors.

    >>> total = Objective.from_function(lambda p, batch: p["x"].sum(), {"x": torch.zeros(2)})
    >>> a, b = {"x": torch.tensor([1.0, 0.0])}, {"x": torch.tensor([0.0, 10.0])}
    >>> losses_at(total, None, [a, b], torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([1.0000, 5.5000], dtype=torch.float64)
    """
    return Evaluator(objective, batches, chunk, memory, seed)(vectors, weights)


def symmetric_grid(radius: float, points: int) -> Tensor:
    """``points`` numbers from ``-radius`` to ``radius``, float64; the middle one is zero exactly.

    Args:
        radius: positive.
        points: odd.

    Raises:
        ArgumentError: an even number of points, or a radius that is not positive.

    >>> symmetric_grid(0.25, 3).tolist()
    [-0.25, 0.0, 0.25]
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 3 or points % 2 == 0:
        raise ArgumentError("points", points, "an odd whole number of at least 3: the middle one is the center")
    if not 0.0 < radius < float("inf"):
        raise ArgumentError("radius", radius, "a finite number above 0")
    right = torch.linspace(0.0, radius, points // 2 + 1, dtype=torch.float64)
    return torch.cat([-right[1:].flip(0), right])


def named(directions: Tensor, params: Params) -> list[Params]:
    """Rows ``[M, n]`` as named tensors."""
    if directions.ndim != 2 or directions.shape[1] != numel(params):
        raise MismatchError(f"directions has shape {tuple(directions.shape)}; expected [M, {numel(params)}], rows")
    return [unflatten(row.detach().contiguous(), params) for row in directions]


class Evaluator:
    """Evaluates an objective at combinations of vectors; how many points at once is decided at the first use."""

    def __init__(self, objective: Objective, batches: Any, chunk: int | None, memory: int | None, seed: int) -> None:
        for name, value in (("chunk", chunk), ("memory", memory)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ArgumentError(name, value, "a whole number of at least 1")
        self.objective, self.batches = objective, Batches(objective, batches)
        self.chunk, self.asked, self.seed = chunk, chunk is not None, seed
        self.rest = {name: p.detach() for name, p in objective.params.items()}
        self.device = next(iter(self.rest.values())).device
        self.memory = memory or (CPU_MEMORY if self.device.type == "cpu" else MEMORY)

    @torch.no_grad()
    def __call__(self, vectors: Sequence[Params], weights: Tensor) -> Tensor:
        self._check(vectors, weights)
        rows = weights.detach().to(self.device, torch.float64)
        total, examples = torch.zeros(len(rows), dtype=torch.float64, device=self.device), 0
        with _evaluated(self.objective), seeded(self.seed, self.device):
            for batch, size in self.batches:
                total += size * self._on(batch, vectors, rows)
                examples += size
        return (total / examples).cpu()

    def _check(self, vectors: Sequence[Params], weights: Tensor) -> None:
        if weights.ndim != 2 or weights.shape[1] != len(vectors) or not len(vectors):
            raise MismatchError(f"weights has shape {tuple(weights.shape)}: expected [points, {len(vectors)}]")
        for i, vector in enumerate(vectors):
            known = self.rest if i == 0 else vectors[0]
            for name, tensor in vector.items():
                if name not in known or tensor.shape != self.rest[name].shape:
                    raise MismatchError(
                        f"tensor {name!r} of shape {tuple(tensor.shape)} in vector {i}: expected names and shapes of "
                        f"{ {key: tuple(self.rest[key].shape) for key in list(known)[:5]} }"
                    )

    def _on(self, batch: Batch, vectors: Sequence[Params], rows: Tensor) -> Tensor:
        if self.chunk is None:
            self.chunk = max(1, min(MOST, self.memory // self._footprint(batch)))
        if self.chunk > 1:
            try:
                return self._together(batch, vectors, rows, self.chunk)
            except RuntimeError as error:
                if self.asked:
                    raise UnsupportedError(f"vmap cannot evaluate the loss: {error}; use chunk=1") from error
                self.chunk = 1  # an operation without a rule for copies, or a value that decides a branch
        return self._one_by_one(batch, vectors, rows)

    def _together(self, batch: Batch, vectors: Sequence[Params], rows: Tensor, chunk: int) -> Tensor:
        # randomness "same": each copy sees the numbers that a single evaluation would see
        evaluate = vmap(lambda point: self.objective(batch, {**self.rest, **point}), randomness="same")
        found = []
        with sdpa_kernel(SDPBackend.MATH):
            for part in rows.split(chunk):
                self._reseed()
                found.append(evaluate(_combined(vectors, part)).double())
        return torch.cat(found)

    def _one_by_one(self, batch: Batch, vectors: Sequence[Params], rows: Tensor) -> Tensor:
        size = sum(tensor.nbytes for tensor in vectors[0].values())
        found = []
        for part in rows.split(max(1, min(MOST, self.memory // max(size, 1)))):
            points = _combined(vectors, part)
            for i in range(len(part)):
                self._reseed()
                point = {name: tensor[i] for name, tensor in points.items()}
                found.append(self.objective(batch, {**self.rest, **point}).double())
        return torch.stack(found)

    def _reseed(self) -> None:
        # torch.manual_seed takes longer than a small network
        torch.default_generator.manual_seed(self.seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(self.seed)

    def _footprint(self, batch: Batch) -> int:
        """Bytes of one more copy of the parameters and of what is computed from them."""
        with _Largest() as seen:
            self.objective(batch, self.rest)
        return sum(p.nbytes for p in self.rest.values()) + LIVE * seen.nbytes


def _combined(vectors: Sequence[Params], rows: Tensor) -> Params:
    """The points ``rows @ vectors``, tensor by tensor, ``[points, ...]``, in at least single precision."""
    points = {}
    for name, first in vectors[0].items():
        work = torch.promote_types(first.dtype, torch.float32)
        total = torch.zeros(1, dtype=work, device=rows.device)
        for j, vector in enumerate(vectors):
            if name in vector:
                weight = rows[:, j].to(work).view(-1, *[1] * first.ndim)
                total = total + weight * vector[name].detach().to(rows.device, work)
        points[name] = total.to(first.dtype)
    return points


@contextmanager
def _evaluated(objective: Objective) -> Iterator[None]:
    if objective.module is None:
        yield
    else:
        with evaluating(objective.module):
            yield


class _Largest(TorchDispatchMode):
    """Watches an evaluation for the largest tensor it makes."""

    nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.nbytes = max(self.nbytes, value.nbytes)
        return out
