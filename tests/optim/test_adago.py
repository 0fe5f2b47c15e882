"""AdaGO and LANTON: step sizes by matrix, against closed forms and in their limits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.linalg import msign
from covector.optim import LANTON, AdaGO, AdaGOStep, Frobenius, MaxAbs, Muon, Spectral, TrustRegion

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_adago_is_the_published_algorithm() -> None:
    p = nn.Parameter(draw(5, 4, seed=99))
    optimizer = AdaGO([p], lr=0.5, momentum=0.9, gamma=4.0, min_step=0.2, v0=0.3, method="svd")
    w, m, v = draw(5, 4, seed=99), torch.zeros(5, 4, dtype=F64), 0.3**2
    shares = set()
    for step in range(12):
        g = draw(5, 4, seed=step)
        p.grad = g.clone()
        optimizer.step()
        m = 0.9 * m + 0.1 * g
        c = min(float(g.norm()), 4.0)
        v += c * c
        rate = max(0.2, 0.5 * c / math.sqrt(v))
        shares.add(rate)
        w = w - rate * msign(m, "svd")
    torch.testing.assert_close(p.detach(), w)
    assert min(shares) == 0.2 < max(shares)  # the floor was met, and so was more


def test_rank_one_without_momentum_is_adagrad_norm() -> None:
    p = nn.Parameter(draw(1, 6, seed=99))
    optimizer = AdaGO([p], lr=0.5, momentum=0.0, gamma=math.inf, min_step=0.0, v0=0.1, method="svd")
    w, total = draw(1, 6, seed=99), 0.1**2
    for step in range(20):
        g = draw(1, 6, seed=step)
        p.grad = g.clone()
        optimizer.step()
        total += float((g**2).sum())
        w = w - 0.5 * g / math.sqrt(total)
    torch.testing.assert_close(p.detach(), w)


def test_steps_fall_as_the_root_of_the_number_of_steps() -> None:
    p = nn.Parameter(torch.zeros(3, 3, dtype=F64))
    optimizer = AdaGO([p], lr=1.0, min_step=0.0, v0=1e-9, method="svd")
    lengths = []
    for _ in range(64):
        p.grad = torch.eye(3, dtype=F64)
        lengths.append(float(optimizer.update()[p].diagonal().abs().mean()))
    expected = torch.arange(1, 65, dtype=F64).rsqrt()
    torch.testing.assert_close(torch.tensor(lengths, dtype=F64), expected)
    # what dividing by the sum instead of its root would give falls as 1 / t
    assert lengths[63] == pytest.approx(8 / 64)
    assert lengths[63] > 4 / 64


def test_a_vanishing_learning_rate_leaves_muon_with_the_smallest_step() -> None:
    def path(make: Any, **options: Any) -> Tensor:
        p = nn.Parameter(draw(4, 4, seed=99))
        optimizer = make([p], nesterov=False, scale="none", **options)
        for step in range(6):
            p.grad = draw(4, 4, seed=step)
            optimizer.step()
        return p.detach()

    torch.testing.assert_close(path(AdaGO, lr=1e-12, min_step=0.03), path(Muon, lr=0.03))


def test_the_trajectory_does_not_depend_on_the_scale_of_the_loss() -> None:
    def path(factor: float) -> Tensor:
        p = nn.Parameter(draw(4, 4, seed=99))
        optimizer = AdaGO([p], gamma=2.0 * factor, v0=0.1 * factor, method="svd")
        for step in range(6):
            p.grad = factor * draw(4, 4, seed=step)
            optimizer.step()
        return p.detach()

    torch.testing.assert_close(path(1.0), path(1000.0))


def test_the_rule_can_be_used_with_any_optimizer_of_matrices() -> None:
    p, q = (nn.Parameter(torch.zeros(3, 3)) for _ in range(2))
    one = AdaGO([p], lr=0.05)
    two = Muon([q], lr=0.05, nesterov=False, scale="none", scales=(AdaGOStep(),))
    for step in range(4):
        p.grad = q.grad = draw(3, 3, seed=step).float()
        one.step()
        two.step()
    assert torch.equal(p, q)


def noisy(optimizer: Any, layers: list[nn.Parameter], noise: list[float], steps: int = 40) -> None:
    for step in range(steps):
        for i, (p, level) in enumerate(zip(layers, noise, strict=True)):
            p.grad = p.detach() - 1.0 + level * draw(*p.shape, seed=1000 * i + step)
        optimizer.step()


@pytest.mark.parametrize("options", [{"norm": Spectral("svd")}, {"norm": MaxAbs()}, {"norm": Frobenius()}, {}], ids=str)
def test_with_equal_noise_lanton_is_its_base(options: dict[str, Any]) -> None:
    def path(make: Any, **more: Any) -> list[Tensor]:
        layers = [nn.Parameter(torch.zeros(4, 4, dtype=F64)) for _ in range(3)]
        optimizer = make(layers, **options, **more)
        for step in range(10):
            for p in layers:
                p.grad = p.detach() - 1.0 + draw(4, 4, seed=step)
            optimizer.step()
        return [p.detach() for p in layers]

    for ours, base in zip(path(LANTON), path(TrustRegion), strict=True):
        torch.testing.assert_close(ours, base)


def test_a_high_level_leaves_all_steps_as_they_are() -> None:
    layers = [nn.Parameter(torch.zeros(4, 4, dtype=F64)) for _ in range(2)]
    optimizer = LANTON(layers, alpha=1e9)
    noisy(optimizer, layers, [0.0, 3.0])
    assert all(value == pytest.approx(1.0) for value in optimizer.multipliers().values())


@pytest.mark.parametrize("dual", ["lmo", "exact", "fro"])
def test_noisier_layers_take_shorter_steps(dual: str) -> None:
    layers = [nn.Parameter(torch.zeros(6, 6, dtype=F64)) for _ in range(4)]
    optimizer = LANTON(layers, alpha=3.0, norm=Spectral("svd"), dual=dual)
    noisy(optimizer, layers, [0.0, 0.1, 1.0, 3.0])
    values = [optimizer.multipliers()[p] for p in layers]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.0
    assert 0.0 < values[3] < 0.5


def test_the_multiplier_is_the_published_one() -> None:
    a, b = (nn.Parameter(torch.zeros(3, 3, dtype=F64)) for _ in range(2))
    optimizer = LANTON([a, b], norm=Spectral("svd"), alpha=2.0, beta=0.7, dual="exact")
    previous: dict[str, Tensor] = {}
    noise = {"a": 0.0, "b": 0.0}
    for step in range(5):
        grads = {"a": draw(3, 3, seed=step), "b": 3 * draw(3, 3, seed=step + 50)}
        a.grad, b.grad = grads["a"].clone(), grads["b"].clone()
        optimizer.step()
        for name, g in grads.items():
            if name in previous:
                noise[name] = 0.7 * noise[name] + 0.3 * float(torch.linalg.svdvals(g - previous[name]).sum()) ** 2
        previous = grads
    level = {name: 2.0 / math.sqrt(4.0 + h) for name, h in noise.items()}
    found = optimizer.multipliers()
    assert found[a] == pytest.approx(math.sqrt(level["a"] / max(level.values())))
    assert found[b] == pytest.approx(math.sqrt(level["b"] / max(level.values())))


def test_noise_is_compared_among_layers_of_the_same_norm_only() -> None:
    matrix, vector = nn.Parameter(torch.zeros(4, 4, dtype=F64)), nn.Parameter(torch.zeros(4, dtype=F64))
    optimizer = LANTON([matrix, vector], alpha=0.1)
    noisy(optimizer, [matrix, vector], [3.0, 0.0])
    assert list(optimizer.multipliers().values()) == [1.0, 1.0]


def test_a_held_gradient_of_a_second_batch_measures_the_noise_alone() -> None:
    a, b = (nn.Parameter(torch.zeros(3, 3, dtype=F64)) for _ in range(2))
    optimizer = LANTON([a, b], norm=Frobenius(), reference="held", beta=0.0, alpha=1.0)
    for p in (a, b):
        p.grad = torch.ones(3, 3, dtype=F64)
    optimizer.hold()
    a.grad, b.grad = torch.ones(3, 3, dtype=F64), torch.zeros(3, 3, dtype=F64)
    optimizer.step()
    assert float(optimizer.state[a]["noise"]) == 0.0
    assert float(optimizer.state[b]["noise"]) == pytest.approx(9.0)


def test_noise_measured_now_and_then_still_orders_the_layers() -> None:
    layers = [nn.Parameter(torch.zeros(4, 4, dtype=F64)) for _ in range(2)]
    optimizer = LANTON(layers, alpha=0.5, every=5)
    noisy(optimizer, layers, [0.01, 3.0])
    assert optimizer.multipliers()[layers[1]] < 0.6


@pytest.mark.parametrize("options", [{"gamma": 0.0}, {"v0": -1.0}, {"min_step": -1.0}], ids=str)
def test_adago_names_what_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        AdaGO([nn.Parameter(torch.zeros(2, 2))], **options)


@pytest.mark.parametrize(
    "options", [{"alpha": 0.0}, {"beta": 1.0}, {"reference": "next"}, {"dual": "l1"}, {"every": 0}], ids=str
)
def test_lanton_names_what_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        LANTON([nn.Parameter(torch.zeros(2, 2))], **options)
