import math

import pytest
import torch

from covector.errors import ArgumentError, MismatchError
from covector.language import Scores, bootstrap, overall, paired_bootstrap


def scores(losses, correct, weights=None, metric="accuracy"):
    tensors = [torch.tensor(v, dtype=torch.float64) for v in (losses, correct, weights or [1.0] * len(losses))]
    return Scores(*tensors, metric)


def test_loss_weighs_predictions_and_accuracy_counts_examples():
    result = scores([1.0, 4.0], [1.0, 0.0], [3.0, 1.0], "perplexity")
    assert result.loss == 1.75
    assert result.accuracy == 0.5
    assert result.value == result.perplexity == pytest.approx(math.exp(1.75))


def test_overall_pools_the_examples_of_all_clients():
    parts = [scores([1.0], [1.0]), scores([], []), scores([2.0, 3.0], [0.0, 0.0])]
    pooled = overall(parts)
    assert (pooled.n, pooled.loss, pooled.accuracy) == (3, 2.0, pytest.approx(1 / 3))


def test_a_client_without_examples_has_no_scores():
    empty = scores([], [])
    assert empty.n == 0
    assert all(math.isnan(v) for v in (empty.loss, empty.accuracy, empty.perplexity, *empty.interval()))


def test_scores_of_different_tasks_are_not_pooled():
    with pytest.raises(MismatchError, match="accuracy"):
        overall([scores([1.0], [1.0]), scores([1.0], [1.0], metric="perplexity")])
    with pytest.raises(ArgumentError, match="at least one client"):
        overall([])


def test_interval_is_that_of_the_normal_approximation():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap(values, level=0.9, resamples=4000)
    half = 1.645 * values.std().item() / 20
    assert low == pytest.approx(values.mean().item() - half, abs=0.12 * half)
    assert high == pytest.approx(values.mean().item() + half, abs=0.12 * half)


def test_interval_covers_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    hits = 0
    for trial in range(200):
        values = (torch.rand(60, generator=generator) < 0.7).double()
        low, high = bootstrap(values, level=0.8, resamples=300, seed=trial)
        hits += low <= 0.7 <= high
    assert 0.70 <= hits / 200 <= 0.88  # 0.8 with three standard deviations of 200 trials


def test_weighted_interval_of_equal_weights_is_the_plain_one():
    values = [0.1, 0.5, 0.9, 0.2]
    assert bootstrap(values, weights=[2.0] * 4) == pytest.approx(bootstrap(values))


def test_interval_is_reproducible_and_chunks_do_not_repeat(monkeypatch):
    values = torch.rand(50, generator=torch.Generator().manual_seed(2))
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)
    monkeypatch.setattr("covector.language.metrics._CHUNK", 5000)
    low, high = bootstrap(values)
    assert low < high


def test_perplexity_interval_surrounds_the_perplexity():
    result = scores([1.0, 2.0, 3.0, 2.5], [0.0] * 4, [10.0, 5.0, 1.0, 7.0], "perplexity")
    low, high = result.interval()
    assert low < result.value < high


def test_pairing_finds_the_gain_that_separate_intervals_hide():
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(100, generator=generator)
    after = before + 0.1 + 0.05 * torch.randn(100, generator=generator)
    assert paired_bootstrap(before, after).low > 0
    assert bootstrap(after).low < bootstrap(before).high


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"values": []}, "values"), ({"level": 1.0}, "level"), ({"resamples": 0}, "resamples")],
)
def test_impossible_arguments_are_refused(arguments, name):
    with pytest.raises(ArgumentError, match=name):
        bootstrap(**{"values": [1.0], **arguments})


def test_unequal_numbers_of_values_are_refused():
    with pytest.raises(MismatchError, match="2 values and after 1"):
        paired_bootstrap([1.0, 2.0], [1.0])
    with pytest.raises(MismatchError, match="weights 1"):
        bootstrap([1.0, 2.0], weights=[1.0])
