"""Moments of the input gradient under noise: closed forms, an independent loop, and what must not matter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from covector.attribution import (
    heatmap,
    input_gradient,
    integrated_gradients,
    smooth,
    smoothgrad,
    smoothgrad_squared,
    vargrad,
)
from covector.errors import ArgumentError, CompositionError, MismatchError, UnsupportedError
from covector.random import Stream, draw


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(classes: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, classes)).double()


def noise(x: Tensor, samples: int, spread: float, seed: int = 0) -> Tensor:
    """What :func:`smooth` adds: ``[samples, B, ...]``."""
    fields = [draw(seed, "input", x.numel(), "normal", 0, Stream.NOISE, i, x.dtype) for i in range(samples)]
    flat = x.flatten(1)
    scale = (spread * (flat.max(1).values - flat.min(1).values)).reshape(-1, *[1] * (x.ndim - 1))
    return torch.stack([field.reshape(x.shape) * scale for field in fields])


def test_a_linear_function_has_one_gradient_and_no_variance():
    w, x = numbers(7), numbers(3, 7, seed=1)
    found = smooth(lambda x: x @ w, x, samples=9)
    torch.testing.assert_close(found.mean, w.expand(3, 7))
    assert float(found.variance.max()) < 1e-28


def test_of_a_quadratic_function_mean_and_variance_are_those_of_the_noise_it_saw():
    a, b, x = numbers(5, 5), numbers(5, seed=1), numbers(4, 5, seed=2)
    a = a + a.T
    found = smooth(lambda x: 0.5 * ((x @ a) * x).sum(1) + x @ b, x, samples=30, spread=0.3, chunk=7)
    gradients = (x + noise(x, 30, 0.3)) @ a + b
    torch.testing.assert_close(found.mean, gradients.mean(0))
    torch.testing.assert_close(found.variance, gradients.var(0, unbiased=False))


def test_it_is_unbiased_for_the_gradient_of_the_smoothed_function():
    x, sigma = numbers(1, 6), 0.4
    found = smooth(lambda x: (x**3).sum(1), x, samples=4000, spread=sigma, relative=False, chunk=1000)
    exact = 3 * x**2 + 3 * sigma**2
    assert ((found.mean - exact).abs() < 4.5 * found.error).all()
    assert not ((3 * x**2 - found.mean).abs() < 4.5 * found.error).any()


def test_steins_identity_gives_the_same_map_without_a_gradient():
    model, sigma, count = network(), 0.3, 40_000
    x = numbers(1, 3, 4)
    e = sigma * torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    with torch.no_grad():
        terms = (model(x + e)[:, 1] - model(x)[:, 1])[:, None, None] * e / sigma**2
    stein, error = terms.mean(0), terms.std(0) / math.sqrt(count)
    ours = smooth(model, x, 1, samples=2000, spread=sigma, relative=False, chunk=1000)
    assert ((ours.mean[0] - stein).abs() < 4.5 * (error**2 + ours.error[0] ** 2).sqrt()).all()


def test_vargrad_is_the_square_less_the_square_of_the_mean_computed_by_a_loop():
    model, x, classes = network(), numbers(4, 3, 4), torch.tensor([0, 2, 1, 2])
    gradients = []
    for e in noise(x, 11, 0.2, seed=3):
        rows = (x + e).requires_grad_()
        model(rows)[torch.arange(4), classes].sum().backward()
        gradients.append(rows.grad)
    looped = torch.stack(gradients)
    options = {"samples": 11, "spread": 0.2, "seed": 3, "chunk": 6}
    torch.testing.assert_close(smoothgrad(model, x, classes, **options), looped.mean(0))
    torch.testing.assert_close(smoothgrad_squared(model, x, classes, **options), looped.square().mean(0))
    identity = looped.square().mean(0) - looped.mean(0).square()
    torch.testing.assert_close(vargrad(model, x, classes, **options), identity)


def test_noise_does_not_depend_on_the_chunk_and_its_limit_is_the_gradient():
    model, x = network(), numbers(5, 3, 4)
    whole = smooth(model, x, 1, samples=8, chunk=1000)
    for chunk in (1, 3, 5, 17):
        part = smooth(model, x, 1, samples=8, chunk=chunk)
        torch.testing.assert_close(part.mean, whole.mean)
        torch.testing.assert_close(part.variance, whole.variance)
    assert not torch.equal(smooth(model, x, 1, samples=8, seed=1).mean, whole.mean)
    torch.testing.assert_close(smoothgrad(model, x, 1, samples=3, spread=0.0), input_gradient(model, x, 1))
    assert smooth(model, x, 1, samples=1).error.isnan().all()


def test_no_more_rows_than_the_chunk_are_seen_at_once():
    seen: list[int] = []

    def f(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.square().flatten(1).sum(1)

    smooth(f, numbers(5, 3), samples=7, chunk=4)
    assert max(seen) <= 4
    assert sum(seen) == 35


def test_the_noise_is_relative_to_the_range_of_each_input():
    x = torch.stack([numbers(6), 100 * numbers(6)])
    ratio = smooth(lambda x: x.square().sum(1), x, samples=50).variance.sqrt()
    shares = ratio / (x.amax(1) - x.amin(1))[:, None]
    assert ((shares > 0.2) & (shares < 0.4)).all()  # twice 0.15


def test_parameters_get_no_gradient_and_no_grad_is_no_obstacle():
    model, x = network(), numbers(2, 3, 4)
    with torch.no_grad():
        found = smoothgrad(model, x, 0, samples=3)
        integrated_gradients(model, x, 0, steps=3)
    assert found.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())
    assert x.grad is None


def test_half_precision_inputs_have_moments_in_single_precision():
    x = numbers(2, 6).bfloat16()
    found = smooth(lambda x: x.float().square().sum(1), x, samples=4)
    assert found.mean.dtype == found.variance.dtype == torch.float32


def test_any_number_of_the_outputs_can_be_chosen():
    model, x = network(), numbers(3, 3, 4)
    margin = input_gradient(model, x, lambda out: out[:, 0] - out[:, 2])
    torch.testing.assert_close(margin, input_gradient(model, x, 0) - input_gradient(model, x, 2))
    torch.testing.assert_close(input_gradient(model, x, -1), input_gradient(model, x, torch.tensor([2, 2, 2])))
    y = torch.tensor([1, 0, 2])
    loss = input_gradient(model, x, lambda out, y: nn.functional.cross_entropy(out, y, reduction="none"), labels=y)
    chosen = [input_gradient(model, x[i : i + 1], lambda out, i=i: -out.log_softmax(1)[:, y[i]]) for i in range(3)]
    torch.testing.assert_close(loss, torch.cat(chosen))


def test_what_cannot_be_explained_is_refused():
    model, x = network(), numbers(2, 3, 4)
    for options in ({"samples": 0}, {"spread": -1.0}, {"spread": math.nan}, {"chunk": 0}, {"seed": 1.5}):
        with pytest.raises(ArgumentError):
            smooth(model, x, 0, **options)
    for target in (None, 3, -4, torch.tensor([0, 5])):
        with pytest.raises(ArgumentError):
            input_gradient(model, x, target)
    with pytest.raises(MismatchError):
        input_gradient(model, x, torch.tensor([0, 1, 2]))
    with pytest.raises(MismatchError):
        input_gradient(model, x, lambda out: out)
    with pytest.raises(ArgumentError):
        input_gradient(lambda x: {"logits": model(x)}, x, 0)
    with pytest.raises(ArgumentError):
        input_gradient(model, x[0, 0], 0)
    with pytest.raises(UnsupportedError):
        input_gradient(model, torch.zeros(2, 12, dtype=torch.int64), 0)
    with pytest.raises(CompositionError, match="eval"):
        input_gradient(nn.Sequential(model, nn.BatchNorm1d(3).double()), x, 0)


def test_a_heatmap_is_cut_scaled_and_summed_over_channels():
    shares = torch.zeros(1, 3, 10, 10)
    shares[0, :, 0, 0], shares[0, :, 0, 1] = -1000.0, 1.0
    shares[0, :, 1:] = 0.5
    plain = heatmap(shares, percentile=98)
    assert plain.shape == (1, 10, 10)
    assert (float(plain.min()), float(plain.max())) == (0.0, 1.0)
    assert float(plain[0, 0, 0]) == 1.0  # one pixel of a thousand times the rest does not darken it
    assert float(plain[0, 5, 5]) > 0.1
    assert float(heatmap(shares, signed=True)[0, 0, 0]) == -1.0
    assert torch.equal(heatmap(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))
