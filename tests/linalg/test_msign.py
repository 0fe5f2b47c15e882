"""The polar factor against the SVD, its schedules against an independent search, and its invariances."""

from __future__ import annotations

import numpy
import pytest
import torch
from scipy.optimize import minimize

from covector.errors import ArgumentError, NonFiniteError, UnsupportedError
from covector.linalg import fast_dtype, msign, msign_with_dual, nuclear_norm, polar_express
from covector.linalg.msign import METHODS, choose
from covector.linalg.newton_schulz import gram_iteration, quintic_iteration
from covector.linalg.schedules import KELLER_JORDAN, WHITENING, best_quintic, schedule

ITERATIVE = ("newton-schulz", "whitening", "polar-express")


def with_singular_values(values, n=None, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    m, n = len(values), n or len(values)
    left = torch.linalg.qr(torch.randn(m, m, dtype=torch.float64, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(n, m, dtype=torch.float64, generator=generator))[0]
    return (left * torch.as_tensor(values, dtype=torch.float64) @ right.mT).to(dtype), (left @ right.mT).to(dtype)


@pytest.mark.parametrize("method", ["svd", "eigh", "polar-express"])
@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (9, 5), (3, 4, 7), (2, 3, 7, 4), (1, 5), (5, 1)])
def test_singular_values_become_one(method, shape):
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    # eigh damps by the relative size of a rounding error over the smallest squared singular value
    assert torch.allclose(msign(matrix, method), u @ vh, atol=1e-6)


@pytest.mark.parametrize("method", ITERATIVE)
def test_iterations_map_singular_values_by_their_polynomials(method):
    values = torch.tensor([0.9, 0.3, 0.05, 0.002], dtype=torch.float64)
    matrix, _ = with_singular_values(values, 6)
    expected = values / values.norm()
    for a, b, c in schedule(method, 4):
        expected = a * expected + b * expected**3 + c * expected**5
    found = torch.linalg.svdvals(msign(matrix, method, steps=4))
    assert torch.allclose(found, expected.sort(descending=True).values, atol=1e-12)


@pytest.mark.parametrize(
    ("method", "above", "low", "high"),
    [
        ("newton-schulz", 1e-2, 0.68, 1.21),
        ("whitening", 1e-2, 0.97, 1.04),
        ("polar-express", 1e-3, 1 - 1e-6, 1 + 1e-6),
    ],
)
def test_bands_of_the_schedules_are_as_documented(method, above, low, high):
    values = torch.logspace(numpy.log10(above), 0, 20_001, dtype=torch.float64)
    for a, b, c in schedule(method, 7 if method == "polar-express" else 5):
        values = a * values + b * values**3 + c * values**5
    assert low < values.min()
    assert values.max() < high


def test_polar_express_steps_are_the_published_ones():
    published = [
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    ]
    assert numpy.allclose(polar_express(8)[:5], published, rtol=1e-8)
    assert numpy.allclose(polar_express(12)[-1], (15 / 8, -10 / 8, 3 / 8), atol=1e-6)


@pytest.mark.parametrize(("lower", "upper"), [(0.03, 1.0), (0.2, 1.8), (0.8, 1.2)])
def test_best_quintic_is_not_beaten_by_a_search(lower, upper):
    points = numpy.linspace(lower, upper, 4001)

    def error(triple):
        return numpy.abs(1 - (triple[0] * points + triple[1] * points**3 + triple[2] * points**5)).max()

    ours = best_quintic(lower, upper)
    for start in (ours, numpy.array(ours) * 1.05):
        searched = minimize(
            error, start, method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-12, "fatol": 1e-13}
        )
        assert error(ours) <= searched.fun + 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_the_scale_of_the_matrix_does_not_matter(method):
    matrix = torch.randn(8, 12, generator=torch.Generator().manual_seed(2))
    for power in (-90, 90):  # squares leave the range of float32
        assert torch.equal(msign(matrix * 2.0**power, method), msign(matrix, method))


@pytest.mark.parametrize("method", METHODS)
def test_transposing_commutes(method):
    matrix = torch.randn(2, 5, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(msign(matrix.mT, method), msign(matrix, method).mT, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_zero_rows_and_zero_matrices_stay_zero(method):
    batch = torch.zeros(2, 4, 6)
    batch[0, 1:] = torch.randn(3, 6, generator=torch.Generator().manual_seed(4))
    result = msign(batch, method)
    assert (result[1] == 0).all()
    if method != "svd":
        assert result[0, 0].abs().max() < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_a_matrix_in_a_batch_is_as_alone(method):
    batch = torch.randn(3, 6, 10, generator=torch.Generator().manual_seed(5))
    for one, alone in zip(msign(batch, method), batch, strict=True):
        assert torch.allclose(one, msign(alone, method), atol=1e-5)


@pytest.mark.parametrize("name", ITERATIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gram_iteration_is_the_direct_one(name, dtype):
    values = torch.logspace(-3, 0, 24)
    matrix, _ = with_singular_values(values / values.norm(), 96, dtype=dtype)
    triples = schedule(name, 7)
    direct, gram = quintic_iteration(matrix[None], triples), gram_iteration(matrix[None], triples)
    assert torch.allclose(direct, gram, atol=2e-3 if dtype == torch.float32 else 1e-10)


def test_gram_iteration_survives_a_matrix_of_low_rank():
    generator = torch.Generator().manual_seed(6)
    matrix = torch.randn(64, 3, generator=generator) @ torch.randn(3, 256, generator=generator)
    for name in ITERATIVE:
        x, triples = matrix[None] / matrix.norm(), schedule(name, 7)
        exact = quintic_iteration(x.double(), triples)
        assert (gram_iteration(x, triples) - exact).norm() < 0.02 * exact.norm()


def test_dual_norm_is_the_nuclear_norm():
    matrix, _ = with_singular_values([3.0, 2.0, 0.5], 5)
    assert msign_with_dual(matrix, "svd")[1].item() == pytest.approx(5.5, abs=1e-12)
    assert msign_with_dual(matrix, "eigh")[1].item() == pytest.approx(5.5, abs=1e-9)
    assert msign_with_dual(matrix, "polar-express")[1].item() == pytest.approx(5.5, rel=1e-6)
    assert msign_with_dual(matrix, "newton-schulz")[1].item() == pytest.approx(5.5, rel=0.2)
    assert torch.allclose(nuclear_norm(matrix.expand(2, 3, 3, 5)), torch.full((2, 3), 5.5, dtype=torch.float64))
    assert nuclear_norm(matrix, "polar-express").item() == pytest.approx(5.5, rel=1e-6)


def test_shampoo_on_one_gradient_is_the_polar_factor():
    from covector.linalg import inv_root

    matrix, expected = with_singular_values([3.0, 2.0, 0.5, 0.1], 4)
    left, right = inv_root(matrix @ matrix.mT, 4, ridge=0.0), inv_root(matrix.mT @ matrix, 4, ridge=0.0)
    assert torch.allclose(left @ matrix @ right, expected, atol=1e-9)


def test_half_precision_is_close_and_keeps_its_dtype():
    matrix, expected = with_singular_values(torch.linspace(0.2, 1, 16), 32, dtype=torch.bfloat16)
    result = msign(matrix, "polar-express", dtype=torch.bfloat16)
    assert result.dtype == torch.bfloat16
    assert (result - expected).float().norm() / expected.float().norm() < 0.03
    assert msign(matrix, "svd").dtype == torch.bfloat16


def test_own_coefficients_replace_the_schedule():
    matrix, _ = with_singular_values([1.0, 0.4], 3)
    assert torch.equal(msign(matrix, coefficients=[KELLER_JORDAN] * 3), msign(matrix, "newton-schulz", steps=3))
    assert schedule("whitening", 6) == (*WHITENING, WHITENING[-1])


def test_the_cubic_limit_is_differentiable():
    matrix, _ = with_singular_values([1.0, 0.5, 0.3], 4)
    assert torch.autograd.gradcheck(lambda x: msign(x, "newton-schulz", steps=2), matrix.requires_grad_())


def test_auto_takes_the_eigenvectors_of_large_matrices_only():
    assert choose(torch.empty(1, 256, 256, dtype=torch.float64)) == ("eigh", None)
    assert choose(torch.empty(1, 128, 512)) == ("eigh", None)
    assert choose(torch.empty(64, 32, 32)) == ("newton-schulz", None)


def test_auto_takes_half_precision_only_where_it_is_fast(monkeypatch):
    for capable, expected in ((True, ("newton-schulz", torch.bfloat16)), (False, ("eigh", None))):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda capable=capable: {"avx512_bf16": capable}, raising=False
        )
        assert choose(torch.empty(1, 256, 256)) == expected
    assert msign(torch.eye(200)).dtype == torch.float32


def test_large_matrices_in_half_precision_are_as_in_single():
    matrix = torch.randn(2, 256, 300, generator=torch.Generator().manual_seed(0))
    single, half = msign(matrix, "whitening"), msign(matrix, "whitening", dtype=torch.bfloat16)
    assert (single - half).norm() < 0.03 * single.norm()


def test_an_unknown_device_is_not_fast():
    assert fast_dtype("meta") == torch.float32


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((torch.zeros(3),), ArgumentError),
        ((torch.zeros(2, 2), "cubic"), ArgumentError),
        ((torch.zeros(2, 2), "newton-schulz", 0), ArgumentError),
        ((torch.ones(2, 2), "svd", 3), ArgumentError),
        ((torch.zeros(2, 2), "auto", None, torch.int32), ArgumentError),
        ((torch.zeros(2, 2, dtype=torch.complex64),), UnsupportedError),
        ((torch.zeros(2, 2, dtype=torch.int64),), UnsupportedError),
        ((torch.eye(2).to_sparse(),), UnsupportedError),
        (([[1.0]],), UnsupportedError),
        ((torch.tensor([[float("nan"), 1.0]]),), NonFiniteError),
        ((torch.tensor([[float("inf"), 1.0]]),), NonFiniteError),
    ],
)
def test_what_cannot_work_is_refused(arguments, error):
    with pytest.raises(error):
        msign(*arguments)


def test_steps_that_contradict_the_coefficients_are_refused():
    with pytest.raises(ArgumentError, match="steps=2"):
        msign(torch.eye(2), steps=2, coefficients=[KELLER_JORDAN] * 3)
    with pytest.raises(ArgumentError, match="lower"):
        polar_express(3, lower=1.0)


def test_empty_matrices_pass_through():
    assert msign(torch.zeros(0, 4)).shape == (0, 4)
    assert msign(torch.zeros(0, 3, 4)).shape == (0, 3, 4)
