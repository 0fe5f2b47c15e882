"""Quadrature has exact moments, and its density, log determinant and error bars agree with the dense spectrum."""

import math

import pytest
import torch

from covector.errors import ArgumentError
from covector.linalg import DenseOperator, Spectrum, slq

N = 200


def symmetric(values: torch.Tensor, seed: int = 0) -> DenseOperator:
    n = len(values)
    q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    matrix = (q * values.double()) @ q.mT
    return DenseOperator(((matrix + matrix.mT) / 2).to(values.dtype), symmetric=True)


VALUES = 0.1 + torch.rand(N, generator=torch.Generator().manual_seed(3), dtype=torch.float64) ** 2
VALUES[:3] = torch.tensor([6.0, 4.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize("power", range(8))
def test_moments_of_each_probe_are_exact_up_to_twice_the_steps(power):
    op = symmetric(VALUES)
    spectrum = slq(op, probes=1, steps=4, seed=5)
    from covector.linalg.vectors import probe_rows

    z = probe_rows(op, 1, 5, "slq")[0]
    exact = z @ torch.linalg.matrix_power(op.matrix, power) @ z / N
    assert spectrum.moment(power).value == pytest.approx(float(exact), rel=1e-10)


def test_enough_steps_give_every_eigenvalue_of_a_small_operator():
    op = symmetric(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    nodes = slq(op, probes=2, steps=10).nodes
    torch.testing.assert_close(nodes, torch.tensor([[1.0, 2.0, 4.0]] * 2, dtype=torch.float64), atol=1e-10, rtol=0)


def test_error_bars_cover_the_truth():
    op = symmetric(VALUES)
    truth = {"logdet": float(VALUES.log().sum()), "trace": float(VALUES.sum())}
    truth["effective"] = float((VALUES / (VALUES + 0.5)).sum())
    covered = total = 0
    for seed in range(12):
        spectrum = slq(op, probes=6, steps=30, seed=seed)
        found = {
            "logdet": spectrum.logdet(), "trace": spectrum.trace(), "effective": spectrum.effective_dim(0.5),
        }  # fmt: skip
        for name, estimate in found.items():
            total += 1
            covered += abs(estimate.value - truth[name]) <= 2.6 * estimate.error  # t with 5 degrees: 95 %
    assert covered >= 0.8 * total


def test_the_density_agrees_with_the_dense_one():
    spectrum, exact = slq(symmetric(VALUES), probes=16, steps=60), Spectrum.exact(VALUES)
    grid = torch.linspace(-2, 8, 2001)
    assert float(torch.trapezoid(spectrum.density(grid, 0.1), grid.double())) == pytest.approx(1.0, abs=1e-6)
    for sigma in (0.05, 0.3):
        off = (spectrum.density(grid, sigma) - exact.density(grid, sigma)).abs()
        assert float(torch.trapezoid(off, grid.double())) < 0.08  # of total mass 2
    assert spectrum.fraction_below(1.0).value == pytest.approx(float((VALUES <= 1.0).double().mean()), abs=0.05)
    assert spectrum.quantile(0.5) == pytest.approx(float(VALUES.median()), abs=0.1)
    assert bool((spectrum.density_error(grid) >= 0).all())


def test_a_run_that_ends_early_carries_no_weight_beyond_it():
    from covector.linalg.lanczos import lanczos_rows

    op = DenseOperator(torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)))
    starts = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    alpha, beta, _, _ = lanczos_rows(op, starts, 4)
    assert beta[0, 1] == 0
    assert alpha[0, 2:].abs().max() == 0
    torch.testing.assert_close(alpha[1].sum(), torch.tensor(10.0, dtype=torch.float64))


def test_one_probe_knows_no_error_and_bad_questions_are_refused():
    spectrum = slq(symmetric(VALUES - 1.0), probes=1, steps=10)
    assert math.isnan(spectrum.moment(1).error)
    with pytest.raises(ArgumentError, match="shift"):
        spectrum.logdet()
    assert spectrum.logdet(shift=2.0).value > 0
    with pytest.raises(ArgumentError, match="ridge"):
        spectrum.effective_dim(0.0)
    with pytest.raises(ArgumentError, match="sigma"):
        spectrum.density(torch.zeros(2), -1.0)
    with pytest.raises(ArgumentError, match="probes"):
        slq(symmetric(VALUES), probes=0)
    with pytest.raises(ArgumentError, match="q=2"):
        spectrum.quantile(2)
