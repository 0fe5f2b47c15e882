"""Planes are exact on quadratics, hit their checkpoints, and show what eigenvectors say."""

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from covector.curvature import Hessian
from covector.errors import ArgumentError, MismatchError
from covector.landscape import contours, plane, plane_through, symmetric_grid
from covector.linalg import eigsh
from covector.objective import Objective
from covector.trees import axpy_, clone, digest, norm


def test_a_plane_is_made_of_slices_and_is_exact_on_a_quadratic():
    curvatures = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    params = {"x": torch.zeros(3, dtype=torch.float64)}
    bowl = Objective.from_function(lambda p, batch: 0.5 * (curvatures * p["x"] ** 2).sum(), params)
    across, up = torch.linspace(-1, 1, 5), torch.linspace(-2, 2, 3)
    found = plane(bowl, None, torch.eye(3, dtype=torch.float64)[[2, 0]], across, up)
    exact = 0.5 * (9 * across.double() ** 2 + up.double()[:, None] ** 2)
    torch.testing.assert_close(found, exact)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    batch = (torch.randn(20, 3, dtype=torch.float64), torch.randint(2, (20,)))
    return Objective(model, nn.functional.cross_entropy), batch


def test_the_plane_of_two_eigenvectors_bends_by_their_eigenvalues():
    objective, batch = network()
    found = eigsh(Hessian(objective, batch), 2, "LA", tol=1e-8)
    h = 1e-3
    losses = plane(objective, batch, found.vectors.mT, symmetric_grid(h, 3), symmetric_grid(h, 3))
    across = (losses[1, 0] - 2 * losses[1, 1] + losses[1, 2]) / h**2
    up = (losses[0, 1] - 2 * losses[1, 1] + losses[2, 1]) / h**2
    mixed = (losses[2, 2] - losses[2, 0] - losses[0, 2] + losses[0, 0]) / (4 * h**2)
    assert [float(across), float(up)] == pytest.approx(found.values.tolist(), rel=1e-4)
    assert abs(float(mixed)) < 1e-4 * float(found.values[0])


def test_a_plane_through_checkpoints_has_their_distances_and_their_very_losses():
    objective, batch = network()
    before = digest(objective.params)
    a, b, c = ({name: torch.randn_like(p) for name, p in objective.params.items()} for _ in range(3))
    found = plane_through(objective, batch, a, b, c, points=9, chunk=1)
    assert digest(objective.params) == before
    assert found.marked.tolist() == [objective(batch, point).item() for point in (a, b, c)]
    for i, first in enumerate((a, b, c)):
        for j, second in enumerate((a, b, c)):
            gap = clone(first)
            axpy_(gap, second, -1.0)
            assert float((found.marks[i] - found.marks[j]).norm()) == pytest.approx(norm(gap))
    assert (
        float(found.across[0])
        < float(found.marks[:, 0].min())
        < float(found.marks[:, 0].max())
        < float(found.across[-1])
    )


def test_a_plane_through_checkpoints_is_exact_on_a_quadratic():
    params = {"x": torch.zeros(5, dtype=torch.float64)}
    bowl = Objective.from_function(lambda p, batch: p["x"].square().sum(), params)
    a, b, c = ({"x": torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(i))} for i in range(3))
    found = plane_through(bowl, None, a, b, c, points=7)
    # |a + v|^2 = |v|^2 + linear + |a|^2 in coordinates of an orthonormal basis: fitted by three of the points
    inputs = torch.stack([g.flatten() for g in torch.meshgrid(found.up, found.across, indexing="ij")], 1).flip(1)
    rest = found.losses.flatten() - inputs.square().sum(1)
    design = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=torch.float64)], 1)
    solution = torch.linalg.lstsq(design, rest[:, None]).solution
    torch.testing.assert_close(design @ solution, rest[:, None], rtol=1e-10, atol=1e-10)
    assert float(solution[2, 0]) == pytest.approx(float(found.marked[0]))


def test_contours_leave_what_is_not_finite_white_and_refuse_a_flat_picture():
    x = torch.linspace(-1, 1, 5)
    losses = x**2 + x[:, None] ** 2
    losses[0, 0] = float("inf")
    axes = Figure().subplots()
    found = contours(axes, x, x, losses, levels=5)
    assert float(found.levels[0]) == 0.0
    assert float(found.levels[-1]) == pytest.approx(2.0)
    for flat in (torch.ones(5, 5), torch.full((5, 5), float("nan"))):
        with pytest.raises(ArgumentError, match="losses"):
            contours(axes, x, x, flat)


def test_planes_that_are_none_are_refused():
    objective, batch = network()
    a = clone(objective.params)
    b = {name: 2 * p for name, p in a.items()}
    c = {name: 3 * p for name, p in a.items()}
    with pytest.raises(ArgumentError, match="one line"):
        plane_through(objective, batch, a, b, c)
    with pytest.raises(ArgumentError, match="one line"):
        plane_through(objective, batch, a, a, c)
    with pytest.raises(MismatchError):
        plane_through(objective, batch, a, b, {"x": torch.zeros(1)})
    with pytest.raises(MismatchError, match="two rows"):
        plane(objective, batch, torch.ones(1, 32), [0.0], [0.0])
