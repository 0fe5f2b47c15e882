"""Before a step: the parameters that have a gradient, checked, by what steps together.

There may be thousands of tensors, so everything is asked a column at a time; and as gradients, data and states may be
replaced between two steps without notice, nothing is remembered from the step before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from covector.optim.checks import check_gradients, check_states
from covector.optim.packing import pack
from covector.optim.sharded import any_sharded, whole
from covector.optim.slots import Bucket, Slots

__all__ = ["gather"]

InitialState = Callable[[Slots, Tensor, Mapping[str, Any]], dict[str, Any]]


def gather(
    groups: Sequence[dict[str, Any]],
    slots: Mapping[str, Slots],
    state: Mapping[Any, Any],
    initial_state: InitialState,
    parts: Callable[[Slots], bool],
) -> list[Bucket]:
    """The buckets of a step, their step counts advanced.

    Args:
        groups: the param groups.
        slots: compositions by name.
        state: of each parameter, made where it is asked for first; may hold what is ``"shared"``.
        initial_state: fills the state of a parameter before its first step.
        parts: whether a composition may step a part of a tensor by itself; others see sharded ones whole.

    Raises:
        UnsupportedError: a gradient is sparse or of another dtype.
        MismatchError: a gradient or a state has another size than its parameter. No parameter has moved then.
    """
    live = [(group, *_with_gradients(group["params"])) for group in groups]
    dtypes = [[p.dtype for p in params] for _, params, _ in live]
    sizes = [list(map(Tensor.numel, params)) for _, params, _ in live]
    for (_, params, grads), kinds, counts in zip(live, dtypes, sizes, strict=True):
        check_gradients(params, grads, kinds, counts)
    shared: dict[str, Any] = state.get("shared", {})
    found = []
    for (group, params, grads), kinds, counts in zip(live, dtypes, sizes, strict=True):
        chosen = slots[group["slots"]]
        seen = params
        if any_sharded(params) and not parts(chosen):
            seen, grads = list(map(whole, params)), list(map(whole, grads))
        states = _states(params, seen, state, initial_state, chosen, group)
        check_states(params, states, chosen.whole, counts)
        found += _split(Bucket(group, chosen, seen, grads, states, 0, [], shared, {}, params), kinds)
    for bucket in found:
        _advance(bucket)
    return found


def _with_gradients(params: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    grads = [p.grad for p in params]
    present = [grad for grad in grads if grad is not None]
    if len(present) == len(grads):
        return list(params), present
    return [p for p, grad in zip(params, grads, strict=True) if grad is not None], present


def _states(
    params: list[Tensor],
    seen: list[Tensor],
    state: Mapping[Any, Any],
    initial: InitialState,
    slots: Slots,
    group: Mapping[str, Any],
) -> list[dict[str, Any]]:
    states: list[dict[str, Any]] = [state[p] for p in params]
    if not all(states):
        fresh = [(param, own) for param, own in zip(seen, states, strict=True) if not own]
        for param, own in fresh:
            own.update(initial(slots, param, group))
        pack([own for _, own in fresh], slots.rule.states)
    return states


def _split(together: Bucket, dtypes: list[torch.dtype]) -> list[Bucket]:
    """A group's parameters by dtype, device and step count."""
    group, params = together.group, together.params
    together.signs = [-1.0 if group["maximize"] else 1.0] * len(params)
    counts = [0] * len(params) if group["capturable"] else [state["step"] for state in together.states]
    marks = dtypes, [p.device for p in params], counts
    if all(len(set(column)) < 2 for column in marks):
        return [together] if params else []
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, mark in enumerate(zip(*marks, strict=True)):
        places.setdefault(mark, []).append(place)
    columns: tuple[list[Any], ...] = together.params, together.grads, together.states, together.owners
    found = []
    for some in places.values():
        own, grads, states, owners = ([column[i] for i in some] for column in columns)
        signs = together.signs[: len(some)]
        found.append(Bucket(group, together.slots, own, grads, states, 0, signs, together.shared, owners=owners))
    return found


def _advance(bucket: Bucket) -> None:
    if bucket.group["capturable"]:
        for state in bucket.states:
            state["step"].add_(1)
    else:
        for state in bucket.states:
            state["step"] += 1
    bucket.t = bucket.states[0]["step"]
