"""CurvatureOperator: a matrix over the parameters of an objective, averaged over the examples of its batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from covector.curvature.batches import Batches
from covector.curvature.flat import Selection, select
from covector.curvature.frozen import check_deterministic, fingerprint, leaves, watched
from covector.curvature.linearization import Differences, Functional, Graph, Linearization
from covector.errors import ArgumentError, UnsupportedError
from covector.linalg import LinearOperator
from covector.objective import Batch, Objective
from covector.trees import Params, numel

__all__ = ["Backend", "CurvatureOperator"]

Backend = Literal["auto", "graph", "functional", "differences"]

# the order in which "auto" tries: the fastest first, last the one that needs first derivatives only
_ORDER: tuple[Backend, ...] = ("graph", "functional", "differences")
# graphs of a list with more batches are not kept
_KEPT = 16


class CurvatureOperator(LinearOperator):
    """Mean over the examples of one matrix an example; products follow the live parameters.

    Args:
        objective: what is differentiated; only its parameters count, tied ones once.
        batches: one batch, a list of batches, or a loader that can be read again; weighted by their examples.
        backend: ``"graph"`` differentiates a kept graph twice, ``"functional"`` keeps nothing, ``"differences"``
            needs first derivatives only; ``"auto"`` takes the first that works for the module.
        params: names of the parameters, or a predicate on names; default: all of the objective's.
        keep: whether to keep the graphs between products; default: for one batch and lists of up to 16.

    Attributes:
        backend: in use; settled by the first product, or by asking for it.

    Raises:
        ArgumentError: an unknown back end or parameter, or no batch.
        UnsupportedError: the loss is not a function of the parameters (dropout, batch normalization in training mode).
        NonFiniteError: the loss is not finite.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Any,
        *,
        backend: Backend = "auto",
        params: Selection = None,
        keep: bool | None = None,
        symmetric: bool = True,
        positive: bool = False,
    ) -> None:
        if backend not in get_args(Backend):
            raise ArgumentError("backend", backend, f"one of {get_args(Backend)}")
        like = select(objective.params, params)
        self.objective, self.batches = objective, Batches(objective, batches)
        self._settled: Backend | None = None if backend == "auto" else backend
        self.keep = self.batches.in_memory and len(self.batches) <= _KEPT if keep is None else keep
        self.watched = watched(objective)
        self._kept: dict[int, Callable[[Tensor], Tensor]] = {}
        self._seen: tuple[Any, ...] = ()
        first = next(iter(like.values()))
        dtype = first.dtype
        for p in like.values():
            dtype = torch.promote_types(dtype, p.dtype)
        check_deterministic(objective, self.batches.first())
        size = numel(like)
        super().__init__(
            (size, size), dtype, first.device, symmetric=symmetric, positive=positive,
            like={name: p.detach() for name, p in like.items()},
        )  # fmt: skip

    @abstractmethod
    def term(self, batch: Batch, backend: Backend, index: int) -> Callable[[Tensor], Tensor]:
        """The product ``[n] -> [n]`` of one batch, the ``index``-th."""

    @property
    def backend(self) -> Backend:
        """The back end in use."""
        if self._settled is None:
            self._settle(torch.zeros(self.shape[1], dtype=self.dtype, device=self.device))
        assert self._settled is not None
        return self._settled

    def rows(self, block: Tensor) -> Tensor:
        if self._settled is None:
            self._settle(block[0])
        return self._mean(lambda term: each(term, block))

    def linearize(self, function: Callable[[Params], Tensor], backend: Backend) -> Linearization:
        """A function of all parameters, linearized by the selected ones."""
        own, everything = self.leaves()
        partial = lambda chosen: function({**everything, **chosen})  # noqa: E731
        if backend == "functional":
            return Functional(partial, own, self.dtype)
        if backend == "differences":
            return Differences(partial, own, self.dtype)
        return Graph(partial, own, self.dtype, forward=_convolutional(self.objective.module))

    def leaves(self) -> tuple[Params, Params]:
        """The selected parameters as leaves on the live memory, and all parameters with these among them."""
        assert self.like is not None
        return leaves(self.objective, self.like)

    def __repr__(self) -> str:
        name = self._settled or "auto"
        return super().__repr__()[:-1] + f", backend={name!r}, {'kept' if self.keep else 'evaluated anew'})"

    def _mean(self, use: Callable[[Callable[[Tensor], Tensor]], Tensor]) -> Tensor:
        found: Tensor | None = None
        total, several = 0, not (self.batches.in_memory and len(self.batches) == 1)
        for index, (batch, weight) in enumerate(self.batches):
            own = use(self._term(index, batch))
            if not several:
                return own
            # sums over many batches keep their digits
            found = own.double().mul_(weight) if found is None else found.add_(own.double(), alpha=weight)
            total += weight
        assert found is not None
        return found.div_(total).to(self.dtype)

    def _term(self, index: int, batch: Batch) -> Callable[[Tensor], Tensor]:
        assert self._settled is not None
        if not self.keep:
            return self.term(batch, self._settled, index)
        if (seen := fingerprint(self.watched)) != self._seen:
            self._kept, self._seen = {}, seen
        if index not in self._kept:
            self._kept[index] = self.term(batch, self._settled, index)
        return self._kept[index]

    def _settle(self, vector: Tensor) -> None:
        batch, first = self.batches.first(), None
        for backend in _ORDER:
            try:
                term = self.term(batch, backend, 0)
                term(vector)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, UnsupportedError) as error:  # what autograd raises for a missing derivative
                first = first or error
                continue
            self._settled = backend
            if self.keep and self.batches.in_memory:
                self._kept, self._seen = {0: term}, fingerprint(self.watched)
            return
        assert first is not None
        raise first


def each(product: Callable[[Tensor], Tensor], block: Tensor) -> Tensor:
    """The products of the rows of a block, as rows; of a single one without a copy.

    >>> each(torch.neg, torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """
    return product(block[0])[None] if len(block) == 1 else torch.stack([product(vector) for vector in block])


def _convolutional(module: nn.Module | None) -> bool:
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
    return module is not None and any(isinstance(part, convolutions) for part in module.modules())
