"""Lanczos tridiagonalizes, stays orthogonal, stops on invariant spaces, and repeats itself exactly."""

import pytest
import torch

from covector.errors import ArgumentError, MismatchError, NonFiniteError
from covector.linalg import DenseOperator, FunctionOperator, lanczos


def symmetric(values: torch.Tensor, seed: int = 0) -> DenseOperator:
    n = len(values)
    q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    matrix = (q * values.double()) @ q.mT
    return DenseOperator(((matrix + matrix.mT) / 2).to(values.dtype), symmetric=True)


def test_the_basis_is_orthonormal_and_makes_the_operator_tridiagonal():
    op = symmetric(torch.linspace(-1, 3, 60, dtype=torch.float64))
    run = lanczos(op, steps=25)
    torch.testing.assert_close(run.basis @ run.basis.mT, torch.eye(25, dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(run.basis @ op.matrix @ run.basis.mT, run.tridiagonal(), atol=1e-13, rtol=0)
    left = op.matrix @ run.basis[-1] - run.tridiagonal()[-1] @ run.basis
    torch.testing.assert_close(left, run.beta[-1] * run.residual, atol=1e-13, rtol=0)
    assert op.products == 25


def test_float32_keeps_its_orthogonality_long_after_a_ritz_value_has_converged():
    op = symmetric(torch.cat([torch.tensor([1e3]), torch.rand(499, generator=torch.Generator().manual_seed(1))]))
    run = lanczos(op, steps=60)
    assert (run.basis @ run.basis.mT - torch.eye(60)).abs().max() < 2e-6
    assert (run.ritz()[0] > 500).sum() == 1  # no ghost copies
    assert run.alpha.dtype == run.beta.dtype == torch.float64


def test_ritz_residuals_are_the_residuals():
    op = symmetric(torch.linspace(0, 1, 40, dtype=torch.float64))
    values, vectors, residuals = lanczos(op, steps=12).ritz()
    left = op.matrix @ vectors - vectors * values
    torch.testing.assert_close(left.norm(dim=0), residuals, atol=1e-13, rtol=0)


def test_an_invariant_space_ends_the_run():
    op = DenseOperator(torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 5.0])))
    start = torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0, 1.0])
    run = lanczos(op, start, steps=6)
    assert len(run.alpha) == 3
    assert run.beta[-1] == 0
    torch.testing.assert_close(run.ritz()[0], torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64), atol=1e-6, rtol=0)
    assert len(lanczos(DenseOperator(torch.zeros(5, 5)), steps=4).alpha) == 1


def test_the_seed_decides_and_nothing_else():
    op = symmetric(torch.linspace(0, 1, 30))
    assert torch.equal(lanczos(op, steps=9, seed=3).alpha, lanczos(op, steps=9, seed=3).alpha)
    assert not torch.equal(lanczos(op, steps=9, seed=3).alpha, lanczos(op, steps=9, seed=4).alpha)


def test_params_start_a_run_and_half_precision_is_kept_in_float32():
    like = {"w": torch.zeros(2, 2), "b": torch.zeros(2)}
    op = FunctionOperator(lambda v: 2 * v, (6, 6), dtype=torch.bfloat16, symmetric=True, like=like)
    run = lanczos(op, {"w": torch.ones(2, 2), "b": torch.ones(2)}, steps=3)
    assert run.basis.dtype == torch.float32
    assert abs(float(run.alpha[0]) - 2) < 0.02


def test_what_cannot_be_tridiagonalized_is_refused():
    with pytest.raises(ArgumentError, match="symmetric"):
        lanczos(DenseOperator(torch.tensor([[0.0, 1.0], [2.0, 0.0]])))
    with pytest.raises(MismatchError, match="square"):
        lanczos(DenseOperator(torch.zeros(2, 3)))
    with pytest.raises(MismatchError, match="start"):
        lanczos(DenseOperator(torch.eye(3)), torch.ones(4))
    with pytest.raises(ArgumentError, match="steps=0"):
        lanczos(DenseOperator(torch.eye(3)), steps=0)
    with pytest.raises(NonFiniteError, match="lanczos"):
        lanczos(DenseOperator(torch.full((3, 3), float("nan")), symmetric=True))
