import json
from itertools import chain

import pytest
import torch

from covector.errors import ArgumentError, MismatchError
from covector.language.batches import Batches
from covector.language.encoding import Encoded, pad_rows

ITEMS = [Encoded([1] * (1 + i % 7), i) for i in range(23)]


def collate(items):
    return {"input_ids": pad_rows([i.ids for i in items], 0), "labels": torch.tensor([i.labels for i in items])}


def make(items=ITEMS, batch_size=4, seed=5, bucket=1):
    return Batches(items, collate, batch_size, seed, bucket)


def labels(batches, steps):
    return [next(batches)["labels"].tolist() for _ in range(steps)]


def flat(batches, steps):
    return list(chain.from_iterable(labels(batches, steps)))


@pytest.mark.parametrize("bucket", [1, 3])
def test_the_same_seed_gives_the_same_batches(bucket):
    first = labels(make(bucket=bucket), 20)
    assert first == labels(make(bucket=bucket), 20)
    assert first != labels(make(bucket=bucket, seed=6), 20)


@pytest.mark.parametrize("bucket", [1, 3])
def test_resuming_at_any_step_gives_the_rest_of_the_run(bucket):
    whole = labels(make(bucket=bucket), 17)
    for step in range(17):
        batches = make(bucket=bucket)
        labels(batches, step)
        state = json.loads(json.dumps(batches.state_dict()))
        resumed = make(bucket=bucket)
        next(resumed)
        resumed.load_state_dict(state)
        assert labels(resumed, 17 - step) == whole[step:]


@pytest.mark.parametrize("bucket", [1, 2])
def test_an_epoch_repeats_no_example_and_epochs_differ(bucket):
    batches = make(bucket=bucket)
    epochs = [flat(batches, batches.steps_per_epoch) for _ in range(3)]
    assert batches.steps_per_epoch == 5
    assert all(len(set(epoch)) == len(epoch) == 20 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_over_epochs_every_example_comes_equally_often():
    batches = make()
    seen = torch.bincount(torch.tensor(flat(batches, 5 * 200)), minlength=23) / 200
    assert (seen - 20 / 23).abs().max() < 0.12  # five standard deviations of a share of 200 draws


def test_buckets_need_less_padding():
    plain, bucketed = make(), make(bucket=5)
    area = [sum(next(batches)["input_ids"].numel() for _ in range(50)) for batches in (plain, bucketed)]
    assert area[1] < area[0]


def test_fewer_examples_than_a_batch_come_all_at_once():
    batches = make(ITEMS[:3])
    assert [sorted(batch) for batch in labels(batches, 2)] == [[0, 1, 2], [0, 1, 2]]


def test_the_state_of_other_batches_is_refused_and_nothing_changes():
    batches = make()
    next(batches)
    for other in (make(seed=6), make(batch_size=3), make(ITEMS[:-1]), make(bucket=2)):
        with pytest.raises(MismatchError):
            batches.load_state_dict(other.state_dict())
    assert batches.step == 1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"items": []}, "examples"), ({"batch_size": 0}, "batch_size"), ({"bucket": 0}, "bucket")],
)
def test_impossible_arguments_are_refused(arguments, name):
    with pytest.raises(ArgumentError, match=name):
        make(**arguments)
