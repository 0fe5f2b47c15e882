"""AdaGrad-Norm in closed form, its limits, and the certificate of its run."""

import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, UnsupportedError
from covector.optim import SGD, AdaGradNorm


def test_gradients_of_constant_norm_give_the_rate_over_the_root_of_t():
    p, q = (nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2))
    ours, sgd = AdaGradNorm([p], lr=0.5, b0=1e-30), SGD([q])
    for t in range(1, 101):
        p.grad = q.grad = 5.0 * torch.tensor([math.sin(t), math.cos(t)], dtype=torch.float64)
        sgd.param_groups[0]["lr"] = 0.5 / (5.0 * math.sqrt(t))
        ours.step()
        sgd.step()
    torch.testing.assert_close(p, q, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_loss_does_not_matter_as_b0_vanishes(paths, scale):
    ends = []
    for factor in (1.0, scale):
        params = paths.start()
        optimizer = AdaGradNorm(params, lr=0.3, b0=1e-30)
        for t in range(100):
            for p in params:
                p.grad = factor * paths.gradient(p, t)
            optimizer.step()
        ends.append([p.detach() for p in params])
    assert paths.distance(*ends) < 1e-12


def test_the_sum_is_of_all_tensors_or_of_each():
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    params[0].grad, params[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    one = AdaGradNorm([{"params": params[:1]}, {"params": params[1:]}], lr=1.0, b0=1e-20).update()
    assert [one[p].abs().max().item() for p in params] == pytest.approx([0.6, 0.8])
    each = AdaGradNorm(params, lr=1.0, b0=1e-20, scope="tensor").update()
    assert [each[p].abs().max().item() for p in params] == pytest.approx([1.0, 1.0])


def quadratic(lr, steps=300, smoothness=1.09):
    generator = torch.Generator().manual_seed(0)
    curvature = torch.linspace(0.01, smoothness, 20, dtype=torch.float64)
    x = nn.Parameter(torch.randn(20, generator=generator, dtype=torch.float64))
    optimizer = AdaGradNorm([x], lr=lr)
    for _ in range(steps):
        loss = (curvature * x.detach() ** 2).sum() / 2
        x.grad = curvature * x.detach()
        optimizer.step(loss=loss)
    return optimizer, float((curvature * x.detach() ** 2).sum() / 2)


@pytest.mark.parametrize("lr", [1e-3, 1e-1, 1.0, 10.0, 1e3])
def test_the_denominator_grows_no_further_than_its_bound(lr):
    optimizer, _ = quadratic(lr)
    certificate = optimizer.certificate(f_star=0.0, smoothness=1.09)
    assert 0.0 < certificate.growth <= certificate.bound
    assert certificate.smoothness <= 1.09
    assert optimizer.certificate(0.0, smoothness=certificate.smoothness).bound >= certificate.growth * (1 - 1e-12)


def test_a_bound_for_too_small_a_smoothness_is_broken():
    optimizer, _ = quadratic(10.0)
    least = optimizer.certificate(0.0).smoothness
    assert 0.0 < least <= 1.09
    certificate = optimizer.certificate(0.0, smoothness=0.9 * least)
    assert certificate.growth > certificate.bound


def test_learning_rates_over_three_decades_work():
    assert all(quadratic(lr)[1] < 1e-2 for lr in (1.0, 10.0, 100.0, 1000.0))


def test_a_certificate_asks_for_what_it_needs():
    p = nn.Parameter(torch.ones(1))
    optimizer = AdaGradNorm([p])
    with pytest.raises(ArgumentError, match="step taken"):
        optimizer.certificate(0.0)
    p.grad = torch.ones(1)
    optimizer.step()
    with pytest.raises(ArgumentError, match="first_loss"):
        optimizer.certificate(0.0)
    with pytest.raises(ArgumentError, match="first_loss"):
        optimizer.certificate(0.0, first_loss=-1.0)
    assert optimizer.certificate(0.0, first_loss=1.0).step > 0
    with pytest.raises(UnsupportedError, match="global"):
        AdaGradNorm([p], scope="tensor").certificate(0.0)


@pytest.mark.parametrize("options", [{"b0": 0.0}, {"scope": "row"}], ids=str)
def test_a_hyperparameter_out_of_range_is_named(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        AdaGradNorm([nn.Parameter(torch.zeros(1))], **options)
