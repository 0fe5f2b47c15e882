"""Fixed-point weights: exact sums, nearest shares, and the rounding shift against fractions."""

import random
from fractions import Fraction

import pytest
import torch

from covector.federated.commit import weigh
from covector.federated.weights import fixed_point, late_weight


@pytest.mark.parametrize("seed", range(50))
def test_weights_add_up_to_one_and_are_within_a_unit_of_their_share(seed):
    source = random.Random(seed)
    counts = [source.choice((0, 1, source.randint(1, 10**9))) for _ in range(source.randint(1, 40))]
    counts[0] = max(counts[0], 1)
    weights = fixed_point(counts)
    assert sum(weights) == 1 << 16
    for count, weight in zip(counts, weights, strict=True):
        assert abs(Fraction(count << 16, sum(counts)) - weight) < 1
        assert count or weight == 0


def test_one_client_weighs_exactly_one():
    assert fixed_point([17]) == [1 << 16]
    units = torch.tensor([5, -(1 << 46), (1 << 46) - 1])
    assert torch.equal(weigh(units, 1 << 16), units)


@pytest.mark.parametrize("seed", range(20))
def test_weighing_rounds_to_nearest_exactly(seed):
    source = random.Random(seed)
    units = [source.randint(-(1 << 46), 1 << 46) for _ in range(50)]
    weight = source.randint(0, 1 << 16)
    expected = [(Fraction(u * weight, 1 << 16) + Fraction(1, 2)).__floor__() for u in units]
    assert weigh(torch.tensor(units), weight).tolist() == expected


def test_a_late_weight_halves_every_round():
    assert [late_weight(1, 4, age) for age in (0, 1, 2, 30)] == [1 << 14, 1 << 13, 1 << 12, 0]
