"""The stability of SGD against the dense matrix of its second moments, closed forms and the inequalities between them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from covector.errors import ArgumentError
from covector.landscape import Stability, stability
from covector.objective import Objective

DOUBLE = torch.float64
SAMPLINGS = ["without_replacement", "with_replacement", "bernoulli"]


def random_factors(n=7, rank=1, d=5, seed=0):
    return torch.randn(n, rank, d, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def dense(factors, lr, size, sampling):
    """E of (I - lr H_batch) x (I - lr H_batch), over all batches, one by one."""
    n, _, d = factors.shape
    hessians, eye = factors.mT @ factors, torch.eye(d, dtype=DOUBLE)
    total, weight = torch.zeros(d * d, d * d, dtype=DOUBLE), 0.0
    if sampling == "with_replacement":
        batches = torch.cartesian_prod(*[torch.arange(n)] * size).view(-1, size)
        chosen = [(batch.tolist(), 1.0) for batch in batches]
    elif sampling == "without_replacement":
        chosen = [(batch.tolist(), 1.0) for batch in torch.combinations(torch.arange(n), size)]
    else:
        p = size / n
        subsets = [[i for i in range(n) if mask >> i & 1] for mask in range(2**n)]
        chosen = [(batch, p ** len(batch) * (1 - p) ** (n - len(batch))) for batch in subsets]
    for batch, probability in chosen:
        step = eye - lr / size * sum((hessians[i] for i in batch), torch.zeros(d, d, dtype=DOUBLE))
        total += probability * torch.kron(step, step)
        weight += probability
    return total / weight


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("rank", [1, 2])
def test_the_radius_is_that_of_all_batches_enumerated(sampling, rank):
    factors = random_factors(5, rank, 4)
    minimum = Stability.from_factors(factors)
    for lr, size in ((0.05, 1), (0.2, 2), (0.6, 3)):
        expected = float(torch.linalg.eigvalsh(dense(factors, lr, size, sampling)).abs().max())
        assert minimum.radius(lr, size, sampling) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_largest_learning_rate_is_where_the_radius_is_one(sampling):
    minimum = Stability.from_factors(random_factors())
    for size in (1, 3, 6):
        largest = minimum.max_lr(size, sampling)
        assert minimum.radius(largest, size, sampling) == pytest.approx(1.0, abs=1e-5)
        assert minimum.radius(1.02 * largest, size, sampling) > 1.0 > minimum.radius(0.98 * largest, size, sampling)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_bounds_bound_and_are_ordered(rank):
    for seed in range(4):
        minimum = Stability.from_factors(random_factors(8, rank, 6, seed))
        for sampling in SAMPLINGS:
            for size in (1, 2, 5, 7):
                bounds, largest = minimum.bounds(size, sampling), minimum.max_lr(size, sampling)
                assert all(largest <= bound * (1 + 1e-6) for bound in bounds.values())
                assert bounds["identity"] <= min(bounds["trace"], bounds["frobenius"]) * (1 + 1e-12)
                assert ("coherence" in bounds) == (sampling == "bernoulli")


def test_orthogonal_examples_have_closed_forms():
    n, size, h = 12, [1, 3, 6], 1.0
    minimum = Stability.from_factors(torch.eye(n, dtype=DOUBLE) * h**0.5)
    for sampling in ("without_replacement", "bernoulli"):
        for b in size:
            assert minimum.max_lr(b, sampling) == pytest.approx(2 * b / h, rel=1e-5)
    # one at a time the trace decides: 2 / Tr H
    assert minimum.max_lr(1) == pytest.approx(2 / minimum.trace, rel=1e-5)
    assert minimum.coherence == pytest.approx(1.0)
    assert minimum.bounds(6, "bernoulli")["coherence"] == pytest.approx(12.0)


def test_equal_examples_are_gradient_descent_unless_their_number_varies():
    minimum = Stability.from_factors(torch.ones(12, 1, dtype=DOUBLE))
    assert minimum.coherence == pytest.approx(12.0)
    assert minimum.max_lr(1) == pytest.approx(2.0)
    # E (1 - lr k / B)^2 of a binomial k
    assert minimum.max_lr(1, "bernoulli") == pytest.approx(2 / (2 - 1 / 12), rel=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_the_full_batch_is_gradient_descent(rank):
    minimum = Stability.from_factors(random_factors(7, rank))
    assert minimum.max_lr(7) == pytest.approx(2 / minimum.sharpness, rel=1e-5)
    assert minimum.bounds(7)["trace"] == math.inf


@pytest.mark.parametrize("rank", [1, 2])
def test_trace_norm_and_sharpness_are_those_of_the_mean_hessian(rank):
    factors = random_factors(7, rank)
    minimum, mean = Stability.from_factors(factors), (factors.mT @ factors).mean(0)
    assert minimum.sharpness == pytest.approx(float(torch.linalg.eigvalsh(mean)[-1]))
    assert minimum.trace == pytest.approx(float(mean.trace()))
    assert minimum.frobenius2 == pytest.approx(float(mean.square().sum()))


@pytest.mark.parametrize("loss", [F.mse_loss, F.cross_entropy])
def test_a_model_is_measured_by_its_gauss_newton_matrices(loss):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(DOUBLE)
    x, y = torch.randn(6, 3, dtype=DOUBLE), torch.randint(0, 2, (6,))
    y = F.one_hot(y, 2).to(DOUBLE) if loss is F.mse_loss else y
    found = stability(Objective(module, loss), (x, y))
    params = list(module.parameters())
    factors = []
    for i in range(6):
        z = module(x[i])
        j = torch.stack(
            [torch.cat([g.flatten() for g in torch.autograd.grad(z[c], params, retain_graph=True)]) for c in range(2)]
        )
        if loss is F.mse_loss:
            factors.append(j)  # (1/C) sum of squares: H_i = (2/C) J^T J
        else:
            p = z.detach().softmax(0)
            factors.append((p[0] * p[1]).sqrt() * (j[0] - j[1])[None])
    expected = Stability.from_factors(torch.stack(factors))
    assert found.sharpness == pytest.approx(expected.sharpness)
    assert found.max_lr(2) == pytest.approx(expected.max_lr(2), rel=1e-5)
    assert found.coherence == pytest.approx(expected.coherence)


def test_what_no_stability_is_of_is_refused():
    minimum = Stability.from_factors(random_factors())
    with pytest.raises(ArgumentError, match="batch_size=8"):
        minimum.max_lr(8)
    with pytest.raises(ArgumentError, match="sampling='shuffled'"):
        minimum.radius(0.1, 2, "shuffled")
    with pytest.raises(ArgumentError, match="no curvature"):
        Stability.from_factors(torch.zeros(3, 2))
    with pytest.raises(ArgumentError, match="count=2"):
        Stability.from_gram(torch.eye(3), 2)
    with pytest.raises(ArgumentError, match="factors"):
        Stability.from_factors(torch.zeros(3))
    assert minimum.max_lr(9, "with_replacement") > minimum.max_lr(7, "with_replacement")
