"""Integers of few bytes, and the integer weights of preference codes."""

import math

import pytest
import torch

from covector.errors import CorruptionError
from covector.federated.state import integers_bytes, preference_weights, read_integers, width_of
from covector.gradients.framing import Reader


@pytest.mark.parametrize("bits", range(1, 63))
def test_integers_survive_in_the_fewest_bytes(bits):
    values = torch.tensor([0, 1, -1, (1 << bits) - 1, -(1 << bits)])
    width = width_of(values)
    assert width == (bits + 8) // 8
    data = integers_bytes(values, width)
    assert len(data) == 5 * width
    assert torch.equal(read_integers(Reader(data), width, 5), values)
    assert data == b"".join(int(v).to_bytes(width, "little", signed=True) for v in values)


@pytest.mark.parametrize("width", [0, 9])
def test_widths_beyond_eight_bytes_are_refused(width):
    with pytest.raises(CorruptionError):
        read_integers(Reader(bytes(90)), width, 1)


def test_preference_weights_are_whole_and_follow_the_exponential():
    weights = preference_weights()
    assert bool((weights == weights.round()).all())
    for code in range(256):
        assert abs(weights[code].item() - math.exp(code / 255) * 2**20) <= 0.5 + 1e-6
