"""Moments of per-example gradients against closed forms, and their estimators against each other."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from covector import Objective, trees
from covector.errors import ArgumentError, CompositionError, UnsupportedError
from covector.optim import GhostNorms, GradientMoments, inner_products, per_example_gradients

DOUBLE = torch.float64


class Tokens(nn.Module):
    """Embedding with padding, a shared linear layer used twice, layer norms, a head tied to nothing."""

    def __init__(self, padding=0):
        super().__init__()
        self.embed = nn.Embedding(9, 6, padding_idx=padding)
        self.norm = nn.LayerNorm(6)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, 4, bias=False)

    def forward(self, ids):
        x = self.norm(self.embed(ids))
        return self.head(self.mix(torch.tanh(self.mix(x)))).mean(1)


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 5, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(5, 3, (2, 1), dilation=2),
            nn.Flatten(),
            nn.Linear(3 * 2 * 4, 4),
        )

    def forward(self, x):
        return self.layers(x)


def problem(kind, size=10):
    torch.manual_seed(3)
    targets = torch.randint(0, 4, (size,))
    if kind == "plain":
        module, inputs = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)), torch.randn(size, 5)
    elif kind == "images":
        module, inputs = Images(), torch.randn(size, 2, 8, 8)
    elif kind == "long":
        module, inputs = (
            nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(24, 4)),
            torch.randn(size, 12, 3),
        )
    else:
        module, inputs = Tokens(), torch.randint(0, 9, (size, 5))
    inputs = inputs.to(DOUBLE) if inputs.is_floating_point() else inputs
    return Objective(module.to(DOUBLE), F.cross_entropy), (inputs, targets)


def cloud(count=400, dim=50, sigma=0.5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mean = torch.randn(dim, generator=draw, dtype=DOUBLE)
    return mean, mean + sigma * torch.randn(count, dim, generator=draw, dtype=DOUBLE)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["plain", "images", "tokens", "long"])
def test_per_example_gradients_are_those_of_batches_of_one(kind):
    objective, (x, y) = problem(kind)
    losses, gradients = per_example_gradients(objective, (x, y))
    for i in range(len(y)):
        loss = objective((x[i : i + 1], y[i : i + 1]))
        alone = torch.autograd.grad(loss, list(objective.params.values()))
        close(losses[i], loss.detach())
        for own, g in zip(alone, gradients.values(), strict=True):
            close(g[i], own)


@pytest.mark.parametrize("kind", ["plain", "images", "tokens", "long"])
def test_ghost_norms_are_the_norms_of_the_gradients_they_do_not_form(kind):
    objective, batch = problem(kind)
    _, gradients = per_example_gradients(objective, batch)
    ghost = GhostNorms(objective, batch)
    close(ghost.squared_norms(), sum(g.flatten(1).square().sum(1) for g in gradients.values()))
    expected, found = GradientMoments.from_examples(gradients), ghost.moments(inner=True, variance=True)
    for name in expected.mean:
        close(found.mean[name], expected.mean[name])
        close(found.variance[name], expected.variance[name])
    close([found.trace, found.inner, found.inner_by_tensor], [expected.trace, expected.inner, expected.inner_by_tensor])


def test_a_linear_layers_norm_is_goodfellows_product():
    objective, (x, y) = problem("plain")
    layer = Objective(objective.module[0], lambda out, target: out.pow(3).sum(1).mean())
    x = x[:4]
    delta = 3 * layer.module(x).detach().square()
    expected = delta.square().sum(1) * (x.square().sum(1) + 1)  # the bias counts as one more input
    close(GhostNorms(layer, (x, y[:4])).squared_norms(), expected)


def test_inner_products_are_a_forward_pass_with_tangents():
    objective, batch = problem("tokens")
    _, gradients = per_example_gradients(objective, batch)
    direction = {name: torch.randn_like(p) for name, p in objective.params.items()}
    direction["embed.weight"][0] = 0.0  # the padding's row has no gradient, but torch gives it tangents
    expected = sum((g * direction[name]).flatten(1).sum(1) for name, g in gradients.items())
    close(inner_products(objective, batch, direction), expected)


def test_the_moments_of_a_gaussian_cloud_are_its_own():
    mean, x = cloud(count=20_000, dim=20, sigma=0.5)
    moments = GradientMoments.from_examples({"x": x})
    assert moments.trace == pytest.approx(20 * 0.25, rel=0.02)
    # <g, mean> is normal with variance sigma^2 ||mean||^2
    assert moments.inner == pytest.approx(0.25 * float(mean @ mean), rel=0.05)
    assert moments.signal == pytest.approx(float(mean @ mean), rel=0.02)
    assert moments.noise_scale == pytest.approx(20 * 0.25 / float(mean @ mean), rel=0.04)


def test_the_law_of_total_variance_is_exact_for_any_parts():
    _, x = cloud()
    whole = GradientMoments.from_examples({"x": x[:, :30], "y": x[:, 30:]})
    parts = [
        GradientMoments.from_examples({"x": part[:, :30], "y": part[:, 30:]}) for part in x.split([1, 150, 9, 240])
    ]
    merged = GradientMoments.merge(parts)
    assert merged.count == whole.count
    close(merged.trace, whole.trace)
    for name in whole.mean:
        close(merged.mean[name], whole.mean[name])
        close(merged.variance[name], whole.variance[name])
    assert merged.inner is None


def test_micro_batches_of_one_are_the_examples():
    _, x = cloud(count=40)
    whole = GradientMoments.from_examples({"x": x[:, :30], "y": x[:, 30:]})
    micro = GradientMoments.from_means([{"x": row[:30], "y": row[30:]} for row in x], [1] * 40)
    close([micro.trace, micro.inner, micro.inner_by_tensor], [whole.trace, whole.inner, whole.inner_by_tensor])
    close(micro.variance["x"], whole.variance["x"])


def test_micro_batches_of_unequal_sizes_estimate_without_bias():
    sizes, found = [5, 20, 40, 35], []
    for seed in range(400):
        _, x = cloud(count=100, dim=5, sigma=1.0, seed=seed)
        found.append(GradientMoments.from_means([{"x": part.mean(0)} for part in x.split(sizes)], sizes).trace)
    error = torch.tensor(found).std() / 20
    assert abs(sum(found) / 400 - 5.0) < 4 * error


def test_one_example_has_no_variance():
    objective, (x, y) = problem("plain")
    one = (x[:1], y[:1])
    _, gradients = per_example_gradients(objective, one)
    for moments in (GradientMoments.from_examples(gradients), GhostNorms(objective, one).moments(inner=True)):
        assert math.isnan(moments.trace)
        assert moments.inner is None


def test_means_must_be_several():
    with pytest.raises(ArgumentError, match="at least two"):
        GradientMoments.from_means([{"x": torch.ones(1)}], [4])


def test_ghost_norms_leave_the_model_as_it_was():
    objective, batch = problem("tokens")
    before = trees.digest(objective.params)
    GhostNorms(objective, batch)
    assert trees.digest(objective.params) == before
    assert all(p.grad is None for p in objective.params.values())
    assert all(not module._forward_hooks for module in objective.module.modules())


def test_layers_without_a_ghost_are_refused_by_name_unless_untrained():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    batch = (torch.randn(6, 4), torch.randint(0, 2, (6,)))
    with pytest.raises(UnsupportedError, match="BatchNorm1d"):
        GhostNorms(Objective(module, F.cross_entropy), batch)
    trained = Objective(module, F.cross_entropy, trainable=["0.weight", "2.bias"])
    assert set(GhostNorms(trained, batch).factors) == {"0.weight", "2.bias"}


def test_inputs_without_the_examples_in_front_are_refused():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return self.layer(x.transpose(0, 1)).mean(0)

    objective = Objective(Turned(), F.cross_entropy)
    with pytest.raises(UnsupportedError, match="first dimension"):
        GhostNorms(objective, (torch.randn(6, 3, 4), torch.zeros(6, dtype=torch.long)))


def test_a_function_has_no_layers():
    objective = Objective.from_function(lambda p, b: (p["x"] * b).sum(), {"x": torch.ones(2)})
    with pytest.raises(CompositionError, match="module"):
        GhostNorms(objective, torch.ones(3, 2))
