"""The recursion in residuals and Jacobian is gradient descent; the two-parameter map and its limit are the theorem's."""

import pytest
import torch
from torch import nn

from covector.curvature import Hessian
from covector.errors import ArgumentError, CompositionError, MismatchError
from covector.landscape import QuadraticRegression, Sharpness, taylor, two_parameter
from covector.objective import Objective


def test_the_recursion_is_gradient_descent_on_the_parameters():
    model = QuadraticRegression.random(4, 7, sigma_z=0.5, seed=3)
    lr, theta, moved = 0.2, torch.zeros(7, dtype=torch.float64), model
    for _ in range(25):
        theta.requires_grad_()
        (slope,) = torch.autograd.grad(0.5 * model.residuals(theta).square().sum(), theta)
        theta = (theta - lr * slope).detach()
        moved = moved.step(lr)
    torch.testing.assert_close(moved.z, model.residuals(theta), atol=1e-12, rtol=0)
    jacobian = torch.func.jacrev(model.residuals)(theta)
    torch.testing.assert_close(moved.jacobian, jacobian, atol=1e-12, rtol=0)
    assert moved.eigenvalue() == pytest.approx(float(torch.linalg.eigvalsh(jacobian @ jacobian.mT)[-1]))


@pytest.mark.parametrize("energy", [0.0, 0.3])
def test_the_map_of_two_numbers_is_the_model_of_two_parameters(energy):
    epsilon, theta = 0.1, torch.tensor([1.2, 0.8], dtype=torch.float64)
    q = torch.diag(torch.tensor([1.0, -epsilon], dtype=torch.float64))
    z = 0.5 * theta @ q @ theta - energy
    model = QuadraticRegression(z[None], (q @ theta)[None], q[None])
    zs, ts = two_parameter(epsilon, float(z), model.eigenvalue(), 30, energy)
    run = model.simulate(1.0, 30)
    torch.testing.assert_close(ts, run.eigenvalues, atol=1e-10, rtol=0)
    torch.testing.assert_close(zs.square() / 2, run.losses, atol=1e-10, rtol=0)


@pytest.mark.parametrize("epsilon", [0.005, 0.01, 0.02])
@pytest.mark.parametrize("start", [2.02, 2.1])
def test_the_eigenvalue_ends_half_epsilon_below_two(epsilon, start):
    zs, ts = two_parameter(epsilon, -0.05, start, 20_000)
    assert abs(float(zs[-1])) < 1e-9
    assert (2 - float(ts[-1])) / epsilon == pytest.approx(0.5, abs=1.2 * epsilon)


def test_a_linear_model_keeps_its_kernel_and_is_stable_below_two():
    model = QuadraticRegression.random(5, 9, sigma_q=0.0, seed=1)
    edge = 2 / model.eigenvalue()
    stable, unstable = model.simulate(0.98 * edge, 2000), model.simulate(1.05 * edge, 2000)
    assert stable.losses[-1] < 1e-12 * stable.losses[0]
    assert unstable.losses[-1] == float("inf")
    torch.testing.assert_close(stable.eigenvalues, torch.full_like(stable.eigenvalues, model.eigenvalue()))


def test_a_quadratic_model_sharpens_to_the_edge():
    model = QuadraticRegression.random(20, 40, sigma_z=4.0, sigma_q=0.5)
    lr = 1.2 / model.eigenvalue()
    run = model.simulate(lr, 4000)
    assert lr * float(run.eigenvalues.max()) > 1.9
    assert lr * float(run.eigenvalues[-1]) < 2.01
    assert run.losses[-1] < 1e-6


def net():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    batch = (torch.randn(8, 2, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64))
    return Objective(module, nn.functional.mse_loss), batch


@pytest.mark.parametrize(("order", "power"), [(1, 2), (2, 3)])
def test_a_taylor_objective_departs_by_the_next_power_of_the_distance(order, power):
    objective, batch = net()
    expanded = taylor(objective, batch, order)
    direction = {name: torch.randn_like(p) for name, p in objective.params.items()}

    def gap(scale):
        there = {name: p.detach() + scale * direction[name] for name, p in objective.params.items()}
        return abs(float(objective(batch, there)) - float(expanded(batch, there)))

    assert 0.8 * 2**power < gap(2e-3) / gap(1e-3) < 1.2 * 2**power


def test_a_taylor_objective_of_order_two_has_the_gradient_and_the_hessian_of_the_network():
    objective, batch = net()
    expanded = taylor(objective, batch)
    torch.testing.assert_close(Hessian(expanded, batch).dense(), Hessian(objective, batch).dense(), atol=1e-9, rtol=0)
    assert Sharpness(Hessian(expanded, batch)).measure() == pytest.approx(
        float(torch.linalg.eigvalsh(Hessian(objective, batch).dense())[-1]), rel=1e-4
    )


def test_a_taylor_objective_of_a_quadratic_network_is_exact_everywhere():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.v = (nn.Parameter(torch.randn(3, dtype=torch.float64)) for _ in range(2))

        def forward(self, x):
            return x @ (self.u * self.v)

    objective = Objective(Product(), nn.functional.mse_loss)
    batch = (torch.randn(6, 3, dtype=torch.float64), torch.randn(6, dtype=torch.float64))
    far = {name: torch.randn(3, dtype=torch.float64) for name in ("u", "v")}
    torch.testing.assert_close(taylor(objective, batch)(batch, far), objective(batch, far))


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(MismatchError, match=r"\[D, P, P\]"):
        QuadraticRegression(torch.ones(2), torch.ones(2, 3), torch.ones(2, 3, 2))
    with pytest.raises(MismatchError, match="symmetric"):
        QuadraticRegression(torch.ones(1), torch.ones(1, 2), torch.tensor([[[0.0, 1.0], [2.0, 0.0]]]))
    with pytest.raises(ArgumentError, match="lr, steps"):
        QuadraticRegression.random(2, 3).simulate(-1.0, 5)
    with pytest.raises(ArgumentError, match="epsilon"):
        two_parameter(0.0, 0.1, 2.0, 5)
    with pytest.raises(ArgumentError, match="order"):
        taylor(*net(), order=3)
    with pytest.raises(CompositionError, match="outputs"):
        taylor(Objective.from_function(lambda p, _: p["x"].sum(), {"x": torch.ones(1)}), None)
