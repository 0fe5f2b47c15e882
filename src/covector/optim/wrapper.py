"""An optimizer around an optimizer: it changes updates before they are added, or looks at where they lead.

Whatever has ``update()`` and ``apply()`` can be wrapped: every optimizer of this package, and every wrapper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from covector.errors import CompositionError
from covector.optim.advance import state_dtype
from covector.optim.optimizer import Optimizer, Updates

__all__ = ["Wrapper"]


class Wrapper(torch.optim.Optimizer):
    """Base of the optimizers that wrap one. It shares the param groups and states of the inner optimizer.

    Schedulers, ``zero_grad``, ``state_dict`` and ``load_state_dict`` reach the inner optimizer; tensors of the wrapper
    lie beside its states. Load a state through the outermost wrapper.

    Args:
        optimizer: an :class:`~covector.optim.Optimizer`, or a wrapper.

    Raises:
        CompositionError: what is to be wrapped cannot give its update as a value.

    >>> from covector.optim import SGD
    >>> class Halved(Wrapper):
    ...     def transform(self, updates):
    ...         return {param: update / 2 for param, update in updates.items()}
    >>> p = torch.nn.Parameter(torch.zeros(1))
    >>> p.grad = torch.ones(1)
    >>> Halved(SGD([p], lr=1.0)).step(); p.item()
    -0.5
    """

    def __init__(self, optimizer: Optimizer | Wrapper) -> None:
        if not isinstance(optimizer, (Optimizer, Wrapper)):
            raise CompositionError(
                f"{type(optimizer).__name__} steps in place and cannot give its update; wrap one of covector.optim"
            )
        self._attach(optimizer)

    def _attach(self, optimizer: Optimizer | Wrapper) -> None:
        self.inner = optimizer
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.inner.param_groups, self.inner.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
        """Advance the states and step the parameters; as :meth:`Optimizer.step`."""
        returned: list[Any] = []

        def evaluated() -> Any:
            assert closure is not None
            returned.append(self.evaluate(closure))
            return returned[-1]

        self.apply(self.advance(None if closure is None else evaluated, loss))
        return returned[0] if returned else None

    def evaluate(self, closure: Callable[[], Any]) -> Any:
        """Fill the gradients by the closure, and return its loss; what is inside may call it more than once."""
        if isinstance(self.inner, Wrapper):
            return self.inner.evaluate(closure)
        with torch.enable_grad():
            return closure()

    @torch.no_grad()
    def update(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Updates:
        """Advance the states and return what :meth:`step` would add to each parameter."""
        return self.advance(None if closure is None else lambda: self.evaluate(closure), loss)

    def advance(self, evaluated: Callable[[], Any] | None, loss: Any) -> Updates:
        """The update by the gradients that are there, or that a closure fills in as :meth:`evaluate` does."""
        inner = self.inner
        if isinstance(inner, Wrapper):
            return self.transform(inner.advance(evaluated, loss))
        return self.transform(inner.update(evaluated, loss=loss))

    @torch.no_grad()
    def apply(self, updates: Mapping[Tensor, Tensor]) -> None:
        """Add updates to their parameters."""
        self.inner.apply(updates)

    def transform(self, updates: Updates) -> Updates:
        """What becomes of the inner optimizer's updates; here: nothing."""
        return updates

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to the inner optimizer."""
        if all(group is not param_group for group in self.inner.param_groups):
            self.inner.add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state from ``state_dict()``, bit for bit."""
        self.inner.load_state_dict(state_dict)
        self._share()

    @property
    def shared(self) -> dict[str, Any]:
        """Numbers of the optimizer as a whole, saved with the state."""
        entries: Any = self.state
        found: dict[str, Any] = entries["shared"]
        return found

    def precise(self, param: Tensor) -> Tensor:
        """A parameter in the precision of the states."""
        return param.detach().to(state_dtype(param.dtype))

    @contextmanager
    def swapped(self, values: Mapping[Tensor, Tensor]) -> Iterator[None]:
        """Parameters with other values for as long as the block lasts."""
        kept = {param: param.detach().clone() for param in values}
        with torch.no_grad():
            for param, value in values.items():
                param.copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for param, value in kept.items():
                    param.copy_(value)
