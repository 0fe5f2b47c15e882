"""The vanishing-gradient penalty and clipping: closed forms, finite differences and torch's own clipping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, MismatchError, NonFiniteError
from covector.nn import VanishingGradientPenalty, clip_norm_, explicit_penalty, jacobian_norm_profile


def unroll(cell, inputs, hidden):
    states = [torch.zeros(inputs.shape[1], hidden, dtype=inputs.dtype)]
    for x in inputs:
        states.append(cell(x, states[-1]))
    return states


def problem(cell, hidden=4, steps=5, batch=3, seed=0):
    inputs = torch.randn(steps, batch, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    states = unroll(cell, inputs, hidden)
    return inputs, states, states[-1].square().mean() + states[2].sum()


class Linear(nn.Module):
    """``h <- h W^T``: its one-step Jacobian is W."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x, state):
        return state @ self.weight.mT + x.sum(-1, keepdim=True)


@pytest.mark.parametrize("ratio", ["squared", "norm"])
@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_a_multiple_of_an_orthogonal_matrix_has_a_known_penalty(ratio, scale):
    q = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    cell = Linear(scale * q)
    inputs, states, _ = problem(cell)
    omega = VanishingGradientPenalty(cell, ratio)(states[-1].sum(), inputs, states)
    expected = ((scale**2 if ratio == "squared" else scale) - 1) ** 2
    assert omega.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("make", [nn.RNNCell, nn.GRUCell])
@pytest.mark.parametrize("ratio", ["squared", "norm"])
def test_penalty_is_the_sum_over_one_step_jacobians(make, ratio):
    torch.manual_seed(0)
    cell = make(2, 4, dtype=torch.float64)
    inputs, states, loss = problem(cell)
    found = VanishingGradientPenalty(cell, ratio)(loss, inputs, states)
    terms = []
    upstream = torch.autograd.grad(loss, states[1:], retain_graph=True)
    for t, d in enumerate(upstream):
        for b in range(3):
            jacobian = torch.autograd.functional.jacobian(
                lambda h, t=t, b=b: cell(inputs[t, b], h), states[t][b].detach()
            )
            value = (d[b] @ jacobian).square().sum() / d[b].square().sum()
            terms.append(((value if ratio == "squared" else value.sqrt()) - 1).square())
    assert found.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-10)


def test_explicit_form_agrees_and_its_gradient_passes_finite_differences():
    torch.manual_seed(0)
    cell = nn.RNNCell(2, 4, dtype=torch.float64)
    inputs, states, loss = problem(cell)
    upstream = torch.stack(torch.autograd.grad(loss, states[1:], retain_graph=True))
    derivative = 1 - torch.stack(states[1:]).square()
    for ratio in ("squared", "norm"):
        explicit = explicit_penalty(cell.weight_hh, upstream, derivative, ratio)
        assert explicit.item() == pytest.approx(
            VanishingGradientPenalty(cell, ratio)(loss, inputs, states).item(), rel=1e-10
        )
        weight = cell.weight_hh.detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda w, r=ratio: explicit_penalty(w, upstream, derivative, r), weight)


def test_gradient_of_the_general_form_is_that_of_finite_differences_with_states_held():
    torch.manual_seed(0)
    cell = nn.RNNCell(2, 3, dtype=torch.float64)
    inputs, states, loss = problem(cell, hidden=3)
    upstream = torch.autograd.grad(loss, states[1:], retain_graph=True)
    VanishingGradientPenalty(cell)(loss, inputs, states).backward()
    held = [state.detach() for state in states]

    def omega():
        terms = []
        for t, d in enumerate(upstream):
            a = torch.tanh(inputs[t] @ cell.weight_ih.mT + cell.bias_ih + held[t] @ cell.weight_hh.mT + cell.bias_hh)
            passed = (d * (1 - a.square())) @ cell.weight_hh
            terms.append((passed.square().sum(-1) / d.square().sum(-1) - 1).square())
        return torch.stack(terms).mean().item()

    with torch.no_grad():
        for parameter in (cell.weight_hh, cell.weight_ih, cell.bias_hh):
            index = (0,) * parameter.ndim
            ends = []
            for shift in (1e-5, -1e-5):
                parameter[index] += shift
                ends.append(omega())
                parameter[index] -= shift
            assert parameter.grad[index].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-9)


def test_the_loss_can_still_be_differentiated():
    torch.manual_seed(0)
    cell = nn.GRUCell(2, 4, dtype=torch.float64)
    inputs, states, loss = problem(cell)
    alone = torch.autograd.grad(loss, cell.weight_hh, retain_graph=True)[0]
    omega = VanishingGradientPenalty(cell)(loss, inputs, states)
    of_omega = torch.autograd.grad(omega, cell.weight_hh, retain_graph=True)[0]
    (loss + 2.0 * omega).backward()
    assert torch.allclose(cell.weight_hh.grad, alone + 2.0 * of_omega)
    assert all(torch.isfinite(p.grad).all() for p in cell.parameters())


def test_vanished_gradients_do_not_count():
    cell = Linear(torch.zeros(3, 3, dtype=torch.float64))
    inputs, states, _ = problem(cell, hidden=3)
    for ratio in ("squared", "norm"):
        omega = VanishingGradientPenalty(cell, ratio)(states[-1].sum(), inputs, states)
        assert omega.item() == pytest.approx(1.0)  # of five steps only the last has a gradient, and it is lost
        omega.backward(retain_graph=True)
    assert torch.isfinite(cell.weight.grad).all()
    untouched = VanishingGradientPenalty(cell)(0.0 * states[-1].sum(), inputs, states)
    assert untouched.item() == 0.0


def test_profile_of_a_contracting_chain_is_geometric():
    cell = Linear(0.5 * torch.eye(4, dtype=torch.float64))
    _, states, _ = problem(cell)
    profile = jacobian_norm_profile(states[-1].sum(), states)
    expected = [2.0 * 0.5 ** (5 - t) if t else 0.0 for t in range(6)]  # the initial state is a constant
    assert profile.tolist() == pytest.approx(expected)


def test_wrong_arguments_are_refused():
    cell = nn.RNNCell(2, 4, dtype=torch.float64)
    inputs, states, loss = problem(cell)
    with pytest.raises(ArgumentError):
        VanishingGradientPenalty(cell, "cubed")
    with pytest.raises(MismatchError, match="6 states for 4 inputs"):
        VanishingGradientPenalty(cell)(loss, inputs[:4], states)
    with pytest.raises(ArgumentError, match="scalar"):
        jacobian_norm_profile(states[-1], states)
    with pytest.raises(ArgumentError, match="graph"):
        jacobian_norm_profile(loss, [states[1].detach()])
    with pytest.raises(MismatchError):
        explicit_penalty(torch.eye(3), torch.zeros(5, 3, 4), torch.zeros(5, 3, 4))


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_clipping_is_torchs_up_to_its_epsilon(limit):
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5))]
    for p in parameters:
        p.grad = torch.randn_like(p)
    ours = {str(i): p.grad.clone() for i, p in enumerate(parameters)}
    norm = clip_norm_(ours, limit)
    assert norm == pytest.approx(nn.utils.clip_grad_norm_(parameters, limit).item(), rel=1e-6)
    for mine, p in zip(ours.values(), parameters, strict=True):
        assert torch.allclose(mine, p.grad, rtol=1e-5)


def test_clipped_gradients_have_exactly_the_limit_as_norm():
    grads = {"w": torch.randn(100, dtype=torch.float64) * 1e3}
    clip_norm_(grads, 0.5)
    assert grads["w"].norm().item() == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_follows_the_policy(bad):
    def grads():
        return {"w": torch.tensor([1.0, bad]), "b": torch.tensor([2.0])}

    kept = grads()
    with pytest.raises(NonFiniteError):
        clip_norm_(kept, 1.0)
    assert kept["b"].item() == 2.0
    zeroed = grads()
    clip_norm_(zeroed, 1.0, "zero")
    assert all((g == 0).all() for g in zeroed.values())
    shrunk = grads()
    clip_norm_(shrunk, 1.0, "shrink", shrink={"w": torch.tensor([5.0, -10.0])})
    assert shrunk["w"].tolist() == pytest.approx([0.1, -0.2])
    assert shrunk["b"].item() == 0.0


def test_wrong_limits_and_policies_are_refused():
    grads = {"w": torch.ones(2)}
    for arguments in ((0.0,), (math.inf,), (1.0, "ignore"), (1.0, "shrink"), (1.0, "zero", grads)):
        with pytest.raises(ArgumentError):
            clip_norm_(grads, *arguments)
    with pytest.raises(MismatchError):
        clip_norm_(grads, 1.0, "shrink", shrink={"v": torch.ones(2)})
    assert torch.equal(grads["w"], torch.ones(2))
