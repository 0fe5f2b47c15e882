import math

import pytest
import torch

from covector import random
from covector.errors import ArgumentError, MismatchError

LAWS = ["rademacher", "binomial", "normal"]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("start", "count"), [(0, 1), (1, 127), (127, 2), (128, 128), (1000, 333), (4095, 4097)])
def test_any_slice_equals_the_slice_of_the_whole(law, start, count):
    whole = random.draw(11, "layer.weight", 9000, law)
    assert torch.equal(random.draw(11, "layer.weight", count, law, start=start), whole[start : start + count])


@pytest.mark.parametrize(("law", "fourth"), [("rademacher", 1.0), ("binomial", 3 - 2 / 64), ("normal", 3.0)])
def test_moments_are_those_of_the_law(law, fourth):
    n = 400_000
    z = random.draw(3, "w", n, law).double()
    # standard errors: 1/sqrt(n) of the mean; the variance and the fourth moment have their own
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs((z**2).mean() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**4).mean() - fourth) < 5 * math.sqrt(96 / n)


@pytest.mark.parametrize("law", LAWS)
def test_different_names_seeds_streams_and_steps_are_uncorrelated(law):
    n = 100_000
    base = random.draw(1, "a", n, law).double()
    others = [
        random.draw(1, "b", n, law),
        random.draw(2, "a", n, law),
        random.draw(1 << 32, "a", n, law),
        random.draw(1, "a", n, law, stream=random.Stream.NOISE),
        random.draw(1, "a", n, law, step=1),
    ]
    for other in others:
        assert abs((base * other.double()).mean()) < 5 / math.sqrt(n)


def test_negative_and_unsigned_spelling_of_a_seed_agree():
    assert torch.equal(random.draw(-1, "w", 64), random.draw(2**64 - 1, "w", 64))


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.5, True, "7"])
def test_a_seed_that_is_not_64_bits_is_refused(seed):
    with pytest.raises(ArgumentError, match="seed="):
        random.check_seed(seed)


def test_integers_are_uniform():
    counts = torch.bincount(random.integers(5, 10, 100_000), minlength=10).double()
    chi_square = ((counts - 10_000) ** 2 / 10_000).sum()
    assert chi_square < 27.9  # 99.9 % of chi-square with 9 degrees of freedom


def test_samples_without_replacement_are_sets_and_every_element_has_its_share():
    draws = [random.sample_without_replacement(seed, 10, 3) for seed in range(2000)]
    assert all(len(set(draw)) == 3 for draw in draws)
    counts = torch.bincount(torch.tensor(draws).flatten(), minlength=10)
    assert (counts - 600).abs().max() < 5 * math.sqrt(2000 * 0.3 * 0.7)


def test_derived_seeds_differ_by_label_value_and_label_type():
    seeds = {random.derive(1, *labels) for labels in [(1,), ("1",), (1, 1), ("1", 1), ("a", "b"), ("ab",), ()]}
    assert len(seeds) == 7


def test_names_that_share_a_field_are_refused(monkeypatch):
    monkeypatch.setattr(random, "field_of", lambda name: random.Field(7, 0))
    with pytest.raises(MismatchError, match="'a' and 'b'"):
        random.check_fields(["a", "b"])


def test_an_unknown_distribution_is_refused_with_the_known_ones():
    with pytest.raises(ArgumentError, match="'rademacher', 'binomial', 'normal'"):
        random.draw(0, "w", 3, "gauss")
