"""Moves on the Grassmannian: bases stay orthonormal, and angles are what was asked for."""

import math

import pytest
import torch

from covector.optim.grassmann import (
    captured_energy,
    geodesic,
    leading,
    principal_angles,
    random_point,
    tangent,
    track,
    walk,
)


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def off_orthonormal(s):
    return float((s.mT @ s - torch.eye(s.shape[1], dtype=s.dtype)).abs().max())


def test_a_random_point_is_orthonormal_and_spans_its_numbers():
    normal = numbers(9, 3)
    s = random_point(normal)
    assert off_orthonormal(s) < 1e-14
    assert float(tangent(s, normal).abs().max()) < 1e-13


def test_leading_directions_capture_the_most_energy():
    g = numbers(8, 20)
    best = captured_energy(leading(g, 3), g)
    sigma = torch.linalg.svdvals(g).square()
    assert float(best) == pytest.approx(float(sigma[:3].sum() / sigma.sum()), rel=1e-12)
    assert all(captured_energy(random_point(numbers(8, 3, seed=i)), g) < best for i in range(1, 20))


@pytest.mark.parametrize("angle", [0.01, 0.3, 1.2])
@pytest.mark.parametrize(("m", "r"), [(40, 5), (7, 5), (3, 1)])
def test_a_walk_goes_as_far_as_its_angle_says(m, r, angle):
    s, normal = random_point(numbers(m, r)), numbers(m, r, seed=1)
    moved = walk(s, normal, angle)
    sigma = torch.linalg.svdvals(tangent(s, normal))
    expected = angle * sigma / sigma[0]
    torch.testing.assert_close(principal_angles(moved, s), expected, rtol=1e-6, atol=1e-8)
    assert float(principal_angles(moved, s).norm()) == pytest.approx(angle * float((sigma / sigma[0]).norm()), rel=1e-6)
    assert off_orthonormal(moved) < 1e-13


def test_a_geodesic_is_additive_along_one_tangent():
    s = random_point(numbers(12, 3))
    u, sigma, vh = torch.linalg.svd(tangent(s, numbers(12, 3, seed=1)), full_matrices=False)
    whole, half = geodesic(s, u, sigma, vh.mT), geodesic(s, u, sigma / 2, vh.mT)
    # the velocity transported to the middle: U cos - S V sin
    w = u * (sigma / 2).cos() - s @ vh.mT * (sigma / 2).sin()
    torch.testing.assert_close(geodesic(half, w, sigma / 2, vh.mT), whole, rtol=1e-10, atol=1e-12)


def test_a_turn_of_some_directions_leaves_the_others():
    s = random_point(numbers(10, 4))
    u = random_point(tangent(s, numbers(10, 1, seed=1)))
    v = random_point(numbers(4, 1, seed=2))
    moved = geodesic(s, u, torch.tensor([0.7], dtype=torch.float64), v)
    kept = s @ torch.linalg.svd(v)[0][:, 1:]
    assert float((kept - moved @ (moved.mT @ kept)).abs().max()) < 1e-12
    torch.testing.assert_close(
        principal_angles(moved, s), torch.tensor([0.7, 0, 0, 0], dtype=torch.float64), rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("move", ["walk", "track"])
def test_single_precision_does_not_drift_over_a_thousand_moves(move):
    s = random_point(numbers(24, 6, dtype=torch.float32))
    for i in range(1000):
        if move == "walk":
            s = walk(s, numbers(24, 6, seed=i, dtype=torch.float32), 0.3)
        else:
            s = track(s, numbers(24, 30, seed=i, dtype=torch.float32), 0.3)
    assert off_orthonormal(s) < 2e-6


def test_tracking_descends_what_is_lost_of_the_gradient():
    g, s = numbers(10, 15), random_point(numbers(10, 3, seed=1))
    step = 1e-5
    gained = captured_energy(track(s, g, step), g) - captured_energy(s, g)
    # to first order the lost energy falls by twice the leading singular value of R A^T for each radian
    inside = s.mT @ g
    sigma = torch.linalg.svdvals((g - s @ inside) @ inside.mT)[0]
    assert float(gained) == pytest.approx(2 * step * float(sigma / g.square().sum()), rel=1e-3)


def test_tracking_a_gradient_that_lies_inside_stays():
    s = random_point(numbers(6, 2))
    moved = track(s, s @ numbers(2, 9, seed=1), 0.5)
    assert float(principal_angles(moved, s).max()) < 1e-7


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.5, math.pi / 2 - 1e-6])
def test_principal_angles_are_exact_when_small_and_when_large(angle):
    e = torch.eye(4, dtype=torch.float64)
    turned = torch.stack((math.cos(angle) * e[0] + math.sin(angle) * e[2], e[1]), dim=1)
    torch.testing.assert_close(
        principal_angles(e[:, :2], turned), torch.tensor([angle, 0.0], dtype=torch.float64), rtol=1e-9, atol=1e-12
    )
