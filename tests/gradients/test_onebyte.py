import pytest
import torch

from covector.errors import ArgumentError, NonFiniteError
from covector.gradients import OneByte


def test_grid_is_the_specified_one():
    grid = OneByte(1 << 40).grid[1:].double()
    expected = 2.0**40 * 2.0 ** ((torch.arange(1, 128).double() - 64) / 8)
    assert ((grid - expected).abs() <= 0.5 + 1e-9 * expected).all()


def test_decoding_inverts_encoding_on_the_grid():
    code = OneByte(1 << 20)
    every = torch.arange(256).to(torch.uint8)
    values = code.decode(every)
    again = code.decode(code.encode(values.double(), seed=3))
    assert torch.equal(again, values)


def test_rounding_is_unbiased_inside_below_and_at_the_grid():
    code = OneByte(1 << 20)
    values = torch.tensor([1.0, 700.0, 1234.5, 1e6, -3e6, 2.2e8]).double()
    draws = 100_000
    decoded = code.decode(code.encode(values.repeat(draws, 1), seed=1)).double()
    mean, spread = decoded.mean(0), decoded.std(0)
    assert ((mean - values).abs() <= 5 * spread / draws**0.5 + 1e-9).all()


def test_relative_error_is_at_most_a_step_and_magnitudes_above_the_grid_are_clipped():
    code = OneByte(1 << 20)
    values = torch.logspace(4, 8, 2000).double()
    decoded = code.decode(code.encode(values, seed=1)).double()
    assert ((decoded / values - 1).abs() < 2 ** (1 / 8) - 1 + 1e-3).all()
    assert code.decode(code.encode(torch.tensor([1e30]), seed=0)).item() == code.grid[-1]


def test_scales_that_would_merge_codes_and_values_that_are_not_finite_are_refused():
    with pytest.raises(ArgumentError, match="scale_units=255"):
        OneByte(255)
    with pytest.raises(NonFiniteError):
        OneByte(1 << 20).encode(torch.tensor([float("nan")]), seed=0)


def test_rounding_is_unbiased_even_where_the_smallest_scale_merges_codes():
    code = OneByte(256)
    assert code.grid.unique().numel() < 128
    values = torch.tensor([0.3, 1.7, 40.0]).double()
    decoded = code.decode(code.encode(values.repeat(50_000, 1), seed=1)).double()
    assert ((decoded.mean(0) - values).abs() <= 5 * decoded.std(0) / 50_000**0.5).all()
