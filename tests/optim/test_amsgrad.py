"""AMSGrad in both forms, AdamNC, the counterexample to Adam's convergence, and the quantity that explains it."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from covector import optim
from covector.errors import ArgumentError, UnsupportedError
from covector.optim import Adagrad, Adam, AdamNC, AMSGrad, adam_divergence, effective_step_monotone


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_in_torch_s_form_two_hundred_steps_are_torch_s(paths, decay):
    ours = paths.run(lambda params: AMSGrad(params, lr=1e-2, betas=(0.9, 0.9), weight_decay=decay))
    theirs = paths.run(
        lambda params: torch.optim.Adam(params, lr=1e-2, betas=(0.9, 0.9), weight_decay=decay, amsgrad=True)
    )
    assert paths.distance(ours, theirs) < 1e-12
    decoupled = paths.run(lambda params: AMSGrad(params, lr=1e-2, betas=(0.9, 0.9), weight_decay=decay, decoupled=True))
    adamw = paths.run(
        lambda params: torch.optim.AdamW(params, lr=1e-2, betas=(0.9, 0.9), weight_decay=decay, amsgrad=True)
    )
    assert paths.distance(decoupled, adamw) < 1e-12


def test_in_the_paper_s_form_it_is_its_algorithm(paths):
    lr, b1, b2, decay, eps = 0.05, 0.9, 0.9, 0.98, 1e-8
    ours = paths.run(
        lambda params: AMSGrad(params, lr=lr, betas=(b1, b2), form="paper", b1_decay=decay, sqrt_decay=True)
    )
    params = paths.start()
    m, v, top = ([torch.zeros_like(p) for p in params] for _ in range(3))
    for t in range(1, 201):
        b = b1 * decay ** (t - 1)
        for i, p in enumerate(params):
            g = paths.gradient(p, t - 1)
            m[i], v[i] = b * m[i] + (1 - b) * g, b2 * v[i] + (1 - b2) * g * g
            top[i] = torch.maximum(top[i], v[i])
            p.data.sub_(lr / t**0.5 * m[i] / (top[i].sqrt() + eps))
    assert paths.distance(ours, [p.detach() for p in params]) < 1e-12


def test_adamnc_without_momentum_is_adagrad(paths):
    ours = paths.run(lambda params: AdamNC(params, lr=0.05, b1=0.0, eps=0.0))
    theirs = paths.run(lambda params: Adagrad(params, lr=0.05, eps=0.0))
    assert paths.distance(ours, theirs) < 1e-12


def follow(problem, make, steps, rate):
    x = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = make([x], lr=rate, betas=problem.betas, constraint=problem.box)
    scheduler = LambdaLR(optimizer, lambda t: (t + 1) ** -0.5)
    watch = effective_step_monotone(optimizer)
    points = torch.empty(steps, dtype=torch.float64)
    slopes = problem.slopes(steps)
    for t in range(steps):
        points[t] = x.item()
        x.grad = slopes[t].reshape(1)
        optimizer.step()
        scheduler.step()
    return points, slopes, watch


@pytest.mark.parametrize("path", ["compiled", "foreach"])
def test_adam_goes_to_the_worst_point_and_amsgrad_to_the_best(path, monkeypatch):
    monkeypatch.setenv("COVECTOR_OPTIM", "foreach" if path == "foreach" else "")
    problem = adam_divergence(3.0)
    wrong, slopes, grows = follow(problem, Adam, 1500, 0.3)
    right, _, steady = follow(problem, lambda params, **options: AMSGrad(params, form="paper", **options), 1500, 0.3)
    assert wrong[-1] > 0.95
    assert right[-1] < -0.9
    assert grows.worst == 1.0
    assert steady.worst == 0.0
    assert problem.regret(wrong, slopes)[-1] > 5 * problem.regret(right, slopes)[-1]


def test_slopes_are_those_of_the_problems():
    theorem, online, stochastic = (
        adam_divergence(3.0),
        adam_divergence(problem="online"),
        adam_divergence(problem="stochastic"),
    )
    assert theorem.slopes(7).tolist() == [3, -1, -1, 3, -1, -1, 3]
    assert theorem.betas[1] == pytest.approx(0.1)
    assert (online.slopes(303) > 0).sum() == 3
    assert online.mean == pytest.approx((1010 - 1000) / 101)
    many = stochastic.slopes(200_000)
    assert float((many > 0).double().mean()) == pytest.approx(0.01, rel=0.1)
    assert torch.equal(many[100:200], stochastic.slopes(100, start=100))
    assert stochastic.mean > 0


@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adagrad", "RMSprop"])
def test_torch_s_own_optimizers_can_be_watched(name):
    p = nn.Parameter(torch.ones(4))
    optimizer = getattr(torch.optim, name)([p], lr=0.1)
    watch = effective_step_monotone(optimizer)
    for _ in range(3):
        p.grad = torch.ones(4)
        optimizer.step()
    assert watch.shares == [0.0, 0.0]
    watch.remove()
    optimizer.step()
    assert len(watch.shares) == 2


def test_an_optimizer_without_a_second_moment_cannot_be_watched():
    p = nn.Parameter(torch.ones(4))
    optimizer = optim.SGD([p], momentum=0.9)
    effective_step_monotone(optimizer)
    p.grad = torch.ones(4)
    with pytest.raises(UnsupportedError, match="momentum_buffer"):
        optimizer.step()


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"b1_decay": 0.0, "form": "paper"}, "b1_decay"), ({"sqrt_decay": True}, "sqrt_decay"), ({"second": "mean"}, "second"),
        ({"second": "sum", "form": "paper"}, "second"), ({"betas": (0.9, 1.0)}, "betas"), ({"form": "keras"}, "form"),
    ],
)  # fmt: skip
def test_a_hyperparameter_out_of_range_is_named(options, argument):
    with pytest.raises(ArgumentError, match=argument):
        AMSGrad([nn.Parameter(torch.zeros(1))], **options)


@pytest.mark.parametrize(("c", "problem"), [(2.0, "theorem"), (float("nan"), "theorem"), (3.0, "other")])
def test_a_problem_that_is_none_is_refused(c, problem):
    with pytest.raises(ArgumentError):
        adam_divergence(c, problem)
