"""Orthonormal bases and the power iteration against LAPACK."""

from __future__ import annotations

import pytest
import torch

from covector.errors import ArgumentError, MismatchError, NonFiniteError
from covector.linalg import orthonormalize, power_iteration


def tall(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", ["qr", "cholesky"])
@pytest.mark.parametrize("shape", [(9, 4), (4, 4), (3, 9, 4), (2, 3, 5, 1)])
def test_columns_are_orthonormal_and_span_the_same(method, shape):
    matrix = tall(*shape)
    q = orthonormalize(matrix, method)
    assert torch.allclose(q.mT @ q, torch.eye(shape[-1], dtype=torch.float64).expand_as(q.mT @ q), atol=1e-12)
    assert torch.allclose(q @ (q.mT @ matrix), matrix, atol=1e-12)


def test_the_basis_is_unique_whatever_the_method():
    matrix = tall(5, 20, 6)
    assert torch.allclose(orthonormalize(matrix, "qr"), orthonormalize(matrix, "cholesky"), atol=1e-11)


def test_two_rounds_are_orthonormal_to_rounding_where_one_is_not():
    matrix = (
        tall(200, 20, dtype=torch.float32) * torch.logspace(0, -2.5, 20) @ tall(20, 20, seed=1, dtype=torch.float32)
    )
    q = orthonormalize(matrix, "cholesky")
    once = torch.linalg.solve_triangular(
        torch.linalg.cholesky(matrix.mT @ matrix, upper=True), matrix, upper=True, left=False
    )
    errors = [(x.mT @ x - torch.eye(20)).abs().max().item() for x in (q, once)]
    assert errors[0] < 1e-6
    assert errors[1] > 20 * errors[0]


def test_dependent_columns_fall_back_to_qr():
    matrix = tall(8, 2, dtype=torch.float32).repeat(1, 2)
    q = orthonormalize(matrix, "cholesky")
    assert torch.allclose(q.mT @ q, torch.eye(4), atol=1e-5)


def test_scale_does_not_matter():
    matrix = tall(6, 3, dtype=torch.float32)
    for method in ("qr", "cholesky"):
        assert torch.allclose(orthonormalize(matrix * 2.0**-80, method), orthonormalize(matrix, method), atol=1e-6)


def test_wide_matrices_and_nan_are_refused():
    with pytest.raises(ArgumentError, match=r"pass matrix\.mT"):
        orthonormalize(torch.zeros(2, 3))
    with pytest.raises(NonFiniteError):
        orthonormalize(torch.tensor([[float("nan")]]))
    assert orthonormalize(torch.zeros(4, 0)).shape == (4, 0)


@pytest.mark.parametrize("shape", [(7, 7), (5, 9), (9, 5), (2, 3, 6, 4)])
def test_power_iteration_finds_the_largest_singular_value(shape):
    matrix = tall(*shape, seed=3)
    value, vector = power_iteration(matrix, steps=500)
    assert torch.allclose(value, torch.linalg.matrix_norm(matrix, 2), rtol=1e-6)
    assert torch.allclose(torch.linalg.vector_norm(matrix @ vector.unsqueeze(-1), dim=(-2, -1)), value)


def test_power_iteration_approaches_from_below_and_repeats():
    matrix = tall(30, 30)
    exact = torch.linalg.matrix_norm(matrix, 2)
    values = [power_iteration(matrix, steps)[0] for steps in (1, 4, 16, 64)]
    assert sorted(values) == values
    assert values[-1] <= exact * (1 + 1e-12)
    assert torch.equal(power_iteration(matrix, 4)[0], values[1])


def test_a_warm_start_needs_one_step():
    matrix = tall(20, 20)
    exact, vector = power_iteration(matrix, 2000)
    assert torch.allclose(power_iteration(matrix, 1, vector=vector)[0], exact, rtol=1e-9)


def test_power_iteration_of_zero_and_of_huge_matrices():
    value, vector = power_iteration(torch.zeros(3, 4))
    assert value.item() == 0.0
    assert torch.linalg.vector_norm(vector).item() == pytest.approx(1.0)
    assert power_iteration(torch.full((2, 2), 1e30))[0].item() == pytest.approx(2e30, rel=1e-6)


def test_a_start_of_the_wrong_length_is_refused():
    with pytest.raises(MismatchError):
        power_iteration(torch.zeros(3, 4), vector=torch.ones(3))
    with pytest.raises(ArgumentError, match="steps=0"):
        power_iteration(torch.eye(2), 0)
