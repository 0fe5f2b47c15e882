from dataclasses import FrozenInstanceError

import pytest

from covector.errors import ArgumentError
from covector.evidence import Budget


def test_a_budget_chooses_its_own_value():
    assert Budget("smoke").choose(1, 2) == 1
    assert Budget("full").choose(1, 2) == 2


@pytest.mark.parametrize("name", ["", "Smoke", "big"])
def test_an_unknown_budget_is_refused(name):
    with pytest.raises(ArgumentError, match="'smoke' or 'full'"):
        Budget(name)


def test_a_budget_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Budget().seed = 1


def test_asking_for_a_path_makes_the_folder(tmp_path):
    path = Budget(out=tmp_path / "a" / "b").path("loss.svg")
    assert path.parent.is_dir()
    assert not path.exists()


@pytest.mark.parametrize("name", ["../loss.svg", "a/b.svg", "", ".", ".."])
def test_a_path_stays_in_its_folder(tmp_path, name):
    with pytest.raises(ArgumentError, match="name="):
        Budget(out=tmp_path).path(name)
