"""CG and MINRES solve what a dense solver solves; preconditioners save steps; indefinite systems are recognized."""

from itertools import pairwise

import pytest
import torch

from covector.errors import ArgumentError, MismatchError
from covector.linalg import DenseOperator, FunctionOperator, cg, minres, nystrom

N = 80
G = torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Q = torch.linalg.qr(G)[0]
POSITIVE = (Q * torch.linspace(0.5, 5, N, dtype=torch.float64)) @ Q.mT
SIGNS = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(N // 2)
INDEFINITE = (Q * (torch.linspace(0.5, 5, N, dtype=torch.float64) * SIGNS)) @ Q.mT
B = torch.randn(N, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def operator(matrix: torch.Tensor, **options) -> DenseOperator:
    return DenseOperator((matrix + matrix.mT) / 2, symmetric=True, **options)


@pytest.mark.parametrize("solver", [cg, minres])
def test_positive_systems_side_by_side(solver):
    found = solver(operator(POSITIVE), B, shift=0.3, tol=1e-10)
    torch.testing.assert_close(
        found.x, torch.linalg.solve(POSITIVE + 0.3 * torch.eye(N, dtype=torch.float64), B), atol=1e-8, rtol=0
    )
    assert found.converged
    assert found.residual <= 1e-10
    one = solver(operator(POSITIVE), B[:, 0], shift=0.3, tol=1e-10)
    torch.testing.assert_close(one.x, found.x[:, 0], atol=1e-8, rtol=0)


def test_cg_ends_after_as_many_steps_as_there_are_different_eigenvalues():
    op = DenseOperator(torch.diag(torch.tensor([1.0, 3.0, 7.0], dtype=torch.float64).repeat(20)))
    assert cg(op, torch.ones(60, dtype=torch.float64), tol=1e-12).steps == 3
    assert minres(op, torch.ones(60, dtype=torch.float64), tol=1e-12).steps == 3


def test_minres_solves_indefinite_systems_with_a_residual_that_never_grows():
    exact = torch.linalg.solve(INDEFINITE, B[:, 0])
    found = minres(operator(INDEFINITE), B[:, 0], tol=1e-9, max_steps=400)
    torch.testing.assert_close(found.x, exact, atol=1e-7, rtol=0)
    residuals = [minres(operator(INDEFINITE), B[:, 0], tol=1e-9, max_steps=steps).residual for steps in range(1, 40)]
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(residuals))


def test_minres_has_the_smallest_residual_of_the_krylov_space():
    op, b = operator(INDEFINITE), B[:, 0]
    krylov = torch.stack([torch.linalg.matrix_power(INDEFINITE, j) @ b for j in range(6)], dim=1)
    best = torch.linalg.lstsq(INDEFINITE @ krylov, b).solution
    residual = float((b - INDEFINITE @ krylov @ best).norm() / b.norm())
    assert minres(op, b, tol=1e-12, max_steps=6).residual == pytest.approx(residual, rel=1e-6)


def test_cg_says_that_a_system_is_indefinite():
    with pytest.raises(ArgumentError, match=r"curvature.*minres"):
        cg(operator(INDEFINITE), B[:, 0])
    stopped = cg(operator(INDEFINITE), B[:, 0], on_indefinite="stop")
    assert stopped.indefinite
    assert not stopped.converged
    assert float(stopped.x @ B[:, 0]) > 0  # a direction of descent, when b is the negative gradient
    first = cg(DenseOperator(-torch.eye(3)), torch.ones(3), on_indefinite="stop")
    assert torch.equal(first.x, torch.ones(3))
    assert cg(operator(INDEFINITE), B[:, 0], shift=5.1, tol=1e-8).converged


def test_singular_systems_give_least_squares_and_say_so():
    op = DenseOperator(torch.diag(torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64)))
    found = minres(op, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    assert not found.converged
    torch.testing.assert_close(found.x[:2], torch.tensor([1.0, -1.0], dtype=torch.float64), atol=1e-8, rtol=0)
    assert minres(op, torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)).converged


def test_a_good_start_saves_steps_and_zero_needs_none():
    op = operator(POSITIVE)
    exact = torch.linalg.solve(POSITIVE, B)
    for solver in (cg, minres):
        assert solver(op, B, exact + 1e-7, tol=1e-5).steps == 0
        assert solver(op, B, exact + 1e-3, tol=1e-5).steps < solver(op, B, tol=1e-5).steps
        assert solver(op, torch.zeros(N)).x.abs().max() == 0


@pytest.mark.parametrize("solver", [cg, minres])
def test_a_nystrom_preconditioner_saves_steps(solver):
    values = torch.cat([torch.logspace(4, 1, 20), torch.full((60,), 0.01)]).double()
    op = operator((Q * values) @ Q.mT, positive=True)
    plain = solver(op, B[:, 0], shift=0.1, tol=1e-8, max_steps=400)
    precondition = nystrom(op, 30).preconditioner(0.1)
    helped = solver(op, B[:, 0], shift=0.1, preconditioner=precondition, tol=1e-8, max_steps=400)
    torch.testing.assert_close(helped.x, plain.x, atol=1e-4, rtol=1e-4)
    assert helped.steps < plain.steps / 4


def test_params_go_in_and_come_out():
    like = {"w": torch.zeros(2, 2), "b": torch.zeros(2)}
    op = FunctionOperator(lambda v: 2 * v, (6, 6), symmetric=True, like=like)
    found = cg(op, {"w": torch.ones(2, 2), "b": torch.ones(2)})
    torch.testing.assert_close(found.x["w"], torch.full((2, 2), 0.5))
    torch.testing.assert_close(minres(op, {"w": torch.ones(2, 2), "b": torch.ones(2)}).x["b"], torch.full((2,), 0.5))


def test_an_operator_that_returns_its_argument_is_not_changed():
    class Identity(DenseOperator):
        def rows(self, block):
            return block

    op, b = Identity(torch.eye(4)), torch.ones(4)
    torch.testing.assert_close(cg(op, b, shift=1.0).x, torch.full((4,), 0.5))
    torch.testing.assert_close(minres(op, b, shift=1.0).x, torch.full((4,), 0.5))
    assert torch.equal(b, torch.ones(4))


def test_what_does_not_fit_is_refused():
    op = operator(POSITIVE)
    with pytest.raises(MismatchError, match="b"):
        cg(op, torch.ones(3))
    with pytest.raises(MismatchError, match="x0"):
        cg(op, B, B[:, 0])
    with pytest.raises(MismatchError, match="preconditioner"):
        minres(op, B, preconditioner=DenseOperator(torch.eye(3)))
    with pytest.raises(ArgumentError, match="preconditioner"):
        minres(op, B, preconditioner=DenseOperator(-torch.eye(N, dtype=torch.float64)))
    with pytest.raises(ArgumentError, match="symmetric"):
        cg(DenseOperator(G), B)
    with pytest.raises(ArgumentError, match="on_indefinite"):
        cg(op, B, on_indefinite="ignore")
