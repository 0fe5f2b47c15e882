"""The optimizer: a ``torch.optim.Optimizer`` that composes six slots and can give its update as a value."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from covector.errors import ArgumentError, CompositionError, CovectorError
from covector.optim.advance import Factors, advance, same, state_dtype
from covector.optim.checks import check_fractions, check_nonnegative, check_parameter, check_positive
from covector.optim.closures import Evaluation
from covector.optim.gather import gather
from covector.optim.packing import pack
from covector.optim.sharded import deal, shard_like
from covector.optim.slots import Bucket, Constraint, SkipStep, Slots, Transform

__all__ = ["Optimizer", "Updates"]

Updates = dict[Tensor, Tensor]
Params = nn.Module | Iterable[Any]


class Optimizer(torch.optim.Optimizer):
    """Any composition of the six slots, with the conventions of ``torch.optim``.

    Args:
        params: a module, parameters, named parameters, or param groups.
        slots: a composition, or several by name; a param group says ``slots="name"`` to choose, the first is the
            default.
        lr: learning rate; a number, or a 0-d tensor.
        weight_decay: strength of weight decay.
        decoupled: ``p -= lr * weight_decay * p`` if true, ``g += weight_decay * p`` (L2) if false.
        maximize: ascend instead.
        capturable: keep the step count on the parameters' device, so that a CUDA graph can hold the step.
        transforms: of the gradients of the whole model.
        constraint: the set that parameters are projected onto after each step.
        hyper: further hyperparameters, which rules and slots read from the param group.

    Raises:
        ArgumentError: a hyperparameter out of range, or slots of an unknown name.
        UnsupportedError: a parameter or gradient that is complex or sparse. Nothing has changed then.

    >>> from covector.optim import Slots
    >>> from covector.optim.adam import ADAM
    >>> p = nn.Parameter(torch.tensor([1.0, -1.0]))
    >>> p.grad = torch.tensor([2.0, 0.5])
    >>> optimizer = Optimizer([p], Slots(ADAM), lr=0.1, betas=(0.9, 0.999), eps=1e-8)
    >>> optimizer.update()[p]
    tensor([-0.1000, -0.1000])
    """

    # hyperparameters that check() holds to [0, 1), to at least 0, and to above 0
    fractions: ClassVar[tuple[str, ...]] = ()
    nonnegative: ClassVar[tuple[str, ...]] = ()
    positive: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        params: Params,
        slots: Slots | Mapping[str, Slots],
        lr: float | Tensor = 1e-3,
        *,
        weight_decay: float = 0.0,
        decoupled: bool = True,
        maximize: bool = False,
        capturable: bool = False,
        transforms: Sequence[Transform] = (),
        constraint: Constraint | None = None,
        **hyper: Any,
    ) -> None:
        self.slots: dict[str, Slots] = {"default": slots} if isinstance(slots, Slots) else dict(slots)
        self.transforms = list(transforms)
        self.constraint = constraint
        given = params.named_parameters() if isinstance(params, nn.Module) else params
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "decoupled": decoupled, "maximize": maximize,
            "capturable": capturable, "slots": next(iter(self.slots)), **hyper,
        }  # fmt: skip
        super().__init__(given, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        """Refuse hyperparameters that cannot work; called for each param group before it is added."""
        check_nonnegative(group, "lr", "weight_decay", *self.nonnegative)
        check_positive(group, *self.positive)
        check_fractions(group, *self.fractions)
        if group["slots"] not in self.slots:
            raise ArgumentError("slots", group["slots"], f"one of {sorted(self.slots)}")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with their own hyperparameters, as in ``torch.optim``."""
        self.check({**self.defaults, **param_group})
        params = param_group["params"]
        if not isinstance(params, Tensor):
            params = param_group["params"] = list(params)
            for param in params:
                check_parameter(param[1] if isinstance(param, tuple) else param)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Any:
        """Advance the states and step the parameters in place.

        Args:
            closure: reevaluates the model and returns the loss.
            loss: the loss, for the slots that use it, where there is no closure.

        Returns:
            What the closure returned, or None.

        Raises:
            ArgumentError: there is no closure, and a slot needs one.
        """
        returned, evaluation = self._call(closure)
        self._run(returned if returned is not None else loss, None, evaluation)
        return returned

    @torch.no_grad()
    def update(self, closure: Callable[[], Any] | None = None, *, loss: Any = None) -> Updates:
        """Advance the states and return what :meth:`step` would add to each parameter; nothing is added."""
        updates: Updates = {}
        returned, evaluation = self._call(closure)
        self._run(returned if returned is not None else loss, updates, evaluation)
        return updates

    @torch.no_grad()
    def apply(self, updates: Mapping[Tensor, Tensor]) -> None:
        """Add updates to their parameters."""
        for param, update in updates.items():
            param.add_(update)
        if self.constraint is not None:
            self.constraint.project_(list(updates))

    def _call(self, closure: Callable[[], Any] | None) -> tuple[Any, Evaluation | None]:
        """What a closure returns, and the means to ask it for more where a slot needs that."""
        chosen = [self.slots[group["slots"]] for group in self.param_groups]
        needed = any(slots.needs_closure for slots in chosen)
        if closure is None:
            if needed:
                raise ArgumentError("closure", None, "a function that returns the loss: step(closure)")
            return None, None
        if any(slots.evaluates for slots in chosen):
            evaluation = Evaluation(closure, [p for group in self.param_groups for p in group["params"]], needed)
            return evaluation.loss, evaluation
        with torch.enable_grad():
            return closure(), None

    def _run(self, loss: Any, updates: Updates | None, evaluation: Evaluation | None = None) -> None:
        buckets = self._buckets()
        for bucket in buckets:
            bucket.evaluation = evaluation
        try:
            self._prepare(buckets, loss)
        except (CovectorError, SkipStep) as error:
            self._rewind(buckets)
            if isinstance(error, SkipStep):
                return
            raise
        for bucket in buckets:
            if updates is None:
                self._move(bucket, bucket.params)
                if self.constraint is not None:
                    self.constraint.project_(bucket.params)
                deal(bucket.params, bucket.owners)
                continue
            out = [torch.empty_like(p) for p in bucket.params]
            self._move(bucket, out)
            if self.constraint is not None:
                self._shorten(bucket.params, out)
            updates.update(zip(bucket.owners, map(shard_like, out, bucket.owners), strict=True))

    def _prepare(self, buckets: list[Bucket], loss: Any) -> None:
        """Let transforms and scales see the whole model."""
        for transform in self.transforms:
            transform(buckets)
        scales = {id(scale): scale for bucket in buckets for scale in bucket.slots.scales}
        for scale in scales.values():
            scale.observe(buckets, loss)
        if buckets and buckets[0].shared:
            self.state["shared"] = buckets[0].shared  # type: ignore[index]  # torch saves entries of any key

    def _rewind(self, buckets: list[Bucket]) -> None:
        """Undo the count of a step that is not taken."""
        for bucket in buckets:
            for param, state in zip(bucket.owners, bucket.states, strict=True):
                state["step"] -= 1
                if not state["step"]:
                    del self.state[param]

    def _shorten(self, params: list[Tensor], out: list[Tensor]) -> None:
        """Updates that end in the constraint's set."""
        assert self.constraint is not None
        ends = [p + update for p, update in zip(params, out, strict=True)]
        self.constraint.project_(ends)
        for param, update, end in zip(params, out, ends, strict=True):
            torch.sub(end, param, out=update)

    def _buckets(self) -> list[Bucket]:
        """Parameters that have a gradient, checked, by what steps together; their step counts advanced."""
        return gather(self.param_groups, self.slots, self.state, self.initial_state, self.parts)

    def parts(self, slots: Slots) -> bool:
        """Whether a process may step its part of a sharded tensor by itself; if not, tensors are gathered whole."""
        return slots.elementwise and all(getattr(transform, "parts", False) for transform in self.transforms)

    def initial_state(self, slots: Slots, param: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        """State of a parameter before its first step; in a basis, the rule's tensors come with its first gradient."""
        step: Any = torch.zeros((), device=param.device) if group["capturable"] else 0
        state: dict[str, Any] = {"step": step}
        if slots.basis is None:
            state.update(_rule_states(slots, param, group))
        return state

    def _move(self, bucket: Bucket, out: list[Tensor]) -> None:
        """Write ``p`` after the step, or the difference to it, into ``out``."""
        group, slots = bucket.group, bucket.slots
        lr = group["lr"] if isinstance(group["lr"], Tensor) else float(group["lr"])
        decay = group["weight_decay"]
        rate = 1.0 if slots.rule.rated else lr
        in_place = out is bucket.params
        keep = (1.0 if in_place else 0.0) - (lr * decay if group["decoupled"] else 0.0)
        l2 = 0.0 if group["decoupled"] else decay
        coefficients = slots.rule.coefficients(bucket.t, group)
        if slots.fused:
            steps = _steps(bucket, rate, None)
            if same(bucket.signs) and same(steps):
                factors = [(bucket.signs[0], l2, keep, steps[0])] * len(steps)
            else:
                factors = [(sign, l2, keep, step) for sign, step in zip(bucket.signs, steps, strict=True)]
            states = [[state[name] for state in bucket.states] for name in slots.rule.states]
            advance(slots.rule, bucket.params, bucket.grads, out, states, coefficients, factors)
            return
        directions = self._directions(bucket, l2, coefficients)
        steps = _steps(bucket, rate, directions)
        for param, target, direction, step in zip(bucket.params, out, directions, steps, strict=True):
            kind = state_dtype(param.dtype)
            target.copy_(param.to(kind) * keep - direction * step)

    def _directions(self, bucket: Bucket, l2: float, coefficients: Sequence[Any]) -> list[Tensor]:
        slots, kind = bucket.slots, state_dtype(bucket.params[0].dtype)
        grads = [
            g.to(kind) * sign + l2 * p.to(kind) if l2 else g.to(kind) * sign
            for p, g, sign in zip(bucket.params, bucket.grads, bucket.signs, strict=True)
        ]
        seen = grads if slots.basis is None else slots.basis.project(bucket, grads)
        for state, g in zip(bucket.states, seen, strict=True):
            if not state.keys() >= set(slots.rule.states):
                state.update(_rule_states(slots, g, bucket.group))
        states = [[state[name] for state in bucket.states] for name in slots.rule.states]
        directions = [torch.empty_like(g) for g in seen]
        pass_through: Factors = (1.0, 0.0, 0.0, -1.0)
        advance(slots.rule, seen, seen, directions, states, coefficients, [pass_through] * len(seen))
        if slots.basis is not None:
            directions = slots.basis.lift(bucket, directions, grads)
        for map_ in slots.maps:
            directions = map_(bucket, directions, grads)
        return directions

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state from ``state_dict()``, bit for bit: tensors keep the dtype they were saved in."""
        unknown = {g.get("slots") for g in state_dict["param_groups"]} - {None, *self.slots}
        if unknown:
            raise CompositionError(f"the state was saved with slots {sorted(unknown)}; here are {sorted(self.slots)}")
        super().load_state_dict(state_dict)
        # torch casts states to their parameter's dtype, which would round float32 moments of bfloat16 parameters
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        live = [param for group in self.param_groups for param in group["params"]]
        for index, param in zip(saved, live, strict=True):
            if index in state_dict["state"]:
                self.state[param] = {k: _own(v, param) for k, v in state_dict["state"][index].items()}
        for group in self.param_groups:
            loaded = [self.state[param] for param in group["params"] if param in self.state]
            pack(loaded, self.slots[group["slots"]].rule.states)
        if "shared" in state_dict["state"]:
            self.state["shared"] = copy.deepcopy(state_dict["state"]["shared"])  # type: ignore[index]


def _own(value: Any, param: Tensor) -> Any:
    return value.detach().to(param.device, copy=True) if isinstance(value, Tensor) else copy.deepcopy(value)


def _rule_states(slots: Slots, like: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
    kind, initial = state_dtype(like.dtype), slots.rule.initial
    states = {}
    for name in slots.rule.states:
        value = torch.zeros_like(like, dtype=kind)
        states[name] = value.fill_(group[initial[name]]) if name in initial else value
    return states


def _steps(bucket: Bucket, lr: Any, directions: list[Tensor] | None) -> list[Any]:
    """``lr`` times the factors of all scale rules, for each tensor."""
    steps = [lr] * len(bucket.params)
    for scale in bucket.slots.scales:
        factors = scale.factors(bucket, directions)
        if directions is None:
            steps = [step * factor for step, factor in zip(steps, factors, strict=True)]
            continue
        # a later rule that looks at directions sees them as they will be applied
        directions[:] = [d * f for d, f in zip(directions, factors, strict=True)]
    return steps
