"""Gram matrices made layer by layer are those of the Jacobian and of the gradients, written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from covector.curvature import (
    Fisher,
    GaussNewton,
    TangentKernel,
    clipped_sum,
    gram,
    per_example_inner_products,
    per_example_norms,
)
from covector.curvature.factors import Explicit, Product, Rows
from covector.curvature.gram import _Examples
from covector.errors import ArgumentError, CompositionError, UnsupportedError
from covector.objective import Objective

DOUBLE = torch.float64


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


class Odd(nn.Module):
    """Parameters in every place that has no factored form, beside some that have one."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        if kind == "recurrent":
            self.own = nn.GRU(2, 2, batch_first=True)
        elif kind == "attention":
            self.own = nn.MultiheadAttention(2, 1, batch_first=True)
        elif kind == "depthwise":
            self.own = nn.Conv1d(2, 2, 3, padding=1, groups=2)
        elif kind == "scale":
            self.own = nn.Parameter(torch.randn(4))
        elif kind == "borrowed":
            self.own = None

    def forward(self, x):
        h = self.first(x).tanh()
        if self.kind == "scale":
            h = h * self.own
        elif self.kind == "borrowed":  # a weight used behind its layer's back
            h = h @ self.first.weight
        elif self.kind == "attention":
            pairs = h.view(-1, 2, 2)
            h = self.own(pairs, pairs, pairs, need_weights=False)[0].flatten(1)
        elif self.kind == "recurrent":
            h = self.own(h.view(-1, 2, 2))[0].flatten(1)
        else:
            h = self.own(h.view(-1, 2, 2)).flatten(1)
        return self.last(h)


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, stride=2, padding=1, dilation=2)
        self.layers = nn.Sequential(
            nn.GroupNorm(2, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.RMSNorm(3), nn.Flatten(), nn.Linear(12, 3)
        )

    def forward(self, x):
        return self.layers(self.conv(x))


def test_the_tangent_kernel_is_that_of_the_jacobian(problem):
    j = problem.jacobian()
    close(gram(problem.objective, problem.batch), j @ j.T)


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "2.weight"])
def test_a_part_of_the_parameters_has_its_own_kernel(mlp, name):
    names = [n for n, p in mlp.objective.params.items() for _ in range(p.numel())]
    j = mlp.jacobian()[:, [n == name for n in names]]
    close(gram(mlp.objective, mlp.batch, params=[name]), j @ j.T)


def test_gram_and_operator_agree_on_the_tangent_kernel(problem):
    close(gram(problem.objective, problem.batch), TangentKernel(problem.objective, problem.batch).dense())


@pytest.mark.parametrize("kind", ["gauss_newton", "fisher"])
def test_the_spectrum_is_that_of_the_gauss_newton_matrix(problem, kind):
    found = torch.linalg.eigvalsh(gram(problem.objective, problem.batch, kind))
    expected = torch.linalg.eigvalsh(problem.gauss_newton())
    count = min(len(found), len(expected))
    close(found[-count:], expected[-count:])
    assert found[: len(found) - count].abs().sum() < 1e-9


def test_losses_without_a_closed_form_have_numeric_roots(mlp):
    objective = Objective(mlp.objective.module, lambda z, t: F.cross_entropy(z, t, label_smoothing=0.1))
    found = torch.linalg.eigvalsh(gram(objective, mlp.batch, "gauss_newton"))
    close(found[-20:], torch.linalg.eigvalsh(GaussNewton(objective, mlp.batch).dense())[-20:])
    with pytest.raises(CompositionError, match="GaussNewton"):
        gram(objective, mlp.batch, "fisher")
    concave = Objective(mlp.objective.module, lambda z, t: -z.square().mean())
    with pytest.raises(ArgumentError, match="convex"):
        gram(concave, mlp.batch, "gauss_newton")


def test_inner_products_and_norms_are_those_of_the_gradients(problem):
    g = problem.gradients()
    close(per_example_inner_products(problem.objective, problem.batch), g @ g.T)
    close(per_example_norms(problem.objective, problem.batch), g.norm(dim=1))


def test_clipped_sums_are_those_of_clipped_gradients(problem):
    g = problem.gradients()
    limit = float(g.norm(dim=1).median())
    found, norms = clipped_sum(problem.objective, problem.batch, limit)
    expected = (g * (limit / g.norm(dim=1)).clamp_max(1.0)[:, None]).sum(0)
    close(torch.cat([part.flatten() for part in found.values()]), expected)
    close(norms, g.norm(dim=1))


@pytest.mark.parametrize("kind", ["scale", "borrowed", "attention", "depthwise", "recurrent"])
def test_parameters_without_a_factored_form_are_written_out(build, kind):
    problem = build("mlp")
    module = Odd(kind).to(DOUBLE)
    problem.objective = Objective(module, F.cross_entropy)
    g, j = problem.gradients(), problem.jacobian()
    close(gram(problem.objective, problem.batch), j @ j.T)
    close(per_example_inner_products(problem.objective, problem.batch), g @ g.T)
    close(per_example_norms(problem.objective, problem.batch), g.norm(dim=1))


def test_norm_layers_and_long_convolutions_are_factored(build):
    problem, module = build("mlp"), Norms().to(DOUBLE)
    x = torch.randn(9, 3, 8, dtype=DOUBLE)
    module(x)
    problem.objective, problem.batch = Objective(module.eval(), F.cross_entropy), (x, problem.batch[1])
    j = problem.jacobian()
    close(gram(problem.objective, problem.batch), j @ j.T)


@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 30, 40), (9, 3, 4)])
def test_both_ways_to_multiply_out_a_layer_agree(shape):
    positions, m, n = shape
    left, right = torch.randn(3 * 5, positions, m, dtype=DOUBLE), torch.randn(5, positions, n, dtype=DOUBLE)
    written = (left.mT @ right.repeat(3, 1, 1)).flatten(1)
    product = Product(left, right)
    close(product.inner(), written @ written.T)
    if positions > 1:
        one = Product(left[:5], right)
        close(one.squared_norms(), one.inner().diagonal())


def test_embeddings_meet_where_they_look_up_the_same_row():
    ids, values = torch.tensor([[0, 0, 2], [2, 1, 0]]), torch.randn(4, 3, 5, dtype=DOUBLE)
    written = torch.zeros(4, 3, 5, dtype=DOUBLE)
    for i in range(4):
        written[i].index_add_(0, ids[i % 2], values[i])
    close(Rows(ids, values, 3).inner(), written.flatten(1) @ written.flatten(1).T)
    close(Explicit(values.flatten(1)).inner(), values.flatten(1) @ values.flatten(1).T)


def test_an_output_tied_to_the_embedding_is_factored():
    ids, values = torch.tensor([[0, 0, 2], [2, 1, 0]]), torch.randn(4, 3, 5, dtype=DOUBLE)
    left, right = torch.randn(4, 2, 3, dtype=DOUBLE), torch.randn(2, 2, 5, dtype=DOUBLE)
    written = left.mT @ right.repeat(2, 1, 1)
    for i in range(4):
        written[i].index_add_(0, ids[i % 2], values[i])
    flat, direction = written.flatten(1), torch.randn(3, 5, dtype=DOUBLE)
    for both in (Rows(ids, values, 3) + Product(left, right), Product(left, right) + Rows(ids, values, 3)):
        close(both.inner(), flat @ flat.T)
    once = Rows(ids, values[:2], 3) + Product(left[:2], right)
    close(once.squared_norms(), flat[:2].square().sum(1))
    close(once.along(direction), flat[:2] @ direction.flatten())
    close(once.squares(), written[:2].square().sum(0))


def test_the_tied_transformer_writes_only_its_positions_out(build):
    problem = build("transformer")
    assert _Examples(problem.objective, problem.batch, None).capture.left_out == ["position"]


def test_the_fisher_matrix_and_its_gram_have_one_trace(mlp):
    found = gram(mlp.objective, mlp.batch, "fisher").trace()
    close(found, Fisher(mlp.objective, mlp.batch).dense().trace())


def test_what_has_no_gram_is_refused(mlp):
    with pytest.raises(ArgumentError, match="kind='ntk'"):
        gram(mlp.objective, mlp.batch, "ntk")
    with pytest.raises(ArgumentError, match="max_norm=0"):
        clipped_sum(mlp.objective, mlp.batch, 0.0)
    with pytest.raises(CompositionError, match="module"):
        gram(Objective.from_function(lambda p, b: (p["x"] * b).sum(), {"x": torch.ones(2)}), torch.ones(3, 2))
    training = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    with pytest.raises(UnsupportedError, match="eval"):
        gram(Objective(training, F.cross_entropy), mlp.batch)


def test_the_module_is_left_as_it_was(build):
    problem = build("batch-norm")
    module = problem.objective.module
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    gram(problem.objective, problem.batch, "gauss_newton")
    clipped_sum(problem.objective, problem.batch, 1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert all(not part._forward_hooks for part in module.modules())
