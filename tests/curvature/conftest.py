"""Small models of every kind in float64, and the dense matrices they should have, by autograd alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from covector.objective import Objective

DOUBLE = torch.float64


class Transformer(nn.Module):
    """One block with causal attention, a learned position and an output tied to the embedding."""

    def __init__(self, width: int = 6, tokens: int = 7, length: int = 4, heads: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.position = nn.Parameter(0.1 * torch.randn(length, width))
        self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embed.weight
        self.heads = heads

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids) + self.position
        size, length, width = h.shape
        q, k, v = (
            part.view(size, length, self.heads, -1).transpose(1, 2) for part in self.mix(self.norm(h)).chunk(3, -1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(seen.transpose(1, 2).reshape(size, length, width))
        return self.head(self.last(h)).transpose(1, 2)  # classes second, as cross entropy takes them


@dataclass
class Problem:
    objective: Objective
    batch: tuple[Tensor, Tensor]

    def flat(self, vector: Tensor) -> dict[str, Tensor]:
        parts = vector.split([p.numel() for p in self.objective.params.values()])
        return {n: part.view(p.shape) for (n, p), part in zip(self.objective.params.items(), parts, strict=True)}

    @property
    def theta(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.objective.params.values()])

    def outputs(self, theta: Tensor) -> Tensor:
        return functional_call(self.objective.module, self.flat(theta), (self.batch[0],))

    def hessian(self) -> Tensor:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return torch.autograd.functional.hessian(
                lambda theta: self.objective.loss(self.outputs(theta), self.batch[1]), self.theta
            )

    def jacobian(self) -> Tensor:
        found = torch.autograd.functional.jacobian(self.outputs, self.theta)
        return found.reshape(-1, len(self.theta))

    def output_hessian(self) -> Tensor:
        z = self.outputs(self.theta)
        loss = lambda flat: self.objective.loss(flat.view_as(z), self.batch[1])  # noqa: E731
        return torch.autograd.functional.hessian(loss, z.flatten())

    def gauss_newton(self) -> Tensor:
        j = self.jacobian()
        return j.T @ self.output_hessian() @ j

    def gradients(self) -> Tensor:
        """Of each example, ``[N, n]``."""
        x, y = self.batch
        rows = []
        for i in range(len(x)):
            loss = self.objective((x[i : i + 1], y[i : i + 1]))
            found = torch.autograd.grad(loss, list(self.objective.params.values()))
            rows.append(torch.cat([g.flatten() for g in found]))
        return torch.stack(rows)


KINDS = ["mlp", "regression", "logistic", "cnn", "transformer", "batch-norm", "tied"]


def make(kind: str) -> Problem:
    torch.manual_seed(sum(map(ord, kind)))
    loss = F.cross_entropy
    x, y = torch.randn(9, 4), torch.randint(0, 3, (9,))
    if kind == "mlp":
        module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    elif kind == "regression":
        module, loss, y = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), F.mse_loss, torch.randn(9, 2)
    elif kind == "logistic":
        module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
        loss, y = F.binary_cross_entropy_with_logits, torch.rand(9, 1).round()
    elif kind == "cnn":
        module = nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.Tanh(), nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Flatten(),
            nn.Linear(16, 3),
        )  # fmt: skip
        x = torch.randn(9, 2, 6, 6)
    elif kind == "transformer":
        module = Transformer()
        x, y = torch.randint(0, 7, (5, 4)), torch.randint(0, 7, (5, 4))
    elif kind == "batch-norm":
        module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
        module(torch.randn(30, 4))
        module.eval()
    else:
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        second.weight = first.weight
        module = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Linear(4, 3))
    module = module.to(DOUBLE)
    x = x.to(DOUBLE) if x.is_floating_point() else x
    y = y.to(DOUBLE) if y.is_floating_point() else y
    return Problem(Objective(module, loss), (x, y))


@pytest.fixture(params=KINDS)
def problem(request: pytest.FixtureRequest) -> Problem:
    return make(request.param)


@pytest.fixture
def mlp() -> Problem:
    return make("mlp")


@pytest.fixture
def build():
    """A problem by its kind."""
    return make
