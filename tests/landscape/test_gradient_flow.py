"""Gradient flow agrees with its closed form on scalar networks, keeps what it conserves, and leaves parameters alone."""

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, NonFiniteError
from covector.landscape import ScalarNetwork, gfs_sharpness, gradient_flow, monotone
from covector.objective import Objective
from covector.trees import digest


def scalar(w: torch.Tensor, target: float = 1.0) -> Objective:
    return Objective.from_function(lambda p, _: 0.5 * (p["w"].prod() - target) ** 2, {"w": w.clone()})


WEIGHTS = torch.tensor([[0.5, 1.4, 0.9], [2.0, 0.3, 1.1], [-0.7, -1.2, 0.6]], dtype=torch.float64)


@pytest.mark.parametrize("target", [1.0, 2.5])
def test_runge_kutta_ends_where_the_closed_form_does(target):
    network = ScalarNetwork(target)
    for w in WEIGHTS:
        flow = gradient_flow(scalar(w, target), None, alpha=0.1, tol_loss=1e-18)
        torch.testing.assert_close(flow.params["w"], network.solution(w), atol=2e-6, rtol=0)
        assert flow.sharpness == pytest.approx(float(network.solution_sharpness(w)), rel=1e-5)
        assert flow.converged


def test_the_closed_form_keeps_what_gradient_flow_conserves_and_is_a_minimum():
    w, s = WEIGHTS, ScalarNetwork(2.5).solution(WEIGHTS)
    torch.testing.assert_close(s.prod(-1), torch.full((3,), 2.5, dtype=torch.float64))
    torch.testing.assert_close(s[:, :1] ** 2 - s**2, w[:, :1] ** 2 - w**2, atol=1e-12, rtol=0)


def test_sharpness_of_the_solution_is_that_of_the_hessian_there():
    network = ScalarNetwork(2.5)
    for w in WEIGHTS:
        hessian = torch.func.hessian(network.loss)(network.solution(w))
        assert float(torch.linalg.eigvalsh(hessian)[-1]) == pytest.approx(float(network.solution_sharpness(w)))


def test_gradient_of_a_scalar_network_is_that_of_autograd():
    w = WEIGHTS.clone().requires_grad_()
    network = ScalarNetwork()
    (expected,) = torch.autograd.grad(network.loss(w).sum(), w)
    torch.testing.assert_close(network.gradient(WEIGHTS), expected)
    rates = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    torch.testing.assert_close(network.step(WEIGHTS, rates), WEIGHTS - rates[:, None] * expected)


def test_gradient_descent_never_increases_it_while_the_loss_oscillates():
    network, w = ScalarNetwork(), WEIGHTS[:1]
    lr = 2.4 / network.solution_sharpness(w)
    losses, values = [], []
    for _ in range(300):
        losses.append(float(network.loss(w)))
        values.append(float(network.solution_sharpness(w)))
        w = network.step(w, lr)
    assert monotone(values, 1e-9).holds
    assert monotone(losses).rises > 50
    assert values[-1] < values[0]


def test_parameters_stay_and_time_can_be_bounded():
    torch.manual_seed(0)
    objective = Objective(nn.Linear(2, 1).double(), nn.functional.mse_loss)
    batch = (torch.randn(9, 2, dtype=torch.float64), torch.randn(9, 1, dtype=torch.float64))
    before = digest(objective.params)
    flow = gradient_flow(objective, batch, end=0.37)
    assert digest(objective.params) == before
    assert flow.time == pytest.approx(0.37)
    assert not flow.converged
    exact = torch.linalg.lstsq(torch.cat([batch[0], torch.ones(9, 1)], 1), batch[1]).solution[:2, 0]
    end = gradient_flow(objective, batch, tol_gradient=1e-9)
    torch.testing.assert_close(end.params["weight"][0], exact, atol=1e-7, rtol=0)


def test_order_four():
    def error(alpha):
        bowl = Objective.from_function(lambda p, _: p["x"].square().sum() / 2, {"x": torch.ones(1).double()})
        flow = gradient_flow(bowl, None, alpha=alpha, tol_loss=0.0, end=1.0)
        return abs(float(flow.params["x"]) - float(torch.tensor(-1.0).double().exp()))

    assert error(0.125) < error(0.25) / 14


def test_what_has_no_end_is_refused():
    with pytest.raises(ArgumentError, match="max_steps"):
        gfs_sharpness(scalar(WEIGHTS[0]), None, max_steps=2)
    with pytest.raises(ArgumentError, match="alpha"):
        gradient_flow(scalar(WEIGHTS[0]), None, alpha=3.0)
    with pytest.raises(ArgumentError, match="products"):
        ScalarNetwork().solution(torch.tensor([1.0, -1.0]))
    with pytest.raises(ArgumentError, match="target"):
        ScalarNetwork(-1.0)
    hill = Objective.from_function(lambda p, _: -(p["x"] ** 4).sum(), {"x": torch.ones(1)})
    with pytest.raises((ArgumentError, NonFiniteError)):
        gradient_flow(hill, None, tol_loss=-float("inf"))


def test_monotone_counts_rises_beyond_the_tolerance():
    assert monotone([3.0, 2.0, 2.0, 1.0]).holds
    assert monotone([1.0, 1.0 + 1e-10], 1e-9).holds
    found = monotone([4.0, 5.0, 2.0, 3.0])
    assert (found.rises, found.worst, found.step) == (2, 0.5, 2)
    assert monotone([1.0]).holds
    with pytest.raises(ArgumentError, match="values"):
        monotone([1.0, float("nan")])
