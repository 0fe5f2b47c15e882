"""A sampler whose batch size changes, alone and under a DataLoader."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from covector.errors import ArgumentError
from covector.optim import DynamicBatchSampler


@given(st.integers(1, 60), st.lists(st.integers(1, 20), min_size=1, max_size=60), st.booleans())
def test_a_pass_shows_every_example_once_whatever_the_sizes(examples, sizes, shuffle):
    sampler = DynamicBatchSampler(examples, sizes[0], shuffle=shuffle)
    seen, drawn = [], []
    for turn, batch in enumerate(sampler):
        seen += batch
        drawn.append(len(batch))
        sampler.batch_size = sizes[(turn + 1) % len(sizes)]
    assert sorted(seen) == list(range(examples))
    assert all(got == sizes[turn % len(sizes)] for turn, got in enumerate(drawn[:-1]))


@given(st.integers(1, 60), st.integers(1, 20), st.booleans())
def test_the_length_is_the_batches_of_a_pass(examples, size, drop_last):
    sampler = DynamicBatchSampler(examples, size, drop_last=drop_last)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert not drop_last or all(len(batch) == size for batch in batches)


def test_the_order_is_a_function_of_seed_and_epoch():
    one, two, other = DynamicBatchSampler(50, 50), DynamicBatchSampler(50, 50), DynamicBatchSampler(50, 50, seed=1)
    first, second = list(one), list(one)
    assert first != second
    assert first != list(other)
    two.set_epoch(1)
    assert list(two) == second


def test_a_data_loader_is_made_once_and_follows():
    data = TensorDataset(torch.arange(40))
    sampler = DynamicBatchSampler(data, 2)
    loader = DataLoader(data, batch_sampler=sampler)
    sizes = []
    for (batch,) in loader:
        sizes.append(len(batch))
        sampler.batch_size = 2 + len(sizes)
    assert sizes == [2, 3, 4, 5, 6, 7, 8, 5]


@pytest.mark.processes
@pytest.mark.parametrize(("workers", "prefetch"), [(1, 2), (2, 3)])
def test_with_workers_a_new_size_holds_after_what_was_fetched_ahead(workers, prefetch):
    data = TensorDataset(torch.arange(60))
    sampler = DynamicBatchSampler(data, 2)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=workers, prefetch_factor=prefetch)
    sizes = []
    for (batch,) in loader:
        sizes.append(len(batch))
        sampler.batch_size = 7
    lag = workers * prefetch
    assert sizes[: 2 + lag] == [2] * (1 + lag) + [7]


def test_sizes_are_replayed_then_left():
    sampler = DynamicBatchSampler(12, 3, shuffle=False)
    drawing = iter(sampler)
    next(drawing)
    sampler.batch_size = 4
    next(drawing)
    again = DynamicBatchSampler(12, 5, shuffle=False)
    again.replay(sampler.drawn())
    assert [len(batch) for batch in again] == [3, 4, 5]
    assert [len(batch) for batch in again] == [5, 5, 2]


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_a_size_that_cannot_be_is_refused_and_the_old_one_stays(size):
    sampler = DynamicBatchSampler(12, 3)
    with pytest.raises(ArgumentError, match="batch_size"):
        sampler.batch_size = size
    assert sampler.batch_size == 3


def test_no_examples_are_refused():
    with pytest.raises(ArgumentError, match="at least one example"):
        DynamicBatchSampler([], 3)
