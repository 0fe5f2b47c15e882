"""The six slots of a step: what each is asked, and what it is given.

A step reads ``p <- p - scale * T(moments(basis(transform(g))))``:

1. **transforms** of the gradients of the whole model: :class:`Transform`;
2. **moments**, elementwise: :class:`~covector.optim.rule.Rule`;
3. the **basis** they live in: :class:`Basis`;
4. **maps** of the direction, a matrix at a time: :class:`Map`;
5. the **scale**, a scalar for each tensor: :class:`Scale`;
6. **apply**: weight decay, the subtraction and the :class:`Constraint`, in
   :class:`~covector.optim.optimizer.Optimizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from covector.optim.closures import Evaluation
from covector.optim.rule import Rule

__all__ = ["Basis", "Bucket", "Constraint", "Map", "Scale", "SkipStep", "Slots", "Transform"]


class SkipStep(Exception):
    """Raised by a transform or a scale: this step is not taken, and nothing has changed."""


@dataclass
class Bucket:
    """Parameters that step together: one param group, one dtype, one device, one step count.

    Args:
        group: the param group, with its hyperparameters.
        slots: how these parameters step.
        params: the parameters that have a gradient.
        grads: their gradients; a transform may replace them.
        states: their states; slots keep what they need here, as tensors or numbers, under names of their own.
        t: number of this step, from 1; a 0-d tensor where the group is capturable.
        signs: factor of each gradient; a transform that only scales changes this instead of the gradients.
        shared: numbers and tensors that belong to the optimizer as a whole, the same dictionary in all buckets;
            saved with the state.
        scratch: what a slot hands on from one of its calls to the next within the step.
        owners: the sharded parameters that ``params`` were gathered from; default ``params`` themselves.
        evaluation: what the closure tells beyond the gradient, where a slot has ``needs_closure``.
    """

    group: dict[str, Any]
    slots: Slots
    params: list[Tensor]
    grads: list[Tensor]
    states: list[dict[str, Any]]
    t: Any
    signs: list[Any] = field(default_factory=list)
    shared: dict[str, Any] = field(default_factory=dict)
    scratch: dict[str, Any] = field(default_factory=dict)
    owners: list[Tensor] = field(default_factory=list)
    evaluation: Evaluation | None = None

    def __post_init__(self) -> None:
        self.owners = self.owners or self.params


class Transform(Protocol):
    """Slot 1: changes gradients before anything else sees them; sees the whole model, so that norms are global.

    One that only scales, and takes its norms from :mod:`~covector.optim.magnitude`, may say ``parts = True``: then it
    is given sharded tensors as they are.
    """

    def __call__(self, buckets: Sequence[Bucket]) -> None:
        """Replace ``bucket.grads`` or multiply ``bucket.signs``; the tensors in ``p.grad`` stay as they are."""


class Basis(Protocol):
    """Slot 3: other coordinates for moments: an eigenbasis, a subspace."""

    def project(self, bucket: Bucket, grads: list[Tensor]) -> list[Tensor]:
        """Gradients in the basis; makes or refreshes it, and carries the states over, where that is due."""

    def lift(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """Directions back in the parameters' coordinates."""


class Map(Protocol):
    """Slot 4: what a direction becomes, seen as a whole tensor: orthogonalized, normalized, preconditioned."""

    def __call__(self, bucket: Bucket, directions: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """New directions; must not write into its arguments."""


class Scale(Protocol):
    """Slot 5: scalars by which directions are multiplied, one for each tensor."""

    needs_directions: bool

    def observe(self, buckets: Sequence[Bucket], loss: Any) -> None:
        """Once a step, before any factor is asked for: the gradients of the whole model, and the loss if known.

        It may raise before it changes anything, and multiply ``bucket.signs``.
        """

    def factors(self, bucket: Bucket, directions: list[Tensor] | None) -> list[Any]:
        """A number or 0-d tensor for each tensor of the bucket."""


class Constraint(Protocol):
    """In slot 6: the set that parameters must stay in."""

    def project_(self, params: Sequence[Tensor]) -> None:
        """Move each tensor in place to the nearest point of the set."""


@dataclass(frozen=True)
class Slots:
    """A composition: what to put into each slot.

    Args:
        rule: moments, elementwise.
        basis: coordinates of the moments; default the parameters' own.
        maps: applied to the direction one after the other.
        scales: factors that multiply.
        reduced: names of the rule's states that may be of fewer elements than their parameter.

    >>> from covector.optim.rule import Rule
    >>> Slots(Rule(lambda g: (g,), (), lambda t, group: ())).fused
    True
    """

    rule: Rule
    basis: Basis | None = None
    maps: tuple[Map, ...] = ()
    scales: tuple[Scale, ...] = ()
    reduced: tuple[str, ...] = ()

    @property
    def whole(self) -> tuple[str, ...]:
        """Names of the rule's states that have their parameter's size."""
        return () if self.basis else tuple(name for name in self.rule.states if name not in self.reduced)

    @property
    def elementwise(self) -> bool:
        """Whether a step of one element depends on no other one."""
        return self.basis is None and not self.maps and not self.scales

    @property
    def fused(self) -> bool:
        """Whether a step is one pass over memory."""
        return self.basis is None and not self.maps and not any(scale.needs_directions for scale in self.scales)

    @property
    def evaluates(self) -> bool:
        """Whether a closure may leave the backward pass to the optimizer: a slot says whether it needs one."""
        return any(hasattr(part, "needs_closure") for part in self.scales)

    @property
    def needs_closure(self) -> bool:
        """Whether a slot asks for more of the loss than its value and gradient."""
        return any(getattr(part, "needs_closure", False) for part in self.scales)
