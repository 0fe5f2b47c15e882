"""eigsh agrees with a dense decomposition, on every end, restarted, warm, and where eigenvalues repeat."""

import pytest
import torch

from covector.errors import ArgumentError, MismatchError, NonFiniteError
from covector.linalg import DenseOperator, eigsh

POWER = 1 / torch.arange(1, 301, dtype=torch.float64)


def symmetric(values: torch.Tensor, seed: int = 0) -> DenseOperator:
    n = len(values)
    q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    matrix = (q * values.double()) @ q.mT
    return DenseOperator(((matrix + matrix.mT) / 2).to(values.dtype), symmetric=True)


SIGNED = torch.cat([POWER[:100], -0.9 * POWER[:60]])


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("LA", [1.0, 1 / 2, 1 / 3, 1 / 4]),
        ("SA", [-0.9, -0.45, -0.3, -0.225]),
        ("LM", [1.0, -0.9, 0.5, -0.45]),
        ("BE", [1.0, -0.9, 0.5, -0.45]),
    ],
)
def test_each_end_of_the_spectrum_is_found(which, expected):
    op = symmetric(SIGNED)
    found = eigsh(op, 4, which, tol=1e-6)
    assert found.converged
    torch.testing.assert_close(found.values, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)
    left = (op.matrix @ found.vectors - found.vectors * found.values).norm(dim=0)
    torch.testing.assert_close(left, found.residuals, atol=1e-10, rtol=0)
    torch.testing.assert_close(found.vectors.mT @ found.vectors, torch.eye(4, dtype=torch.float64), atol=1e-10, rtol=0)
    assert found.products == op.products


def test_a_restarted_search_in_a_small_basis_converges_to_the_same():
    op = symmetric(torch.rand(400, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    exact = torch.linalg.eigvalsh(op.matrix).flip(0)[:3]
    found = eigsh(op, 3, tol=1e-5, size=12)
    assert found.converged
    assert found.products > 3 * 12
    torch.testing.assert_close(found.values, exact, atol=1e-7, rtol=0)


def test_float32_restarts_keep_the_vectors_orthonormal():
    op = symmetric(torch.rand(400, generator=torch.Generator().manual_seed(2)))
    found = eigsh(op, 5, tol=1e-3)
    assert found.converged
    assert found.products > 50
    assert (found.vectors.mT @ found.vectors - torch.eye(5)).abs().max() < 2e-6


@pytest.mark.parametrize("block", [1, 3])
def test_all_eigenvalues_of_a_small_operator_even_repeated_ones(block):
    values = torch.tensor([2.0, 2.0, 2.0, 0.0, 0.0, -1.0], dtype=torch.float64)
    found = eigsh(symmetric(values), 6, block=block)
    torch.testing.assert_close(found.values, values, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.vectors.mT @ found.vectors, torch.eye(6, dtype=torch.float64), atol=1e-12, rtol=0)


def test_a_block_finds_every_copy_of_a_repeated_eigenvalue():
    values = torch.cat([torch.full((3,), 5.0), torch.rand(200, generator=torch.Generator().manual_seed(0))]).double()
    found = eigsh(symmetric(values), 4, tol=1e-6, block=3)
    torch.testing.assert_close(found.values[:3], torch.full((3,), 5.0, dtype=torch.float64), atol=1e-9, rtol=0)
    assert found.values[3] < 1.0
    assert found.converged


def test_a_warm_start_costs_few_products():
    op = symmetric(POWER)
    cold = eigsh(op, 5, tol=1e-4)
    noise = torch.randn(300, 300, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1e-5
    moved = DenseOperator(op.matrix + noise + noise.mT, symmetric=True)
    one = eigsh(moved, 1, start=cold.vectors[:, 0])
    assert one.products <= 2
    warm = eigsh(moved, 5, tol=1e-4, start=cold.vectors)
    assert warm.converged
    assert warm.products <= 12 < eigsh(moved, 5, tol=1e-4).products
    torch.testing.assert_close(warm.values, torch.linalg.eigvalsh(moved.matrix).flip(0)[:5], atol=1e-7, rtol=0)
    assert eigsh(moved, 5, tol=0.05, start=cold.vectors, block=5).products == 5


def test_the_zero_operator_and_a_lone_number_have_eigenvalues():
    found = eigsh(DenseOperator(torch.zeros(30, 30)), 2)
    assert found.converged
    assert found.values.tolist() == [0.0, 0.0]
    assert eigsh(DenseOperator(torch.tensor([[3.0]]))).values.tolist() == [3.0]


def test_too_few_products_are_said_and_what_is_known_is_returned():
    found = eigsh(symmetric(torch.rand(300, dtype=torch.float64)), 3, tol=1e-8, max_products=10)
    assert not found.converged
    assert found.products == 10
    assert found.values.shape == (3,)
    assert (found.residuals > 0).any()


def test_what_cannot_be_searched_is_refused():
    op = DenseOperator(torch.eye(9))
    with pytest.raises(ArgumentError, match="k=10"):
        eigsh(op, 10)
    with pytest.raises(ArgumentError, match="which='XX'"):
        eigsh(op, which="XX")
    with pytest.raises(ArgumentError, match=r"tol=2\.0"):
        eigsh(op, tol=2.0)
    with pytest.raises(ArgumentError, match="size=4"):
        eigsh(op, 4, size=4)
    with pytest.raises(MismatchError, match="start"):
        eigsh(op, start=torch.ones(3))
    with pytest.raises(ArgumentError, match="symmetric"):
        eigsh(DenseOperator(torch.tensor([[0.0, 1.0], [2.0, 0.0]])))
    with pytest.raises(NonFiniteError, match="eigsh"):
        eigsh(DenseOperator(torch.full((3, 3), float("inf")), symmetric=True))
