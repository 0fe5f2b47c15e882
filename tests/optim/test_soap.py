"""SOAP and SPlus against the published algorithms written out, and in their limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.linalg import msign
from covector.optim import SOAP, Adam, SPlus

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def run(make: Any, shape: tuple[int, ...] = (6, 4), grads: int = 12, first: int = 0, **options: Any) -> Tensor:
    p = nn.Parameter(torch.zeros(*shape, dtype=F64))
    optimizer = make([p], **options)
    for step in range(first, grads):
        p.grad = draw(*shape, seed=step)
        optimizer.step()
    return p.detach()


def descending(matrix: Tensor) -> Tensor:
    return torch.linalg.eigh(matrix).eigenvectors.flip(1)


def published(
    steps: int, refresh: int, method: str, variance: str = "full", b1: float = 0.9, b2: float = 0.8
) -> Tensor:
    """SOAP for one 5 x 5 matrix, momentum kept in the parameters' coordinates."""
    w, m = torch.zeros(5, 5, dtype=F64), torch.zeros(5, 5, dtype=F64)
    v = torch.zeros(5, 5, dtype=F64)
    rows, columns = torch.zeros(5, 1, dtype=F64), torch.zeros(1, 5, dtype=F64)
    g = draw(5, 5, seed=0)
    left, right = (1 - b2) * g @ g.T, (1 - b2) * g.T @ g
    ql, qr = descending(left), descending(right)
    for s in range(1, steps):
        g = draw(5, 5, seed=s)
        m = b1 * m + (1 - b1) * g
        rotated = ql.T @ g @ qr
        v = b2 * v + (1 - b2) * rotated**2
        rows = b2 * rows + (1 - b2) * (rotated**2).mean(1, keepdim=True)
        columns = b2 * columns + (1 - b2) * (rotated**2).mean(0, keepdim=True)
        second = {"full": v, "rows": rows, "lowrank": rows * columns / rows.mean()}[variance]
        u = (ql.T @ m @ qr) / (1 - b1**s) / ((second / (1 - b2**s)).sqrt() + 1e-8)
        w = w - 0.01 * ql @ u @ qr.T
        left, right = b2 * left + (1 - b2) * g @ g.T, b2 * right + (1 - b2) * g.T @ g
        if s % refresh == 0 and method == "eigh":
            ql, qr = descending(left), descending(right)
        elif s % refresh == 0:
            order = torch.diag(ql.T @ left @ ql).argsort(descending=True)
            ql, v, rows = torch.linalg.qr(left @ ql[:, order])[0], v[order], rows[order]
            order = torch.diag(qr.T @ right @ qr).argsort(descending=True)
            qr, v, columns = torch.linalg.qr(right @ qr[:, order])[0], v[:, order], columns[:, order]
    return w


@pytest.mark.parametrize("variance", ["full", "lowrank", "rows"])
@pytest.mark.parametrize("method", ["qr", "eigh"])
def test_soap_is_the_published_algorithm(method: str, variance: str) -> None:
    settings = {"lr": 0.01, "betas": (0.9, 0.8), "weight_decay": 0.0}
    ours = run(SOAP, (5, 5), refresh=3, method=method, variance=variance, **settings)
    torch.testing.assert_close(ours, published(12, 3, method, variance))


def test_soap_without_rotation_is_adam() -> None:
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.0}
    torch.testing.assert_close(run(SOAP, max_dim=0, **settings), run(Adam, first=1, **settings))


def test_splus_without_rotation_is_signum() -> None:
    m, w = torch.zeros(6, 4, dtype=F64), torch.zeros(6, 4, dtype=F64)
    for step in range(1, 12):
        m = 0.9 * m + 0.1 * draw(6, 4, seed=step)
        w = w - 0.1 * m.sign() * 2 / 10
    torch.testing.assert_close(run(SPlus, max_dim=0), w)


def test_splus_takes_signs_in_the_eigenbasis() -> None:
    m, w = torch.zeros(5, 5, dtype=F64), torch.zeros(5, 5, dtype=F64)
    g = draw(5, 5)
    left, right = 0.2 * g @ g.T, 0.2 * g.T @ g
    ql, qr = descending(left), descending(right)
    for s in range(1, 8):
        g = draw(5, 5, seed=s)
        m = 0.9 * m + 0.1 * g
        w = w - 0.1 * ql @ (ql.T @ m @ qr).sign() @ qr.T * 2 / 10
        left, right = 0.8 * left + 0.2 * g @ g.T, 0.8 * right + 0.2 * g.T @ g
        if s % 2 == 0:
            ql, qr = descending(left), descending(right)
    torch.testing.assert_close(run(SPlus, (5, 5), grads=8, refresh=2, betas=(0.9, 0.8)), w)


@pytest.mark.parametrize("method", ["qr", "eigh"])
@pytest.mark.parametrize("max_dim", [100, 5], ids=["two-sided", "one-sided"])
def test_on_one_gradient_soap_is_the_polar_factor(method: str, max_dim: int) -> None:
    p = nn.Parameter(torch.zeros(6, 4, dtype=F64))
    optimizer = SOAP([p], lr=1.0, betas=(0.0, 0.0), weight_decay=0.0, refresh=1, method=method, max_dim=max_dim)
    g = draw(6, 4)
    for _ in range(3):
        p.grad = g.clone()
        update = optimizer.update()[p]
    if max_dim == 100:
        torch.testing.assert_close(update, -msign(g, "svd"), rtol=0.0, atol=1e-6)
    else:  # only the columns are rotated: the sign of G QR
        q = descending(g.T @ g)
        torch.testing.assert_close(update, -(g @ q).sign() @ q.T, rtol=0.0, atol=1e-5)


def test_on_one_gradient_splus_is_the_polar_factor_where_zero_is_zero() -> None:
    g = torch.diag(torch.tensor([3.0, -2.0, 1.0], dtype=F64))  # a basis without rounding errors
    p = nn.Parameter(torch.zeros(3, 3, dtype=F64))
    optimizer = SPlus([p], lr=3.0, betas=(0.0, 0.0), refresh=1)
    for _ in range(3):
        p.grad = g.clone()
        update = optimizer.update()[p]
    torch.testing.assert_close(update, -msign(g, "svd"))


def test_the_first_step_moves_no_matrix() -> None:
    p, b = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3))
    optimizer = SOAP([p, b], weight_decay=0.0)
    p.grad, b.grad = torch.randn(3, 3), torch.ones(3)
    optimizer.step()
    assert bool((p == 1).all())
    assert bool((b < 1).all())


def test_momentum_is_carried_over_exactly_by_every_refresh() -> None:
    p = nn.Parameter(torch.zeros(6, 4, dtype=F64))
    optimizer = SOAP([p], betas=(0.9, 0.9), refresh=2)
    m = torch.zeros(6, 4, dtype=F64)
    for step in range(9):
        p.grad = draw(6, 4, seed=step)
        optimizer.step()
        m = 0.9 * m + 0.1 * p.grad if step else m
        state = optimizer.state[p]
        plain = state["left_basis"] @ state["exp_avg"] @ state["right_basis"].mT
        torch.testing.assert_close(plain[0], m)
        for side in ("left_basis", "right_basis"):
            q = state[side][0]
            torch.testing.assert_close(q.T @ q, torch.eye(len(q), dtype=F64))


def test_rounding_errors_of_the_rotation_are_not_blown_up() -> None:
    u, v = draw(6, 1).float(), draw(1, 5, seed=1).float()
    p = nn.Parameter(torch.zeros(6, 5))
    optimizer = SOAP([p], lr=1.0, betas=(0.0, 0.0), weight_decay=0.0)
    for _ in range(3):
        p.grad = u @ v
        update = optimizer.update()[p]
    torch.testing.assert_close(update, -(u @ v) / (u.norm() * v.norm()), rtol=1e-4, atol=1e-5)


def test_gates_have_bases_of_their_own() -> None:
    together, apart = nn.LSTM(3, 4, bias=False).double(), [nn.Parameter(torch.zeros(4, 3, dtype=F64)) for _ in range(4)]
    one, four = SOAP(together, refresh=2), SOAP(apart, refresh=2)
    weight = together.weight_ih_l0
    start = weight.detach().clone()
    for p, gate in zip(apart, start.chunk(4), strict=True):
        p.data.copy_(gate)
    for step in range(6):
        weight.grad = draw(16, 3, seed=step)
        for p, gate in zip(apart, weight.grad.chunk(4), strict=True):
            p.grad = gate.clone()
        one.step()
        four.step()
    torch.testing.assert_close(weight.detach(), torch.cat([p.detach() for p in apart]))


@pytest.mark.parametrize(
    "options", [{"refresh": 0}, {"method": "svd"}, {"variance": "none"}, {"betas": (1.0, 0.9)}, {"statistics_beta": 1.5}], ids=str
)  # fmt: skip
def test_what_cannot_work_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        SOAP([nn.Parameter(torch.zeros(2, 2))], **options)
