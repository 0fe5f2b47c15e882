"""A LinearOperator multiplies as the matrix it stands for, in every form a vector comes in."""

import pytest
import torch

from covector.errors import ArgumentError, MismatchError
from covector.linalg import DenseOperator, FunctionOperator

MATRIX = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SQUARE = MATRIX @ MATRIX.mT


def test_products_are_those_of_the_matrix():
    op = DenseOperator(MATRIX)
    vector, block = torch.randn(4, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(op @ vector, MATRIX @ vector)
    torch.testing.assert_close(op @ block, MATRIX @ block)
    torch.testing.assert_close(op.T @ vector[:3], MATRIX.mT @ vector[:3])
    assert op.products == 6


def test_sums_multiples_shifts_and_products_of_operators():
    a, b = DenseOperator(SQUARE), DenseOperator(2 * torch.eye(3, dtype=torch.float64))
    found = (2.0 * (a @ b) - a + b).shift(0.5).dense()
    torch.testing.assert_close(found, 4 * SQUARE - SQUARE + 2.5 * torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close((a @ DenseOperator(MATRIX)).T.dense(), (SQUARE @ MATRIX).mT)


def test_dense_in_chunks_is_the_matrix():
    torch.testing.assert_close(FunctionOperator(lambda v: MATRIX @ v, (3, 4), dtype=torch.float64).dense(3), MATRIX)


def test_params_go_in_and_out_by_name():
    like = {"w": torch.zeros(1, 2, dtype=torch.float64), "b": torch.zeros(1, dtype=torch.float64)}
    op = FunctionOperator(lambda v: SQUARE @ v, (3, 3), dtype=torch.float64, like=like)
    found = op @ {"w": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([3.0])}
    expected = SQUARE @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(torch.cat([found["w"][0], found["b"]]), expected)


def test_scipy_sees_the_same_products():
    op = DenseOperator(MATRIX).to_scipy()
    block = torch.randn(4, 2, dtype=torch.float64).numpy()
    torch.testing.assert_close(torch.from_numpy(op @ block), MATRIX @ torch.from_numpy(block))
    torch.testing.assert_close(torch.from_numpy(op.rmatvec(block[:3, 0])), MATRIX.mT @ torch.from_numpy(block[:3, 0]))


def test_what_cannot_be_multiplied_is_refused_by_its_shape():
    with pytest.raises(MismatchError, match=r"\(3, 4\).*\(3,\)"):
        DenseOperator(MATRIX) @ torch.zeros(3)
    with pytest.raises(MismatchError, match="identity"):
        DenseOperator(MATRIX).shift(1.0)
    with pytest.raises(ArgumentError, match="no parameter names"):
        DenseOperator(SQUARE) @ {"w": torch.zeros(3)}
    with pytest.raises(ArgumentError, match="transposed_rows"):
        FunctionOperator(lambda v: v[:3], (3, 4)).T @ torch.zeros(3)
