"""One of two processes that share the roots of Shampoo: writes where it ended."""

from __future__ import annotations

import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn

from covector.optim import DistributedShampoo


def shapes() -> list[tuple[int, int]]:
    return [(6, 4), (4, 4), (4, 4), (4, 4), (7, 3)]


def train(background: bool, steps: int = 12) -> list[nn.Parameter]:
    """Parameters after steps with gradients that every process can make."""
    params = [nn.Parameter(torch.zeros(shape)) for shape in shapes()]
    optimizer = DistributedShampoo(params, lr=0.1, refresh=3, block=4, background=background)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return params


def main() -> None:
    rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    found = {f"{background}.{i}": p.detach() for background in (False, True) for i, p in enumerate(train(background))}
    save_file(found, out)
    dist.barrier()  # neither leaves while the other still speaks to it
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
