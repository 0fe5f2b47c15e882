"""The three laws: their moments and distribution, each within what n draws allow."""

import math

import pytest
import torch

from covector.kernels.fields import field_integers, field_values
from covector.kernels.operands import Place

N = 1 << 20
# fourth moment, and the variance of the second and of the fourth power
MOMENTS = {"rademacher": (1.0, 0.0, 0.0), "binomial": (3 - 2 / 64, 2 - 2 / 64, 96.0), "normal": (3.0, 2.0, 96.0)}


@pytest.mark.parametrize("distribution", MOMENTS)
def test_moments(distribution):
    fourth, variance_of_square, variance_of_fourth = MOMENTS[distribution]
    z = field_values(17, distribution, N, Place(5)).double()
    sigma = N**-0.5
    assert abs(float(z.mean())) < 5 * sigma
    assert abs(float(z.square().mean()) - 1) <= 5 * sigma * variance_of_square**0.5
    assert abs(float((z**3).mean())) < 5 * sigma * 15**0.5
    assert abs(float((z**4).mean()) - fourth) <= 5 * sigma * variance_of_fourth**0.5


def test_rademacher_takes_two_values():
    assert field_integers(1, "rademacher", 1000).unique().tolist() == [-1, 1]


def test_binomial_is_the_law_of_64_coins():
    counts = torch.bincount(field_integers(2, "binomial", N) + 32, minlength=65).double()
    expected = torch.tensor([math.comb(64, k) / 2**64 * N for k in range(65)], dtype=torch.float64)
    usual = expected > 20
    chi_square = float(((counts - expected).square() / expected)[usual].sum())
    degrees = int(usual.sum())
    assert abs(chi_square - degrees) < 5 * (2 * degrees) ** 0.5


def test_normal_is_the_normal_law():
    z = field_values(3, "normal", N).double().sort().values
    distribution = 0.5 * (1 + torch.erf(z / 2**0.5))
    steps = torch.arange(N, dtype=torch.float64) / N
    distance = float(torch.maximum((distribution - steps).abs(), (steps + 1 / N - distribution).abs()).max())
    assert distance * N**0.5 < 1.95  # Kolmogorov-Smirnov, one in a thousand


def test_normal_agrees_with_library_functions():
    from covector.kernels.fields import words

    pair = words(5, 0, 4096).reshape(-1, 2).double()
    length, turn = (pair[:, 0].div(256).floor() + 1) / 2**24, pair[:, 1].div(256).floor() / 2**24
    radius, angle = (-2 * length.log()).sqrt(), 2 * math.pi * turn
    expected = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1).reshape(-1)
    assert torch.allclose(field_values(5, "normal", expected.numel()).double(), expected, rtol=0, atol=2e-6)


def test_normal_is_finite_at_the_ends_of_the_uniforms():
    from covector.kernels.fields import _box_muller

    ends = torch.tensor([0, 255, 256, 2**31, 2**32 - 1])
    z = _box_muller(torch.cartesian_prod(ends, ends).reshape(-1, 2).repeat(1, 2))
    assert torch.isfinite(z).all()
    assert float(z.abs().max()) <= (48 * math.log(2)) ** 0.5 * 1.0001
