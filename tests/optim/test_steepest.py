"""Steepest descent in a norm, and the optimizers that it is without averages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from covector.errors import ArgumentError
from covector.linalg import inv_root, msign
from covector.optim import SGD, Adam, Frobenius, MaxAbs, Modular, Prodigy, Spectral, SteepestDescent, auto_norms

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_in_the_frobenius_norm_it_is_gradient_descent() -> None:
    w, v = (nn.Parameter(draw(4, 3)) for _ in range(2))
    ours, sgd = SteepestDescent([w], lr=0.1, norm=Frobenius()), SGD([v], lr=0.1)
    for step in range(5):
        w.grad, v.grad = draw(4, 3, seed=step), draw(4, 3, seed=step)
        ours.step()
        sgd.step()
    torch.testing.assert_close(w, v)


def test_a_model_moves_as_one_in_the_norm_of_its_layers() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.LSTM(5, 3), nn.Linear(3, 7)).double()
    optimizer = SteepestDescent(model, lr=0.1, method="svd")
    grads = {name: draw(*p.shape, seed=i) for i, (name, p) in enumerate(model.named_parameters())}
    for name, p in model.named_parameters():
        p.grad = grads[name].clone()
    updates = optimizer.update()
    expected = Modular(auto_norms(model, method="svd")).dualize(grads)
    for name, p in model.named_parameters():
        torch.testing.assert_close(updates[p], -0.1 * expected[name])
        assert torch.equal(p.grad, grads[name])


def test_uncoupled_layers_have_their_own_dual_norms() -> None:
    a, b = nn.Parameter(torch.zeros(2, 2, dtype=F64)), nn.Parameter(torch.zeros(3, 3, dtype=F64))
    optimizer = SteepestDescent([a, b], lr=1.0, norm=Spectral("svd"), coupled=False)
    a.grad, b.grad = draw(2, 2), draw(3, 3)
    for p, update in optimizer.update().items():
        torch.testing.assert_close(update, -Spectral("svd").dualize(p.grad))


def test_adam_without_averages_is_the_direction_of_the_max_norm() -> None:
    p = nn.Parameter(torch.zeros(4, 3, dtype=F64))
    p.grad = draw(4, 3)
    update = Adam([p], lr=1.0, betas=(0.0, 0.0), eps=0.0).update()[p]
    torch.testing.assert_close(update, -MaxAbs().lmo(p.grad))


def test_shampoo_on_one_gradient_is_the_direction_of_the_spectral_norm() -> None:
    g = draw(5, 5)
    step = inv_root(g @ g.T, 4, ridge=0.0) @ g @ inv_root(g.T @ g, 4, ridge=0.0)
    torch.testing.assert_close(step, Spectral("svd").lmo(g))
    torch.testing.assert_close(step, msign(g, "svd"))


def test_prodigy_without_averages_is_sign_descent_that_escapes() -> None:
    start = draw(6) + 3.0
    p = nn.Parameter(start.clone())
    optimizer = Prodigy([p], betas=(0.0, 0.0), beta3=1.0, eps=0.0, d0=1e-6)
    w, d = start.clone(), 1e-6
    inner, total = 0.0, torch.zeros(6, dtype=F64)
    distances = []
    for step in range(60):
        g = 2 * w + 0.1 * draw(6, seed=step)
        p.grad = 2 * p.detach() + 0.1 * draw(6, seed=step)
        optimizer.step()
        used = d
        inner += used**2 * float(g @ (start - w))
        total += used**2 * g
        d = max(d, inner / float(total.abs().sum()))
        w = w - used * g.sign()
        torch.testing.assert_close(p.detach(), w)
        distances.append(used)
    assert distances[0] == distances[1] == 1e-6
    assert distances[-1] > 1e4 * distances[0]  # it has escaped
    assert distances[-1] <= float((start - 0).abs().max()) * 1.5  # and does not overshoot the distance
    assert float((w**2).sum()) < 0.2 * float((start**2).sum())


def published(steps: int, d_coef: float, growth: float, corrected: bool) -> Tensor:
    """Prodigy for one vector, as its authors' program reads."""
    w = start = draw(8) + 2.0
    m, v, s = (torch.zeros(8, dtype=F64) for _ in range(3))
    b1, b2, beta3, lr, decay, d0, eps = 0.9, 0.99, 0.99**0.5, 0.7, 0.1, 1e-3, 1e-8
    d = best = d0
    numerator = 0.0
    for t in range(1, steps + 1):
        g = 2 * w + 0.3 * draw(8, seed=t)
        rate = d * lr * (((1 - b2**t) ** 0.5 / (1 - b1**t)) if corrected else 1.0)
        numerator = beta3 * numerator + d / d0 * rate * float(g @ (start - w))
        m = b1 * m + d * (1 - b1) * g
        v = b2 * v + d * d * (1 - b2) * g * g
        s = beta3 * s + d / d0 * rate * g
        found = d_coef * numerator / float(s.abs().sum())
        new = max(d, found) if d == d0 else d
        best = max(best, found)
        new = min(best, new * growth)
        w = w - decay * d * lr * w - rate * m / (v.sqrt() + d * eps)
        d = max(d, new)
    return w


@pytest.mark.parametrize(("d_coef", "growth", "corrected"), [(1.0, float("inf"), False), (0.5, 1.5, True)])
def test_prodigy_is_the_published_algorithm(d_coef: float, growth: float, corrected: bool) -> None:
    p = nn.Parameter(draw(8) + 2.0)
    optimizer = Prodigy(
        [p],
        lr=0.7,
        betas=(0.9, 0.99),
        weight_decay=0.1,
        d0=1e-3,
        d_coef=d_coef,
        growth=growth,
        bias_correction=corrected,
    )
    for t in range(1, 81):
        p.grad = 2 * p.detach() + 0.3 * draw(8, seed=t)
        optimizer.step()
    torch.testing.assert_close(p.detach(), published(80, d_coef, growth, corrected))


def test_the_estimate_of_prodigy_does_not_depend_on_the_split_into_groups() -> None:
    whole, parts = nn.Parameter(torch.ones(6, dtype=F64)), [nn.Parameter(torch.ones(3, dtype=F64)) for _ in range(2)]
    one, two = Prodigy([whole]), Prodigy([{"params": [p]} for p in parts])
    for _ in range(30):
        whole.grad = 2 * whole.detach()
        for p in parts:
            p.grad = 2 * p.detach()
        one.step()
        two.step()
    torch.testing.assert_close(whole.detach(), torch.cat([p.detach() for p in parts]))
    assert two.param_groups[0]["d"] == pytest.approx(one.param_groups[0]["d"], rel=1e-9)


@pytest.mark.parametrize("options", [{"d0": 0.0}, {"betas": (1.0, 0.9)}, {"d_coef": -1.0}, {"beta3": -0.5}], ids=str)
def test_what_cannot_work_is_named(options: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Prodigy([nn.Parameter(torch.zeros(2))], **options)
    with pytest.raises(ArgumentError, match="norm"):
        SteepestDescent([nn.Parameter(torch.zeros(2))], norm="spectral")
