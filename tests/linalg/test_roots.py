"""Inverse roots, square roots and the Lyapunov equation against closed forms, float64 and finite differences."""

from __future__ import annotations

import numpy
import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck, gradgradcheck

from covector.errors import ArgumentError, MismatchError, NonFiniteError, UnsupportedError
from covector.linalg import inv_root, inv_sqrtm, lyapunov, sqrtm, sqrtm_residual
from covector.linalg.roots import DENOMINATOR, NUMERATOR, TAYLOR, TAYLOR_INVERSE

METHODS = ("eigh", "mpa", "mtp", "newton-schulz")


def spd(n, condition, batch=(), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(*batch, n, n, dtype=torch.float64, generator=generator))[0]
    values = torch.logspace(0, -numpy.log10(condition), n, dtype=torch.float64)
    return (q * values @ q.mT).to(dtype)


def relative(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def power(matrix, exponent):
    values, vectors = torch.linalg.eigh(matrix.double())
    return (vectors * values.pow(exponent).unsqueeze(-2)) @ vectors.mT


@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("method", ["eigh", "newton"])
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_inverse_root_in_float64_is_exact(p, method, condition):
    matrix = spd(12, condition, (3,))
    assert relative(inv_root(matrix, p, method, ridge=0.0), power(matrix, -1 / p)) < 1e-9


@pytest.mark.parametrize(("condition", "limit"), [(1e2, 1e-5), (1e4, 1e-4), (1e6, 1e-2)])
@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_inverse_root_in_float32_is_as_good_as_the_condition_allows(method, condition, limit):
    matrix = spd(16, condition, dtype=torch.float32)
    # the reference is the root of the rounded matrix
    assert relative(inv_root(matrix, 4, method, ridge=0.0), power(matrix, -1 / 4)) < limit


def test_ridge_is_relative_to_the_largest_eigenvalue():
    matrix = 50.0 * spd(8, 1e3)
    eye = torch.eye(8, dtype=torch.float64)
    largest = torch.linalg.eigvalsh(matrix)[-1]
    for method, limit in (("eigh", 1e-12), ("newton", 1e-4)):  # newton estimates the eigenvalue from below
        assert relative(inv_root(matrix, 4, method, 0.01), power(matrix + 0.01 * largest * eye, -1 / 4)) < limit
        assert relative(inv_root(matrix, 4, method, 0.3, False), power(matrix + 0.3 * eye, -1 / 4)) < 1e-11


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_matrices_of_a_batch_stop_by_themselves(method):
    batch = torch.stack([spd(10, 2.0), 1e-6 * spd(10, 1e6, seed=1), 1e5 * torch.eye(10, dtype=torch.float64)])
    together = inv_root(batch, 4, method, ridge=0.0)
    for one, alone in zip(together, batch, strict=True):
        assert torch.allclose(one, inv_root(alone, 4, method, ridge=0.0), rtol=1e-12)


@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_singular_slightly_negative_and_zero_matrices_give_finite_roots(method):
    vector = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    for matrix in (vector @ vector.mT, torch.diag(torch.tensor([1.0, 0.5, -1e-7])), torch.zeros(3, 3)):
        root = inv_root(matrix, 4, method)
        assert torch.isfinite(root).all()
        assert torch.equal(root, root.mT)


def test_scale_of_the_matrix_beyond_the_range_of_squares():
    matrix = spd(6, 1e2, dtype=torch.float32)
    for method in ("eigh", "newton"):
        root = inv_root(matrix, 2, method)
        assert torch.allclose(inv_root(matrix * 2.0**-80, 2, method), root * 2.0**40, rtol=1e-5)
        assert torch.allclose(inv_root(matrix * 2.0**80, 2, method), root * 2.0**-40, rtol=1e-5)


def test_eigh_is_tried_again_in_float64(monkeypatch):
    true, seen = torch.linalg.eigh, []

    def unwilling(matrix):
        seen.append(matrix.dtype)
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("failed to converge")
        return true(matrix)

    matrix = spd(5, 1e2, dtype=torch.float32)
    expected = inv_root(matrix, 2, "eigh")
    monkeypatch.setattr(torch.linalg, "eigh", unwilling)
    assert torch.allclose(inv_root(matrix, 2, "eigh"), expected, rtol=1e-5)
    assert seen == [torch.float32, torch.float64]


def test_unchecked_nan_is_named_when_no_eigenvalues_are_found(monkeypatch):
    def unwilling(matrix):
        raise torch.linalg.LinAlgError("failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", unwilling)
    with pytest.raises(NonFiniteError, match=r"shape \(2, 2\)"):
        inv_root(torch.eye(2), 2, "eigh", check=False)


def test_coefficients_are_those_of_the_power_series_and_the_pade_approximant():
    taylor = [scipy.special.binom(0.5, k) * (-1) ** k for k in range(11)]
    inverse = [scipy.special.binom(-0.5, k) * (-1) ** k for k in range(11)]
    assert numpy.allclose(TAYLOR, taylor, rtol=1e-14)
    assert numpy.allclose(TAYLOR_INVERSE, inverse, rtol=1e-14)
    p, q = scipy.interpolate.pade(taylor, 5)
    assert numpy.allclose(p.coef[::-1], NUMERATOR, rtol=1e-8)
    assert numpy.allclose(q.coef[::-1], DENOMINATOR, rtol=1e-8)


def test_exact_root_agrees_with_scipy():
    matrix = spd(9, 1e4)
    assert relative(sqrtm(matrix), torch.from_numpy(scipy.linalg.sqrtm(matrix.numpy()).real)) < 1e-10
    assert relative(inv_sqrtm(matrix), torch.linalg.inv(sqrtm(matrix))) < 1e-10


@pytest.mark.parametrize(
    ("method", "limits"),
    [
        # at condition numbers 10, 100 and 1000: twice what was measured beforehand
        ("mtp", (1e-1, 5e-1, 6e-1)),
        ("mpa", (1e-2, 1.2e-1, 2.2e-1)),
        ("newton-schulz", (2e-2, 1.6e-1, 1.6e-1)),
    ],
)
def test_errors_of_the_approximations_are_as_documented(method, limits):
    for condition, n, limit in zip((1e1, 1e2, 1e3), (32, 64, 64), limits, strict=True):
        matrix = spd(n, condition, (2,))
        found = relative(sqrtm(matrix, method), power(matrix, 0.5))
        assert limit / 20 < found < limit


@pytest.mark.parametrize("method", METHODS)
def test_approximations_are_exact_on_multiples_of_the_identity_up_to_their_series(method):
    eye = torch.eye(2, dtype=torch.float64)
    assert relative(sqrtm(9 * eye, method), 3 * eye) < 1e-4
    assert relative(inv_sqrtm(9 * eye, method), eye / 3) < 1e-2


def test_residual_tells_a_good_root_from_a_bad_one():
    matrix = spd(16, 1e3, (2,))
    assert sqrtm_residual(matrix, sqrtm(matrix)).max() < 1e-12
    assert sqrtm_residual(matrix, sqrtm(matrix, "mtp")).min() > 1e-3
    assert sqrtm_residual(matrix, inv_sqrtm(matrix), inverse=True).max() < 1e-9


@pytest.mark.parametrize("root", [sqrtm, inv_sqrtm])
def test_gradients_of_the_roots_pass_finite_differences_twice(root):
    matrix = spd(4, 20.0, (2,)).requires_grad_()
    assert gradcheck(root, matrix)
    assert gradgradcheck(root, matrix)


@pytest.mark.parametrize("method", ["mpa", "newton-schulz"])
@pytest.mark.parametrize("root", [sqrtm, inv_sqrtm])
def test_gradients_by_the_sign_iteration_pass_with_enough_steps(root, method):
    matrix = spd(3, 1.5).requires_grad_()
    assert gradcheck(lambda a: root(a, method, steps=12, backward="sign", backward_steps=16), matrix, atol=1e-4)


def test_repeated_eigenvalues_do_no_harm():
    identity = torch.eye(3, dtype=torch.float64, requires_grad=True)
    sqrtm(identity).sum().backward()
    assert torch.allclose(identity.grad, torch.full((3, 3), 0.5, dtype=torch.float64))
    through_eigh = torch.eye(3, dtype=torch.float64, requires_grad=True)
    values, vectors = torch.linalg.eigh(through_eigh)
    ((vectors * values.sqrt()) @ vectors.mT).sum().backward()
    assert not torch.isfinite(through_eigh.grad).all()  # what users have without it


@pytest.mark.parametrize("method", ["eigh", "sign"])
def test_lyapunov_solves_its_equation(method):
    x = spd(7, 8.0, (2,))
    g = torch.randn(2, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    k = lyapunov(x, g, method, steps=16)
    assert relative(x @ k + k @ x, g) < 1e-12
    for one in range(2):
        assert (
            relative(k[one], torch.from_numpy(scipy.linalg.solve_sylvester(*[x[one].numpy()] * 2, g[one].numpy())))
            < 1e-12
        )


def test_lyapunov_by_eight_steps_is_as_rough_as_documented():
    g = torch.eye(32, dtype=torch.float64) + 0.1 * spd(32, 10.0, seed=3)
    errors = {}
    for condition in (10.0, 1000.0):
        x = power(spd(32, condition), 0.5)
        errors[condition] = [relative(lyapunov(x, g, "sign", steps=s), lyapunov(x, g)) for s in (8, 12)]
    assert errors[10.0][0] < 1e-2
    assert errors[10.0][1] < 1e-5
    assert errors[1000.0][0] > 1e-2
    assert errors[1000.0][1] < errors[1000.0][0]


def test_lyapunov_is_differentiable_twice():
    x = spd(3, 4.0).requires_grad_()
    g = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    symmetric = lambda x, g: lyapunov((x + x.mT) / 2, g)  # noqa: E731
    assert gradcheck(symmetric, (x, g))
    assert gradgradcheck(symmetric, (x, g))


def test_singular_matrices_have_roots_and_finite_gradients():
    matrix = torch.diag(torch.tensor([4.0, 0.0])).requires_grad_()
    root = sqrtm(matrix)
    assert torch.allclose(root, torch.diag(torch.tensor([2.0, 0.0])))
    root.sum().backward()
    assert torch.isfinite(matrix.grad).all()


@pytest.mark.parametrize("function", [sqrtm, inv_sqrtm, lambda a: inv_root(a, 2), lambda a: lyapunov(a, a)])
def test_what_cannot_work_is_refused(function):
    with pytest.raises(ArgumentError):
        function(torch.zeros(2, 3))
    with pytest.raises(UnsupportedError):
        function(torch.eye(2, dtype=torch.complex64))
    with pytest.raises(NonFiniteError):
        function(torch.full((2, 2), float("inf")))
    assert function(torch.zeros(0, 2, 2)).shape == (0, 2, 2)


def test_wrong_arguments_are_named():
    eye = torch.eye(2)
    with pytest.raises(ArgumentError, match="p=0"):
        inv_root(eye, 0)
    with pytest.raises(ArgumentError, match="ridge=-1"):
        inv_root(eye, 2, ridge=-1.0)
    with pytest.raises(ArgumentError, match="method='denman'"):
        sqrtm(eye, "denman")
    with pytest.raises(ArgumentError, match="backward='exact'"):
        sqrtm(eye, backward="exact")
    with pytest.raises(MismatchError):
        lyapunov(eye, torch.eye(3))
    with pytest.raises(MismatchError):
        sqrtm_residual(eye, torch.eye(3))


def test_half_precision_is_computed_in_float32():
    matrix = spd(5, 10.0, dtype=torch.bfloat16)
    assert sqrtm(matrix).dtype == inv_root(matrix, 4).dtype == torch.bfloat16
    assert relative(sqrtm(matrix), power((matrix + matrix.mT) / 2, 0.5)) < 1e-2
