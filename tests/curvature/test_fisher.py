"""Fisher matrices, the gradient covariance, the Jacobian and the tangent kernel, against what they are by definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from covector.curvature import Fisher, GaussNewton, GradientCovariance, Jacobian, TangentKernel
from covector.errors import ArgumentError, CompositionError
from covector.objective import Objective

BACKENDS = ["graph", "functional", "differences"]


def close(found, expected, backend="graph"):
    loose = backend == "differences"
    torch.testing.assert_close(found, expected, rtol=1e-5 if loose else 1e-9, atol=1e-7 if loose else 1e-11)


def test_the_true_fisher_matrix_is_the_gauss_newton_matrix(problem):
    close(Fisher(problem.objective, problem.batch).dense(), problem.gauss_newton())


def test_the_true_fisher_matrix_is_the_mean_over_the_models_own_targets(mlp):
    x, _ = mlp.batch
    probabilities = mlp.outputs(mlp.theta).softmax(1)
    expected = torch.zeros(len(mlp.theta), len(mlp.theta), dtype=torch.float64)
    for label in range(3):
        mlp.batch = (x, torch.full((len(x),), label))
        g = mlp.gradients()
        expected += (g * probabilities[:, label, None]).T @ g / len(x)
    close(Fisher(mlp.objective, mlp.batch).dense(), expected)


def test_the_gaussian_has_variance_one_half(build):
    problem, moment = build("regression"), 0
    x, _ = problem.batch
    z = problem.outputs(problem.theta)
    # targets at z +- sqrt(1/2) in one output at a time have the second moment of the Gaussian of variance 1/2
    for output in range(2):
        for sign in (1, -1):
            shifted = z.clone()
            shifted[:, output] += sign * 0.5**0.5
            j = problem.jacobian().view(len(x), 2, -1)[:, output]
            slopes = 2 * (z - shifted)[:, output, None] * j  # of the squared error of one output
            moment = moment + slopes.T @ slopes / 2 / (2 * len(x))
    close(Fisher(problem.objective, problem.batch).dense(), moment)


@pytest.mark.parametrize("kind", ["mlp", "regression", "logistic", "transformer"])
def test_sampled_fisher_matrices_average_to_the_true_one(build, kind):
    problem = build(kind)
    true = problem.gauss_newton()
    vector = torch.randn(len(true), dtype=torch.float64)
    found = torch.stack(
        [Fisher(problem.objective, problem.batch, kind="sampled", samples=20, seed=i) @ vector for i in range(60)]
    )
    error = found.std(0) / 60**0.5
    assert ((found.mean(0) - true @ vector).abs() <= 5 * error + 1e-12).all()
    assert found.std(0).max() > 0


def test_sampled_targets_are_the_same_in_every_product(mlp):
    loader = DataLoader(TensorDataset(*mlp.batch), batch_size=4)
    op = Fisher(mlp.objective, loader, kind="sampled", seed=3)
    assert torch.equal(op.dense(), op.dense())
    assert not torch.equal(op.dense(), Fisher(mlp.objective, loader, kind="sampled", seed=4).dense())
    matrix = op.dense()
    close(matrix, matrix.T)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_empirical_fisher_matrix_is_the_second_moment_of_the_gradients(problem, backend):
    g = problem.gradients()
    op = Fisher(problem.objective, problem.batch, kind="empirical", backend=backend)
    close(op.dense(), g.T @ g / len(g), backend)


def test_the_empirical_fisher_matrix_is_not_the_true_one(mlp):
    apart = Fisher(mlp.objective, mlp.batch, kind="empirical").dense() - mlp.gauss_newton()
    assert apart.norm() > 0.1 * mlp.gauss_newton().norm()


def test_the_gradient_covariance_is_that_of_the_gradients(problem):
    g = problem.gradients()
    close(GradientCovariance(problem.objective, problem.batch).dense(), torch.cov(g.T, correction=0))
    close(GradientCovariance(problem.objective, problem.batch, centered=False).dense(), g.T @ g / len(g))


def test_the_gradient_covariance_of_many_batches_is_about_their_common_mean(mlp):
    x, y = mlp.batch
    expected = torch.cov(mlp.gradients().T, correction=0)
    for data in (DataLoader(TensorDataset(x, y), batch_size=4), [(x[:2], y[:2]), (x[2:], y[2:])]):
        close(GradientCovariance(mlp.objective, data).dense(), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_jacobian_is_the_dense_one_from_both_sides(problem, backend):
    op, expected = Jacobian(problem.objective, problem.batch, backend=backend), problem.jacobian()
    close(op.dense(), expected, backend)
    close(op.T.dense().mT, expected)


def test_the_jacobian_of_a_loader_is_that_of_the_batches_in_order(mlp):
    loader = DataLoader(TensorDataset(*mlp.batch), batch_size=4)
    op = Jacobian(mlp.objective, loader)
    close(op.dense(), mlp.jacobian())
    close(op.T.dense().mT, mlp.jacobian())
    with pytest.raises(ArgumentError, match="shuffle"):
        Jacobian(mlp.objective, DataLoader(TensorDataset(*mlp.batch), batch_size=4, shuffle=True))


def test_the_tangent_kernel_has_the_products_of_the_jacobian(problem):
    j = problem.jacobian()
    close(TangentKernel(problem.objective, problem.batch).dense(), j @ j.T)


def test_class_scores_without_a_target_do_not_count():
    torch.manual_seed(0)
    module, y = nn.Linear(3, 4).double(), torch.tensor([0, -100, 2, 3])
    objective, x = Objective(module, F.cross_entropy), torch.randn(4, 3, dtype=torch.float64)
    some = GaussNewton(objective, (x[y >= 0], y[y >= 0])).dense()
    close(GaussNewton(objective, (x, y)).dense(), some)
    expected = GaussNewton(Objective(module, lambda z, t: F.cross_entropy(z, t)), (x, y)).dense()  # by autograd
    close(some, expected)
    found = Fisher(objective, (x, y), kind="sampled", samples=2).dense()
    close(found, found.T)


def test_unknown_likelihoods_are_refused_with_what_would_work(mlp):
    objective = Objective(mlp.objective.module, lambda z, t: F.cross_entropy(z, t))
    for kind in ("true", "sampled"):
        with pytest.raises(CompositionError, match="GaussNewton"):
            Fisher(objective, mlp.batch, kind=kind)
    close(
        Fisher(objective, mlp.batch, kind="empirical").dense(),
        Fisher(mlp.objective, mlp.batch, kind="empirical").dense(),
    )
    with pytest.raises(ArgumentError, match="kind='exact'"):
        Fisher(mlp.objective, mlp.batch, kind="exact")
    with pytest.raises(ArgumentError, match="samples=0"):
        Fisher(mlp.objective, mlp.batch, kind="sampled", samples=0)
