"""Numbers are put into the right words."""

import pytest

from covector.errors import ArgumentError
from covector.inspection import Subject, read, subject_from_task, train_subject
from covector.landscape import GradientScatter, Inspection


def words(**values):
    return {row.name: (row.value, row.meaning) for row in read(Inspection(100, 32, 1.0, 0.5, **values))}


@pytest.mark.parametrize(("lr", "word"), [(0.05, "stable along all"), (0.2, "at the edge"), (0.3, "beyond the edge")])
def test_a_learning_rate_is_judged_by_the_sharpness(lr, word):
    assert word in words(top=(10.0,), lr=lr)["lr / largest stable lr"][1]


@pytest.mark.parametrize(("bottom", "word"), [(0.1, "valley"), (-0.5, "weak"), (-5.0, "saddle")])
def test_the_smallest_eigenvalue_tells_a_valley_from_a_saddle(bottom, word):
    assert word in words(top=(10.0,), bottom=bottom)["smallest eigenvalue"][1]


def test_momentum_moves_the_edge():
    value, meaning = words(top=(10.0,), momentum=0.9)["largest stable lr"]
    assert (value, meaning.split(",")[0]) == ("0.38", "2 (1 + 0.9) / sharpness")


def test_what_was_not_measured_is_not_spoken_of():
    assert list(words()) == ["loss"]


def test_noise_gives_a_batch_size_or_says_why_not():
    assert words(scatter=GradientScatter(50.0, 2.0, 32))["suggested batch size"][0] == "25"
    assert words(scatter=GradientScatter(50.0, -2.0, 32))["noise scale"][0] == "unknown"


def test_ends_that_were_not_found_are_called_bounds():
    assert "bounds" in words(top=(1.0,), converged=False)["converged"][1]


def test_training_lowers_the_loss_and_leaves_evaluation_mode():
    subject = subject_from_task("regression")
    before = float(subject.objective(subject.batches[0]).detach())
    records = train_subject(subject, steps=40, lr=0.1)
    assert float(subject.objective(subject.batches[0]).detach()) < before
    assert records[0]["sharpness_ratio"] == pytest.approx(records[0]["sharpness"] * 0.05)
    assert not subject.objective.module.training


def test_a_subject_without_training_data_is_not_trained():
    subject = subject_from_task("regression")
    with pytest.raises(ArgumentError, match="train=3"):
        train_subject(Subject("it", subject.objective, subject.batches), steps=3, lr=0.1)
