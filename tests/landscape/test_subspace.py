"""The dominant subspace is that of a dense decomposition; fractions and overlaps have their closed forms."""

import pytest
import torch
from torch import nn

from covector.curvature import Hessian
from covector.errors import ArgumentError, MismatchError, NonFiniteError
from covector.landscape import DominantSubspace, fraction, overlap, project
from covector.objective import Objective
from covector.optim.grassmann import principal_angles

N = 12
Q = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]


def small():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    batch = (torch.randn(30, 4, dtype=torch.float64), torch.randint(3, (30,)))
    return Objective(net, nn.functional.cross_entropy), batch


def test_the_whole_space_holds_everything_and_the_span_is_that_of_the_dense_decomposition():
    objective, batch = small()
    op = Hessian(objective, batch)
    gradient = dict(
        zip(objective.params, torch.autograd.grad(objective(batch), [*objective.params.values()]), strict=True)
    )
    exact = torch.linalg.eigh(op.dense())
    for k in (1, 3):
        space = DominantSubspace(op, k, tol=1e-8)
        flat = torch.cat([g.reshape(-1) for g in gradient.values()])
        expected = float((exact.eigenvectors[:, -k:].mT @ flat).square().sum() / flat.square().sum())
        assert space.place(gradient).fraction == pytest.approx(expected, rel=1e-5)
        assert overlap(space.basis, exact.eigenvectors[:, -k:]) == pytest.approx(1.0, abs=1e-6)
    assert fraction(exact.eigenvectors, gradient) == pytest.approx(1.0)


def test_placement_has_alignment_and_curvature_of_the_gradient():
    objective, batch = small()
    op = Hessian(objective, batch)
    g = torch.randn(op.shape[0], dtype=torch.float64)
    found, image = DominantSubspace(op, 2).place(g), op.dense() @ g
    assert found.curvature == pytest.approx(float(g @ image / (g @ g)))
    assert found.alignment == pytest.approx(float(g @ image / (g.norm() * image.norm())))


def test_a_random_vector_lies_there_by_chance_only():
    vectors = torch.randn(4000, N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mean = sum(fraction(Q[:, :3], v) for v in vectors) / 4000
    assert mean == pytest.approx(3 / N, abs=0.01)


def test_overlap_is_one_with_itself_in_any_basis_and_zero_with_its_complement():
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    assert overlap(Q[:, :3], Q[:, :3] @ turn) == pytest.approx(1.0)
    assert overlap(Q[:, :3], Q[:, 3:6]) == pytest.approx(0.0, abs=1e-12)


def test_overlap_is_the_mean_squared_cosine_of_the_principal_angles():
    other = torch.linalg.qr(torch.randn(N, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64))[0]
    angles = principal_angles(Q[:, :3], other)
    assert overlap(Q[:, :3], other) == pytest.approx(float(angles.cos().square().mean()))


def test_dominant_and_bulk_add_up_and_are_orthogonal():
    v = torch.randn(N, dtype=torch.float64)
    dominant, bulk = project(Q[:, :3], v), project(Q[:, :3], v, "bulk")
    torch.testing.assert_close(dominant + bulk, v)
    assert abs(float(dominant @ bulk)) < 1e-12
    params = {"a": v[:5].clone(), "b": v[5:].reshape(7, 1).clone()}
    torch.testing.assert_close(project(Q[:, :3], params, "bulk")["b"].reshape(-1), bulk[5:])


def test_refresh_follows_the_live_parameters_from_where_it_was():
    objective, batch = small()
    op = Hessian(objective, batch)
    space = DominantSubspace(op, 2, tol=1e-3)
    first = space.eigen.products
    with torch.no_grad():
        for p in objective.params.values():
            p.mul_(1.001)
    assert space.refresh() > 0.99
    assert space.eigen.products < first
    torch.testing.assert_close(space.eigen.values, torch.linalg.eigvalsh(op.dense()).flip(0)[:2], rtol=1e-5, atol=0)


def test_what_has_no_direction_is_refused():
    with pytest.raises(NonFiniteError, match="direction"):
        fraction(Q, torch.zeros(N))
    with pytest.raises(MismatchError, match="7 elements"):
        project(Q, torch.ones(7))
    with pytest.raises(MismatchError, match="one shape"):
        overlap(Q, Q[:, :2])
    with pytest.raises(ArgumentError, match="keep"):
        project(Q, torch.ones(N), "rest")
