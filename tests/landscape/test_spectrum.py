"""The spectrum of a Hessian agrees with its eigenvalues, and parts where it should."""

import pytest
import torch
from torch import nn

from covector.curvature import GaussNewton, Hessian
from covector.errors import ArgumentError, MismatchError
from covector.landscape import near_zero, outliers, spectrum
from covector.linalg import DenseOperator, Spectrum
from covector.objective import Objective


def clusters(classes: int = 3, hidden: int = 6):
    torch.manual_seed(0)
    centers = 3 * nn.functional.normalize(torch.randn(classes, 5, dtype=torch.float64), dim=1)
    labels = torch.arange(60) % classes
    inputs = centers[labels] + torch.randn(60, 5, dtype=torch.float64)
    net = nn.Sequential(nn.Linear(5, hidden), nn.Tanh(), nn.Linear(hidden, classes)).double()
    return Objective(net, nn.functional.cross_entropy), (inputs, labels)


def test_quadrature_and_decomposition_agree_on_a_hessian():
    op = Hessian(*clusters())
    exact, estimate = spectrum(op), spectrum(op, "slq", probes=8, steps=40)
    assert exact.nodes.shape == (1, op.shape[0])
    grid = torch.linspace(-0.5, 2.0, 800)
    off = (exact.density(grid, 0.05) - estimate.density(grid, 0.05)).abs()
    assert float(torch.trapezoid(off, grid.double())) < 0.15
    assert abs(estimate.trace().value - exact.trace().value) < 4 * estimate.trace().error
    assert float(estimate.nodes.max()) == pytest.approx(float(exact.nodes.max()), rel=1e-6)


def test_the_hessian_is_gauss_newton_plus_a_part_whose_trace_need_not_vanish():
    objective, batch = clusters()
    whole, part = Hessian(objective, batch), GaussNewton(objective, batch)
    rest = spectrum(whole - part)
    assert rest.trace().value == pytest.approx(spectrum(whole).trace().value - spectrum(part).trace().value, abs=1e-9)
    assert float(spectrum(part).nodes.min()) > -1e-10
    assert float(rest.nodes.min()) < 0 < float(rest.nodes.max())


def test_outliers_stand_above_the_widest_gap():
    found = outliers(torch.tensor([0.1, 10.0, 0.2, 9.0, 0.15, 8.0, -5.0]), among=4)
    assert found.number == 3
    assert found.ratio == pytest.approx(40.0)
    assert found.values.tolist() == [10.0, 9.0, 8.0]


def test_the_fraction_near_zero_counts_both_signs():
    assert near_zero(Spectrum.exact(torch.tensor([1.0, 5e-4, -5e-4, -0.5]))).value == 0.5


def test_what_has_no_spectrum_is_refused():
    with pytest.raises(ArgumentError, match="method"):
        spectrum(DenseOperator(torch.eye(3)), "exact")
    with pytest.raises(ArgumentError, match="symmetric"):
        spectrum(DenseOperator(torch.tensor([[0.0, 1.0], [0.0, 0.0]])))
    with pytest.raises(MismatchError, match="2 positive"):
        outliers(torch.tensor([1.0, 2.0, -1.0]), among=2)
    with pytest.raises(ArgumentError, match="among"):
        outliers(torch.ones(3), among=0)
