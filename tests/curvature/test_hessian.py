"""Hessian and Gauss-Newton products are those of the dense matrices that autograd alone gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from covector.curvature import GaussNewton, Hessian
from covector.errors import ArgumentError, CompositionError, UnsupportedError
from covector.objective import Objective

BACKENDS = ["graph", "functional", "differences"]


def close(found, expected, backend="graph"):
    loose = backend == "differences"
    torch.testing.assert_close(found, expected, rtol=1e-5 if loose else 1e-9, atol=1e-7 if loose else 1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_hessian_is_the_dense_one(problem, backend):
    op = Hessian(problem.objective, problem.batch, backend=backend)
    close(op.dense(), problem.hessian(), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gauss_newton_matrix_is_the_dense_one(problem, backend):
    op = GaussNewton(problem.objective, problem.batch, backend=backend)
    close(op.dense(), problem.gauss_newton(), backend)


def test_products_are_linear_and_symmetric(problem):
    for kind in (Hessian, GaussNewton):
        op = kind(problem.objective, problem.batch)
        a, b = torch.randn(2, op.shape[0], dtype=torch.float64)
        close(op @ (2 * a - b), 2 * (op @ a) - op @ b)
        close(a @ (op @ b), b @ (op @ a))
        assert op.symmetric
    assert a @ (op @ a) > 0  # Gauss-Newton, the last


def test_a_loader_and_a_list_are_one_large_batch(mlp):
    x, y = mlp.batch
    whole = GaussNewton(mlp.objective, mlp.batch).dense()
    loader = DataLoader(TensorDataset(x, y), batch_size=4)  # 4, 4 and 1
    pieces = [(x[:2], y[:2]), (x[2:], y[2:])]
    for data in (loader, pieces):
        close(GaussNewton(mlp.objective, data).dense(), whole)
        close(Hessian(mlp.objective, data).dense(), mlp.hessian())


def test_sub_blocks_are_those_of_the_matrix(mlp):
    whole, chosen = mlp.hessian(), ["2.weight", "2.bias"]
    expected = whole[25:, 25:]
    close(Hessian(mlp.objective, mlp.batch, params=chosen).dense(), expected)
    op = Hessian(mlp.objective, mlp.batch, params=lambda name: name.startswith("2."))
    close(op.dense(), expected)
    assert list(op.like) == chosen
    with pytest.raises(ArgumentError, match=r"3\.weight"):
        Hessian(mlp.objective, mlp.batch, params=["3.weight"])


def test_frozen_parameters_are_left_out():
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    module[0].requires_grad_(False)
    op = Hessian(Objective(module, F.cross_entropy), (torch.randn(6, 4), torch.randint(0, 3, (6,))))
    assert op.shape == (18, 18)


def test_scipy_finds_the_same_eigenvalues(mlp):
    from scipy.sparse.linalg import eigsh

    values = eigsh(Hessian(mlp.objective, mlp.batch).to_scipy(), k=3, which="LA", return_eigenvectors=False)
    expected = torch.linalg.eigvalsh(mlp.hessian())[-3:]
    torch.testing.assert_close(torch.from_numpy(values).sort().values, expected, rtol=1e-9, atol=0)


def test_products_follow_the_live_parameters(mlp):
    op = Hessian(mlp.objective, mlp.batch)
    before = op.dense()
    with torch.no_grad():
        mlp.objective.params["0.weight"].mul_(1.5)
    close(op.dense(), mlp.hessian())
    assert (op.dense() - before).abs().max() > 1e-3


def test_nothing_of_the_module_changes(build):
    problem = build("batch-norm")
    module = problem.objective.module
    random = torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    Hessian(problem.objective, problem.batch) @ torch.ones(53, dtype=torch.float64)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_dropout_in_training_is_refused_and_the_generator_left_alone():
    module = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3))
    batch, random = (torch.randn(6, 4), torch.randint(0, 3, (6,))), torch.get_rng_state()
    with pytest.raises(UnsupportedError, match=r"'1', a Dropout.*eval"):
        Hessian(Objective(module, F.cross_entropy), batch)
    assert torch.equal(random, torch.get_rng_state())
    Hessian(Objective(module.eval(), F.cross_entropy), batch)


def test_batch_normalization_in_training_is_refused_and_put_back():
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    with pytest.raises(UnsupportedError, match=r"1\.running_mean"):
        Hessian(Objective(module, F.cross_entropy), (torch.randn(6, 4), torch.randint(0, 3, (6,))))
    assert module[1].num_batches_tracked == 0
    assert torch.equal(module[1].running_mean, torch.zeros(5))


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * (1 - ctx.saved_tensors[0].tanh() ** 2)


def test_without_second_derivatives_differences_serve(mlp):
    class Tanh(nn.Module):
        def forward(self, x):
            return Once.apply(x)

    module = nn.Sequential(mlp.objective.module[0], Tanh(), mlp.objective.module[2])
    for kind, expected in ((Hessian, mlp.hessian()), (GaussNewton, mlp.gauss_newton())):
        op = kind(Objective(module, F.cross_entropy), mlp.batch)
        assert op.backend == "differences"
        assert "differences" in repr(op)
        close(op.dense(), expected, "differences")


def test_the_fastest_back_end_is_the_default(problem):
    op = Hessian(problem.objective, problem.batch)
    assert "auto" in repr(op)
    assert op.backend == "graph"
    assert "'graph', kept" in repr(op)


def test_a_plain_function_has_a_hessian_but_no_gauss_newton_matrix():
    objective = Objective.from_function(lambda p, batch: (p["x"] ** 3).sum() * batch, {"x": torch.ones(2)})
    assert torch.equal(Hessian(objective, torch.tensor(2.0)) @ torch.ones(2), torch.full((2,), 12.0))
    with pytest.raises(CompositionError, match="Hessian"):
        GaussNewton(objective, torch.tensor(2.0)) @ torch.ones(2)


def test_linear_losses_and_unused_parameters_have_no_curvature():
    params = {"x": torch.ones(2), "unused": torch.ones(1), "linear": torch.ones(1)}
    objective = Objective.from_function(lambda p, b: (p["x"] ** 2).sum() + 3 * p["linear"].sum(), params)
    assert torch.equal(Hessian(objective, None).dense(), torch.diag(torch.tensor([2.0, 2.0, 0.0, 0.0])))
    straight = Objective.from_function(lambda p, b: p["x"].sum(), {"x": torch.ones(2)})
    assert torch.equal(Hessian(straight, None).dense(), torch.zeros(2, 2))


def test_what_is_no_data_is_refused(mlp):
    with pytest.raises(ArgumentError, match="iterator"):
        Hessian(mlp.objective, iter([mlp.batch]))
    with pytest.raises(ArgumentError, match="at least one"):
        Hessian(mlp.objective, [])
    with pytest.raises(ArgumentError, match="backend"):
        Hessian(mlp.objective, mlp.batch, backend="fast")
