"""Gradients from displaced points: the base of SAM, GAM and gradient regularization.

A scheme is a generator. It is given the gradient at the parameters, yields a displacement, is sent the gradient there,
and so on; what it returns is the gradient that the base optimizer steps by::

    def scheme(self, at, g0):           # SAM
        g1 = yield at.number("rho") * g0 / g0.norm()
        return g1
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from covector.errors import ArgumentError, CompositionError
from covector.optim.checks import check_gradient, check_nonnegative
from covector.optim.displaced import RandomState, displaced
from covector.optim.optimizer import Optimizer, Updates
from covector.optim.vectors import Factor, Vector
from covector.optim.wrapper import Wrapper

__all__ = ["DisplacedGradient", "Point", "Scheme"]

Scheme = Generator[Vector, Vector, Vector]


class Point:
    """Where a step starts: the parameters that have a gradient, and the numbers of their groups.

    Args:
        optimizer: whose parameters.

    >>> p = nn.Parameter(torch.ones(1)); p.grad = torch.ones(1)
    >>> Point(torch.optim.SGD([p], lr=0.5)).number("lr")
    0.5
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        pairs = [(p, g) for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        self.params: list[Tensor] = [p for p, _ in pairs]
        self.groups = [g for _, g in pairs]
        self.uphill = any(g.get("maximize", False) for g in self.groups)

    @property
    def w(self) -> Vector:
        """The parameters, detached."""
        return Vector([p.detach() for p in self.params])

    def number(self, name: str) -> Factor:
        """A hyperparameter: one number if it is the same in all groups, else one for each tensor."""
        values = [float(group[name]) for group in self.groups]
        return values[0] if len(set(values)) < 2 else values

    def take(self) -> Vector:
        """The gradients of what is minimized, out of ``.grad``: what runs next cannot overwrite them."""
        grads = []
        for p in self.params:
            if p.grad is None:
                grads.append(torch.zeros_like(p))
                continue
            # a view lies in a buffer that the next backward pass fills again
            grads.append(p.grad.detach().clone() if p.grad._is_view() else p.grad.detach())
            p.grad = None
        return self._turned(Vector(grads))

    def put(self, gradient: Vector) -> None:
        """The inverse of :meth:`take`."""
        for p, g in zip(self.params, self._turned(gradient).tensors, strict=True):
            p.grad = g.to(p.dtype)

    def _turned(self, v: Vector) -> Vector:
        return v * [-1.0 if group.get("maximize", False) else 1.0 for group in self.groups] if self.uphill else v


class DisplacedGradient(Wrapper):
    """Base of the optimizers that step by gradients from beside the parameters. Subclasses write :meth:`scheme`.

    ``step(closure)`` calls the closure several times, on the same batch: it clears gradients, computes the loss,
    backpropagates and returns the loss, as for ``torch.optim.LBFGS``. At displaced points, random numbers start as at
    the parameters, and buffers (running statistics) are left as they were.

    Args:
        optimizer: of this package or any other; it steps once, by the gradient that the scheme returns.
        model: the model, where its buffers shall be found without hooks (as inside ``torch.compile``).
        numbers: hyperparameters, which go into the param groups and may differ between them.

    Raises:
        CompositionError: what is wrapped is no optimizer.
        ArgumentError: a number out of range; from ``step``, where there is no closure.

    >>> from covector.optim import SGD
    >>> class Ahead(DisplacedGradient):
    ...     def scheme(self, at, g0):
    ...         g1 = yield g0 * -at.number("ahead")
    ...         return g1
    >>> w = nn.Parameter(torch.tensor([1.0]))
    >>> optimizer = Ahead(SGD([w], lr=0.1), ahead=0.25)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = w.square().sum()
    ...     loss.backward()
    ...     return loss
    >>> _ = optimizer.step(closure); round(w.item(), 4)  # the gradient at 1 - 0.25 * 2 is 1
    0.9
    """

    #: gradients a step
    evaluations: ClassVar[int] = 2

    def __init__(self, optimizer: torch.optim.Optimizer, model: nn.Module | None = None, **numbers: float) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise CompositionError(f"{type(optimizer).__name__} is no optimizer; pass one that has the parameters")
        for group in [numbers, *({**numbers, **g} for g in optimizer.param_groups)]:
            check_nonnegative(group, *numbers)
        for other in _nested(optimizer):
            if both := sorted(set(other.names) & set(numbers)):
                raise CompositionError(f"{type(other).__name__} inside has {both} too, in the same param groups")
        self._attach(cast(Any, optimizer))
        self.model, self.names = model, tuple(numbers)
        self.defaults.update(numbers)
        for group in self.param_groups:
            for name, value in numbers.items():
                group.setdefault(name, value)
        self._ready = False
        self._open: tuple[Point, Scheme, ExitStack] | None = None

    def scheme(self, at: Point, g0: Vector) -> Scheme:
        """Yield displacements, receive the gradients there, and return the gradient to step by.

        Args:
            at: the parameters, and the numbers of their groups.
            g0: the gradient there.
        """
        raise CompositionError(f"{type(self).__name__} has no scheme; define scheme(self, at, g0)")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
        """Evaluate the gradients by the closure and step the base optimizer; returns the loss at the parameters."""
        if closure is None:
            self._check_ready()
            self._step_inner(loss)
            return None
        returned = self.evaluate(closure)
        self._step_inner(returned if returned is not None else loss)
        return returned

    @torch.no_grad()
    def evaluate(self, closure: Callable[[], Any]) -> Any:
        """Run the scheme, and leave its gradient in ``.grad``; returns the loss at the parameters."""
        start = RandomState(self._params())
        returned = super().evaluate(closure)
        at = self._point()
        if at.params:
            after = RandomState(at.params)
            self._follow(at, closure, start)
            after.restore()
        self._ready = True
        return returned

    def advance(self, evaluated: Callable[[], Any] | None, loss: Any) -> Updates:
        """The base optimizer's update by the gradient of the scheme, once :meth:`evaluate` has run."""
        if evaluated is not None:
            returned = evaluated()
            loss = returned if returned is not None else loss
        self._check_ready()
        if not isinstance(self.inner, (Optimizer, Wrapper)):
            raise CompositionError(f"{type(self.inner).__name__} steps in place and cannot give its update")
        self._ready = False
        return super().advance(None, loss)

    def first_step(self, zero_grad: bool = False) -> None:
        """After the first backward pass: move to the displaced point. For loops that cannot give a closure.

        Random numbers are then the caller's matter. Nothing else may change the parameters before :meth:`second_step`.

        Args:
            zero_grad: clear the gradients; they are cleared anyway.

        Raises:
            CompositionError: the method takes more than two gradients, or is at the displaced point already.
        """
        if self.evaluations != 2:
            raise CompositionError(
                f"{type(self).__name__} takes {self.evaluations} gradients a step; use step(closure)"
            )
        if self._open is not None:
            raise CompositionError("first_step was called twice; call second_step after the second backward pass")
        at = self._point()
        with torch.no_grad():
            scheme = self.scheme(at, at.take())
            delta = next(scheme)
        stack = ExitStack()
        stack.enter_context(displaced(at.params, delta.tensors, self.model))
        self._open = at, scheme, stack

    def second_step(self, zero_grad: bool = False) -> None:
        """After the second backward pass: move back, and step the base optimizer.

        Args:
            zero_grad: clear the gradients afterwards.

        Raises:
            CompositionError: there was no :meth:`first_step`.
        """
        if self._open is None:
            raise CompositionError("second_step without first_step; call first_step after the first backward pass")
        (at, scheme, stack), self._open = self._open, None
        stack.close()
        with torch.no_grad():
            at.put(_returned(scheme, at.take()))
            self._ready = True
            self._step_inner(None)
        if zero_grad:
            self.zero_grad()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to the base optimizer, with numbers of their own."""
        check_nonnegative(param_group, *(name for name in getattr(self, "names", ()) if name in param_group))
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state, of this optimizer or of the base alone, bit for bit."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            for name in self.names:
                group.setdefault(name, self.defaults[name])

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def _point(self) -> Point:
        at = Point(self)
        for p in at.params:
            if p.grad is not None and p.grad.layout is not torch.strided:
                check_gradient(p)
        return at

    def _follow(self, at: Point, closure: Callable[[], Any], start: RandomState) -> None:
        scheme = self.scheme(at, at.take())
        delta = next(scheme)
        while True:
            there = displaced(at.params, delta.tensors, self.model, start)
            del delta  # once it is added, its memory serves the pass
            with there:
                super().evaluate(closure)
            try:
                delta = scheme.send(at.take())
            except StopIteration as end:
                at.put(end.value)
                return

    def _check_ready(self) -> None:
        if not self._ready:
            raise ArgumentError(
                "closure", None,
                f"step(closure) with a closure that zeroes, backpropagates and returns the loss: {type(self).__name__} "
                f"takes {self.evaluations} gradients a step (where a loop has none: first_step and second_step)",
            )  # fmt: skip

    def _step_inner(self, loss: Any) -> None:
        self._ready = False
        if isinstance(self.inner, (Optimizer, Wrapper)):
            self.inner.step(loss=loss)
        else:
            self.inner.step()


def _returned(scheme: Scheme, gradient: Vector) -> Vector:
    try:
        scheme.send(gradient)
    except StopIteration as end:
        result: Vector = end.value
        return result
    raise CompositionError("the scheme yields more displacements than its class says in evaluations")


def _nested(optimizer: Any) -> Iterator[Any]:
    while isinstance(optimizer, Wrapper):
        if isinstance(optimizer, DisplacedGradient):
            yield optimizer
        optimizer = optimizer.inner
