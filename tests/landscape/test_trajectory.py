"""The projection of a path is that of a singular value decomposition; a random walk is explained as theory says."""

import math

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, MismatchError
from covector.landscape import plane, project_trajectory
from covector.objective import Objective
from covector.trees import clone, flatten


def test_a_path_in_a_plane_is_explained_in_full_and_its_distances_stay():
    basis = torch.linalg.qr(torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    angles = torch.linspace(0, 2, 9, dtype=torch.float64)
    points = torch.stack([3 * angles.cos(), angles.sin()], 1) @ basis.T
    for center in ("last", "mean"):
        found = project_trajectory([{"w": point[:4], "b": point[4:]} for point in points], center=center)
        assert float(found.explained.sum()) == pytest.approx(1.0, abs=1e-12)
        torch.testing.assert_close(found.coordinates @ found.directions, points - flatten(found.center))
        torch.testing.assert_close(torch.cdist(found.coordinates, found.coordinates), torch.cdist(points, points))


def test_components_are_those_of_a_singular_value_decomposition():
    rows = torch.randn(7, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).cumsum(0)
    found = project_trajectory([{"w": row} for row in rows], k=3, center="mean")
    _, sizes, basis = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    torch.testing.assert_close(found.explained, sizes[:3].square() / sizes.square().sum())
    torch.testing.assert_close(
        (found.directions @ basis[:3].T).abs(), torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_the_last_checkpoint_is_the_origin_bit_for_bit_in_single_precision():
    rows = torch.randn(5, 30, generator=torch.Generator().manual_seed(2))
    found = project_trajectory([{"w": row} for row in rows])
    assert torch.equal(found.center["w"], rows[-1])
    assert found.coordinates[-1].tolist() == [0.0, 0.0]
    torch.testing.assert_close(found.directions @ found.directions.T, torch.eye(2), atol=1e-6, rtol=0)


def test_a_random_walk_in_many_dimensions_is_explained_by_sines_alone():
    steps = torch.randn(200, 20000, generator=torch.Generator().manual_seed(3))
    found = project_trajectory([{"w": row} for row in steps.cumsum(0)], k=3, center="mean")
    expected = [6 / (math.pi * k) ** 2 for k in (1, 2, 3)]  # Antognini and Sohl-Dickstein, 2018
    assert found.explained.tolist() == pytest.approx(expected, rel=0.02)


def test_the_plane_of_a_path_holds_it_and_shows_its_losses():
    torch.manual_seed(0)
    objective = Objective(nn.Linear(4, 1).double(), nn.functional.mse_loss)
    batch = (torch.randn(30, 4, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64))
    path = []
    for _ in range(12):
        path.append(clone(objective.params))
        gradients = torch.autograd.grad(objective(batch), list(objective.params.values()))
        with torch.no_grad():
            for p, g in zip(objective.params.values(), gradients, strict=True):
                p.sub_(g, alpha=0.1)
    found = project_trajectory(path)
    across, up = found.grid()
    for values, places in ((across, found.coordinates[:, 0]), (up, found.coordinates[:, 1])):
        assert float(values[0]) < float(places.min()) <= float(places.max()) < float(values[-1])
    (last,) = plane(objective, batch, found.directions, [0.0], [0.0], center=found.center)[0]
    assert float(last) == pytest.approx(objective(batch, path[-1]).item())


def test_paths_without_a_direction_are_refused():
    one = {"w": torch.ones(3)}
    for call in (
        lambda: project_trajectory([one, one]),
        lambda: project_trajectory([one] * 4),
        lambda: project_trajectory([one] * 4, k=0),
        lambda: project_trajectory([one] * 4, center="first"),
    ):
        with pytest.raises(ArgumentError):
            call()
    with pytest.raises(MismatchError):
        project_trajectory([one, one, {"w": torch.ones(4)}])
