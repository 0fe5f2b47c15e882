"""Decorrelated batch normalization against batch normalization, NumPy and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, NonFiniteError
from covector.nn import DecorrelatedBatchNorm


def correlated(count=200, features=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(features, features, dtype=dtype, generator=generator)
    return torch.randn(count, features, dtype=dtype, generator=generator) @ mix + 3.0


def test_outputs_of_a_batch_are_white_with_mean_zero():
    y = DecorrelatedBatchNorm(6, eps=1e-9, affine=False, dtype=torch.float64)(correlated())
    assert y.mean(0).abs().max() < 1e-10
    assert (y.mT @ y / len(y) - torch.eye(6)).abs().max() < 1e-4


def test_whitening_is_the_symmetric_one():
    x = correlated()
    y = DecorrelatedBatchNorm(6, eps=1e-9, affine=False, dtype=torch.float64)(x)
    centered = x - x.mean(0)
    matrix = torch.linalg.lstsq(centered, y).solution
    assert torch.allclose(matrix, matrix.mT, atol=1e-8)
    assert torch.linalg.eigvalsh(matrix).min() > 0


def test_groups_of_one_are_batch_normalization():
    x = correlated(50, 4).view(10, 5, 4).movedim(2, 1)  # [10, 4, 5]
    ours = DecorrelatedBatchNorm(4, group_size=1, eps=1e-5, dtype=torch.float64)
    theirs = nn.BatchNorm1d(4, eps=1e-5, dtype=torch.float64)
    for _ in range(3):
        assert torch.allclose(ours(x), theirs(x), atol=1e-9)
    assert torch.allclose(ours.running_mean, theirs.running_mean)
    assert torch.allclose(ours.running_covariance.flatten(), theirs.running_var)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-9)


def test_groups_do_not_mix():
    x = correlated()
    whole = DecorrelatedBatchNorm(6, group_size=3, affine=False, dtype=torch.float64)(x)
    part = DecorrelatedBatchNorm(3, affine=False, dtype=torch.float64)(x[:, 3:])
    assert torch.allclose(whole[:, 3:], part, atol=1e-12)


def test_evaluation_whitens_by_the_running_statistics():
    layer = DecorrelatedBatchNorm(6, eps=1e-9, momentum=1.0, affine=False, dtype=torch.float64)
    x = correlated()
    trained = layer(x)
    found = layer.eval()(x)
    assert torch.allclose(found, trained * ((len(x) - 1) / len(x)) ** 0.5, atol=1e-5)
    assert torch.allclose(layer(x[:1]), found[:1], atol=1e-8)


def test_gradient_passes_finite_differences():
    layer = DecorrelatedBatchNorm(3, eps=0.1, dtype=torch.float64)
    x = correlated(7, 3).requires_grad_()
    assert torch.autograd.gradcheck(layer, x)


def test_a_batch_smaller_than_the_features_stays_finite():
    layer = DecorrelatedBatchNorm(6, dtype=torch.float64)
    y = layer(correlated(3))
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(layer.weight.grad).all()


@pytest.mark.parametrize("method", ["mpa", "mtp", "newton-schulz"])
def test_approximate_methods_whiten_what_is_nearly_white(method):
    x = torch.randn(400, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = DecorrelatedBatchNorm(4, affine=False, dtype=torch.float64)(x)
    found = DecorrelatedBatchNorm(4, affine=False, method=method, dtype=torch.float64)(x)
    assert (found - exact).norm() < 0.05 * exact.norm()


def test_images_keep_their_layout():
    x = torch.randn(3, 4, 5, 6)
    assert DecorrelatedBatchNorm(4, group_size=2)(x).shape == x.shape


def test_state_round_trips():
    layer = DecorrelatedBatchNorm(6, dtype=torch.float64)
    layer(correlated())
    other = DecorrelatedBatchNorm(6, dtype=torch.float64)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.eval()(correlated(seed=1)), layer.eval()(correlated(seed=1)))


def test_an_error_leaves_the_statistics_as_they_were():
    layer = DecorrelatedBatchNorm(2)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(NonFiniteError):
        layer(torch.full((3, 2), float("nan")))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize(
    "arguments",
    [{"num_features": 0}, {"num_features": 4, "group_size": 3}, {"num_features": 2, "eps": 0.0},
     {"num_features": 2, "momentum": 0.0}, {"num_features": 2, "method": "zca"}],
)  # fmt: skip
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ArgumentError):
        DecorrelatedBatchNorm(**arguments)


@pytest.mark.parametrize("shape", [(3,), (4, 3), (1, 2)])
def test_wrong_inputs_are_refused(shape):
    with pytest.raises(ArgumentError):
        DecorrelatedBatchNorm(2)(torch.zeros(shape))
