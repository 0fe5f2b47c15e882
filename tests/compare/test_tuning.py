"""Searches along a list of learning rates."""

from __future__ import annotations

import math

from covector.compare.tuning import Listed, search


def test_a_list_is_tried_in_its_order_and_the_first_of_equals_is_the_best() -> None:
    tried: list[float] = []
    best, found = search(Listed([0.3, 0.1, 1.0]), lambda lr: tried.append(lr) or 7.0)  # type: ignore[func-returns-value]
    assert (best, tried, found) == (0.3, [0.3, 0.1, 1.0], {0.3: 7.0, 0.1: 7.0, 1.0: 7.0})


def test_a_list_grows_at_either_edge_until_the_best_lies_inside() -> None:
    for target, reached in ((0.3, [1.0, 2.0, 4.0, 0.5, 0.25, 0.125]), (6.0, [1.0, 2.0, 4.0, 8.0, 16.0])):
        tuner = Listed([1.0, 2.0, 4.0], budget=9)
        best, found = search(tuner, lambda lr, target=target: abs(math.log(lr / target)))  # type: ignore[misc]
        assert list(found) == reached
        assert best == min(found, key=found.__getitem__)
        assert not tuner.at_edge


def test_the_budget_ends_the_growth() -> None:
    tuner = Listed([1.0, 2.0], budget=3)
    assert list(search(tuner, lambda lr: -lr)[1]) == [1.0, 2.0, 4.0]
    assert tuner.at_edge


def test_a_diverged_trial_is_never_the_best_and_results_are_kept_whole() -> None:
    best, found = search(Listed([1.0, 2.0]), lambda lr: {"loss": math.inf if lr == 1.0 else 5.0}, lambda r: r["loss"])
    assert best == 2.0
    assert found[1.0] == {"loss": math.inf}
