"""What one of several processes does: steps by displaced gradients of its share of each batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from covector.optim import GAM, SAM, SGD, GradientRegularization

SCHEMES: dict[str, Any] = {
    "SAM": lambda base: SAM(base, rho=0.1),
    "GAM": GAM,
    "forward": lambda base: GradientRegularization(base, gamma=0.2, eps=0.1),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def train(name: str, model: nn.Module, share: slice) -> list[float]:
    """Parameters after three steps."""
    generator = torch.Generator().manual_seed(1)
    optimizer = SCHEMES[name](SGD(model.parameters(), lr=0.1, momentum=0.9))
    for _ in range(3):
        x = torch.randn(8, 6, generator=generator, dtype=torch.float64)[share]

        def closure(x: torch.Tensor = x) -> torch.Tensor:
            optimizer.zero_grad(set_to_none=False)
            loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True).sin())
            loss.backward()
            return loss

        optimizer.step(closure)
    return [float(v) for p in model.parameters() for v in p.detach().flatten()]


def parameters() -> dict[str, list[float]]:
    """Of each scheme, with and without gradients that are views of the buckets."""
    rank, size = dist.get_rank(), dist.get_world_size()
    share = slice(rank * 8 // size, (rank + 1) * 8 // size)
    return {
        f"{name}, views: {views}": train(
            name, nn.parallel.DistributedDataParallel(network(), gradient_as_bucket_view=views), share
        )
        for name in SCHEMES
        for views in (False, True)
    }
