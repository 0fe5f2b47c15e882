"""Functions of an operator agree with those of its eigenvalues; many shifts cost one basis."""

import pytest
import torch

from covector.errors import ArgumentError, MismatchError, NonFiniteError
from covector.linalg import DenseOperator, FunctionOperator, apply_function, shifted_solves

N = 60
Q = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
VALUES = torch.linspace(-2, 3, N, dtype=torch.float64)
B = torch.randn(N, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def operator(values: torch.Tensor) -> DenseOperator:
    matrix = (Q * values) @ Q.mT
    return DenseOperator((matrix + matrix.mT) / 2, symmetric=True)


FUNCTIONS = {
    "exponential": torch.exp,
    "inverse absolute": lambda x: 1 / x.abs().clamp_min(0.1),
    "inverse fourth root": lambda x: x.abs().clamp_min(0.5) ** -0.25,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_steps_are_exact(name):
    f = FUNCTIONS[name]
    found = apply_function(operator(VALUES), f, B, steps=N)
    torch.testing.assert_close(found, (Q * f(VALUES)) @ Q.mT @ B, atol=1e-9, rtol=1e-9)


def test_smooth_functions_converge_long_before():
    found = apply_function(operator(VALUES), torch.exp, B[:, 0], steps=16)
    torch.testing.assert_close(found, (Q * VALUES.exp()) @ Q.mT @ B[:, 0], atol=1e-9, rtol=0)


def test_polynomials_are_exact_at_their_degree_plus_one():
    found = apply_function(operator(VALUES), lambda x: x**3 - 2 * x, B, steps=4)
    torch.testing.assert_close(found, (Q * (VALUES**3 - 2 * VALUES)) @ Q.mT @ B, atol=1e-11, rtol=0)


def test_few_different_eigenvalues_are_exact_and_the_inverse_is_never_asked_at_zero():
    values = torch.tensor([4.0, 9.0], dtype=torch.float64).repeat(N // 2)
    b = torch.stack([Q[:, 0], Q[:, 0] + Q[:, 1]], dim=1)  # the first run ends a step before the second
    found = apply_function(operator(values), lambda x: x**-0.5, b, steps=5)
    torch.testing.assert_close(found, (Q * values**-0.5) @ Q.mT @ b, atol=1e-10, rtol=0)


def test_shifted_systems_share_a_basis():
    op = operator(VALUES)
    shifts = [2.5, 4.0, 100.0]
    found = shifted_solves(op, B[:, 0], shifts, steps=40)
    assert op.products == 40
    for i, shift in enumerate(shifts):
        exact = torch.linalg.solve(op.matrix + shift * torch.eye(N), B[:, 0])
        torch.testing.assert_close(found.x[i], exact, atol=1e-6, rtol=0)
        left = B[:, 0] - op.matrix @ found.x[i] - shift * found.x[i]
        assert float(found.residuals[i]) == pytest.approx(float(left.norm() / B[:, 0].norm()), abs=1e-12)
        assert float(found.norms[i]) == pytest.approx(float(found.x[i].norm()), rel=1e-10)


def test_params_go_in_and_come_out():
    like = {"w": torch.zeros(2, 2), "b": torch.zeros(2)}
    op = FunctionOperator(lambda v: 4 * v, (6, 6), symmetric=True, like=like)
    found = apply_function(op, torch.sqrt, {"w": torch.ones(2, 2), "b": torch.zeros(2)})
    torch.testing.assert_close(found, {"w": torch.full((2, 2), 2.0), "b": torch.zeros(2)})


def test_zero_goes_to_zero():
    assert apply_function(operator(VALUES), torch.exp, torch.zeros(N)).abs().max() == 0


def test_what_cannot_be_is_refused():
    op = operator(VALUES)
    with pytest.raises(NonFiniteError, match="f"):
        apply_function(op, lambda x: x.log(), B)
    with pytest.raises(MismatchError, match="b"):
        apply_function(op, torch.exp, torch.zeros(3))
    with pytest.raises(MismatchError, match="one vector"):
        shifted_solves(op, B, [1.0])
    with pytest.raises(ArgumentError, match="shifts"):
        shifted_solves(op, B[:, 0], [])
