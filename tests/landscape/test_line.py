"""The loss along a line is the loss at its points, and the barrier what rises between them."""

import pytest
import torch
from torch import nn

from covector.errors import ArgumentError, MismatchError
from covector.landscape import barrier, line
from covector.objective import Objective
from covector.trees import clone, digest


def test_points_on_the_line_are_evaluated_without_touching_the_parameters():
    torch.manual_seed(0)
    objective = Objective(nn.Linear(3, 2), nn.functional.mse_loss)
    batch = (torch.randn(7, 3), torch.randn(7, 2))
    a, b = clone(objective.params), {name: torch.randn_like(p) for name, p in objective.params.items()}
    before = digest(objective.params)
    found = line(objective, batch, a, b, [-0.5, 0.0, 0.25, 1.0])
    assert digest(objective.params) == before
    assert float(found[1]) == pytest.approx(objective(batch).item())
    middle = {name: 0.75 * a[name] + 0.25 * b[name] for name in a}
    assert float(found[2]) == pytest.approx(objective(batch, middle).item(), rel=1e-6)


def test_a_convex_loss_has_no_barrier_and_a_double_well_has_its_own():
    s = torch.linspace(-0.5, 1.5, 81, dtype=torch.float64)
    assert barrier((s - 0.3) ** 2, s) == 0.0
    assert barrier((2 * s - 1) ** 4 - 2 * (2 * s - 1) ** 2, s) == pytest.approx(1.0)


def test_a_line_without_its_ends_is_refused():
    with pytest.raises(ArgumentError, match="0 and 1"):
        barrier(torch.ones(2), [0.0, 0.9])
    with pytest.raises(MismatchError, match="losses"):
        barrier(torch.ones(3), [0.0, 1.0])
