"""The Nystrom approximation is exact for low rank, never exceeds its operator, and refuses negative curvature."""

import pytest
import torch

from covector.errors import ArgumentError
from covector.linalg import DenseOperator, nystrom

N = 50
Q = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]


def operator(values: torch.Tensor) -> DenseOperator:
    matrix = (Q[:, : len(values)] * values) @ Q[:, : len(values)].mT
    return DenseOperator((matrix + matrix.mT) / 2, symmetric=True, positive=True)


def test_low_rank_is_exact():
    op = operator(torch.tensor([5.0, 2.0, 1.0], dtype=torch.float64))
    low = nystrom(op, 6)
    torch.testing.assert_close(low.dense(), op.matrix, atol=1e-10, rtol=0)
    torch.testing.assert_close(low.values[:3], torch.tensor([5.0, 2.0, 1.0], dtype=torch.float64), atol=1e-10, rtol=0)
    assert op.products == 6


def test_it_never_exceeds_the_operator():
    op = operator(1 / torch.arange(1, N + 1, dtype=torch.float64))
    rest = torch.linalg.eigvalsh(op.matrix - nystrom(op, 12).dense())
    assert rest.min() > -1e-10
    assert rest.max() < 0.5


def test_the_preconditioner_is_the_inverse_up_to_the_weakest_known_curvature():
    op = operator(torch.tensor([5.0, 2.0, 1.0], dtype=torch.float64))
    low = nystrom(op, 3)
    eye = torch.eye(N, dtype=torch.float64)
    expected = (float(low.values[-1]) + 0.5) * torch.linalg.inv(op.matrix + 0.5 * eye)
    inside = Q[:, :3]
    torch.testing.assert_close(
        inside.mT @ low.preconditioner(0.5).dense() @ inside, inside.mT @ expected @ inside, atol=1e-8, rtol=0
    )


def test_negative_curvature_and_impossible_ranks_are_refused():
    with pytest.raises(ArgumentError, match="curvature"):
        nystrom(DenseOperator(-torch.eye(5)), 2)
    with pytest.raises(ArgumentError, match="rank=9"):
        nystrom(DenseOperator(torch.eye(5)), 9)
    with pytest.raises(ArgumentError, match="shift"):
        nystrom(DenseOperator(torch.eye(5)), 2).preconditioner(-1.0)
