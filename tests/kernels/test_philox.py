"""Philox 4x32-10 against its published vectors, and the layout of the counter."""

import pytest
import torch

from covector import kernels
from covector.kernels.fields import field_integers, field_values, philox, words
from covector.kernels.operands import Place

# counter, key, output: the known answers of the Random123 distribution
KNOWN = {
    "zeros": ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_answers(name):
    counter, key, expected = KNOWN[name]
    assert " ".join(f"{word:08x}" for word in philox(torch.tensor([counter]), key)[0].tolist()) == expected


@pytest.mark.parametrize("name", KNOWN)
def test_known_answers_through_the_kernels(name):
    counter, (low, high), expected = KNOWN[name]
    block, field, stream, step = counter
    out = torch.zeros(128)
    seed = torch.tensor([(high << 32 | low) - (1 << 64) * (high >> 31)])
    one = torch.ones(1, dtype=torch.float64)
    kernels.add_field_(out, seed, one, "rademacher", field, block * 128, stream, step)
    bits = (out < 0).to(torch.int64).view(4, 32)
    found = (bits << torch.arange(32)).sum(1).tolist()
    assert " ".join(f"{word:08x}" for word in found) == expected


def test_seed_is_the_key_with_its_low_half_first():
    assert torch.equal(words(0x299F31D0A4093822, 5, 1), philox(torch.tensor([[5, 0, 0, 0]]), (0xA4093822, 0x299F31D0)))


def test_a_seed_and_its_signed_form_are_one():
    assert torch.equal(words(2**64 - 3, 0, 4), words(-3, 0, 4))


@pytest.mark.parametrize("change", ["seed", "field", "stream", "step", "start"])
@pytest.mark.parametrize("distribution", ["rademacher", "binomial", "normal"])
def test_fields_that_differ_in_one_coordinate_are_uncorrelated(distribution, change):
    count = 1 << 18
    seed, place = 11, Place(12, 0, 1, 2)
    x = field_values(seed, distribution, count, place)
    if change == "seed":
        seed += 1
    else:
        place = place._replace(**{change: getattr(place, change) + (count if change == "start" else 1)})
    y = field_values(seed, distribution, count, place)
    assert abs(float(x.double() @ y.double())) / count**0.5 < 5  # five standard deviations of a sum of products


@pytest.mark.parametrize("distribution", ["rademacher", "binomial"])
def test_neighbors_within_a_field_are_uncorrelated(distribution):
    z = field_integers(3, distribution, 1 << 18).double()
    z /= z.square().mean().sqrt()
    for lag in (1, 2, 31, 32, 64, 128, 2048):
        assert abs(float(z[lag:] @ z[:-lag])) / z.numel() ** 0.5 < 5


@pytest.mark.parametrize("distribution", ["rademacher", "binomial", "normal"])
@pytest.mark.parametrize("start", [0, 1, 127, 4097, 2**33 + 5])
def test_a_slice_equals_the_whole(distribution, start):
    whole = field_values(9, distribution, 3000, Place(4, start))
    for begin, count in ((0, 1), (1, 7), (33, 0), (126, 300), (2999, 1)):
        part = field_values(9, distribution, count, Place(4, start + begin))
        assert torch.equal(part, whole[begin : begin + count])
