"""Looking at a model from a place beside it: parameters displaced for a while, and then as they were, bit for bit.

What a forward and backward pass there leaves behind is taken back as well: running statistics of normalization layers
(all buffers of modules in training mode), which should follow the model and not the places it was seen from. And random
numbers start where they started at the model itself, so that dropout drops the same units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

__all__ = ["RandomState", "displaced", "unchanged_buffers"]


class RandomState:
    """Where the random numbers of torch stand, on the CPU and on the devices of some tensors.

    Args:
        tensors: whose devices matter.

    >>> state = RandomState([])
    >>> first = torch.rand(2); state.restore(); bool((torch.rand(2) == first).all())
    True
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.cpu = torch.get_rng_state()
        devices = {t.device for t in tensors if t.device.type not in ("cpu", "meta")}
        self.others = {device: torch.get_device_module(device).get_rng_state(device) for device in devices}

    def restore(self) -> None:
        """Let the numbers go on from there."""
        torch.set_rng_state(self.cpu)
        for device, state in self.others.items():
            torch.get_device_module(device).set_rng_state(state, device)


@contextmanager
def unchanged_buffers(model: nn.Module | None = None) -> Iterator[None]:
    """Buffers of modules in training mode keep their values, whatever runs in the block.

    Args:
        model: whose buffers; default: of all modules that are called in the block.

    >>> layer = nn.BatchNorm1d(1)
    >>> with unchanged_buffers():
    ...     _ = layer(torch.tensor([[1.0], [3.0]]))
    >>> layer.running_mean, layer.num_batches_tracked
    (tensor([0.]), tensor(0))
    """
    kept: list[tuple[nn.Module, str, Tensor, Tensor]] = []
    seen: set[nn.Module] = set()

    def keep(module: nn.Module, _: object = None) -> None:
        if module in seen:
            return
        for part in module.modules():
            if part.training and part not in seen:
                kept.extend((part, name, b, b.clone()) for name, b in part._buffers.items() if b is not None)
            seen.add(part)

    handle = None
    if model is None:
        handle = register_module_forward_pre_hook(keep)
    else:
        keep(model)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
        with torch.no_grad():
            for part, name, buffer, value in kept:
                part._buffers[name] = buffer.copy_(value)


@contextmanager
def displaced(
    params: Sequence[Tensor],
    delta: Sequence[Tensor],
    model: nn.Module | None = None,
    random: RandomState | None = None,
) -> Iterator[None]:
    """Parameters at ``params + delta`` for as long as the block lasts; then they, and all buffers, are as before.

    Args:
        params: changed in place, and restored bit for bit.
        delta: a tensor for each.
        model: whose buffers to restore; default: of all modules that are called in the block. Name it where a compiled
            model shall not see hooks come and go.
        random: where random numbers start in the block.

    >>> w = nn.Parameter(torch.tensor([1.0]))
    >>> with displaced([w], [torch.tensor([0.5])]):
    ...     print(w.item())
    1.5
    >>> w.item()
    1.0
    """
    live = list(params)
    with torch.no_grad():
        kept = [p.detach().clone() for p in live]
        if live:
            torch._foreach_add_(live, list(delta))
    del delta
    if random is not None:
        random.restore()
    try:
        with unchanged_buffers(model):
            yield
    finally:
        with torch.no_grad():
            if live:
                torch._foreach_copy_(live, kept)
