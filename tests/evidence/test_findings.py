import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from covector.errors import ArgumentError, CorruptionError
from covector.evidence import Evidence, Finding
from covector.evidence.findings import show

FINDING = Finding("It is smaller", "smaller", 0.5, 1, "ratio", True, "one run")


def finding(holds):
    return replace(FINDING, holds=holds)


words = st.text(min_size=1).filter(str.strip)
values = st.one_of(words, st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
findings = st.builds(Finding, words, values, values, values, words, st.sampled_from([True, False, None]), words)
names = st.text("abcdefghijklmnop-", min_size=1)
evidences = st.builds(
    Evidence,
    names,
    st.lists(findings, min_size=1, max_size=3),
    st.lists(names.map(Path), max_size=3),
    st.dictionaries(words, words, max_size=3),
    st.integers(0, 10**6).map(lambda milliseconds: milliseconds / 1000),
    st.sampled_from(["smoke", "full"]),
    st.lists(names, max_size=2),
    st.integers(0, 2**31),
)


@given(evidences)
def test_json_gives_back_the_same_evidence(evidence):
    assert Evidence.from_json(evidence.to_json()) == evidence


@given(evidences)
def test_json_has_no_number_that_other_programs_cannot_read(evidence):
    json.loads(evidence.to_json(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ([True, True], "holds"),
        ([True, False], "partly"),
        ([True, None], "partly"),
        ([False, None], "does not hold"),
        ([False], "does not hold"),
        ([None], "undecided"),
    ],
)
def test_the_verdict_sums_up_the_findings(outcomes, verdict):
    assert Evidence("gam", [finding(holds) for holds in outcomes]).verdict == verdict


@pytest.mark.parametrize("number", [numpy.float32(0.25), torch.tensor(0.25), 0.25, numpy.float64(0.25)])
def test_scalars_of_numpy_and_torch_become_plain_numbers(number):
    measured = replace(FINDING, measured=number).measured
    assert type(measured) is float
    assert measured == 0.25


@pytest.mark.parametrize("number", [float("nan"), float("inf"), torch.tensor(float("-inf")), None, True, "", " ", [1]])
def test_a_measurement_that_json_cannot_carry_is_refused(number):
    with pytest.raises(ArgumentError, match="measured="):
        replace(FINDING, measured=number)


@pytest.mark.parametrize("field", ["claim", "unit", "note"])
def test_a_finding_without_its_texts_is_refused(field):
    with pytest.raises(ArgumentError, match=f"{field}="):
        replace(FINDING, **{field: "  "})


def test_evidence_without_findings_is_refused():
    with pytest.raises(ArgumentError, match="findings"):
        Evidence("gam", [])


def test_evidence_cannot_be_changed_afterwards():
    evidence = Evidence("gam", [FINDING], [Path("a.svg")])
    with pytest.raises(FrozenInstanceError):
        evidence.slug = "diff2"
    assert isinstance(evidence.findings, tuple)
    assert isinstance(evidence.figures, tuple)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '"x"',
        '{"format": "covector-evidence/1"}',
        '{"format": "covector-evidence/9", "slug": "gam"}',
    ],
)
def test_text_that_is_no_evidence_is_refused(text):
    with pytest.raises(CorruptionError):
        Evidence.from_json(text)


def test_a_truncated_record_is_refused_wherever_it_ends():
    text = Evidence("gam", [FINDING], [Path("a.svg")]).to_json()
    for end in range(len(text)):
        with pytest.raises(CorruptionError):
            Evidence.from_json(text[:end])


def test_a_written_record_can_be_moved_with_its_figures(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "loss.svg").write_text("<svg/>")
    Evidence("gam", [FINDING], [here / "loss.svg"]).write(here)
    here.rename(there)
    (figure,) = Evidence.read(there / "evidence.json").figures
    assert figure == there / "loss.svg"
    assert figure.is_file()


def test_a_figure_outside_the_folder_is_kept_by_its_full_path(tmp_path):
    evidence = Evidence("gam", [FINDING], [tmp_path / "loss.svg"])
    assert Evidence.read(evidence.write(tmp_path / "record")).figures == (tmp_path / "loss.svg",)


def test_the_summary_is_an_aligned_table_of_the_findings():
    head, row = Evidence("gam", [FINDING]).summary.splitlines()
    assert head.split() == ["claim", "reported", "measured", "baseline", "unit", "verdict"]
    assert head.index("measured") == row.index("0.5")
    assert row.endswith("holds")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5678, "1,235"), (-17988, "-17,988"), (0.00012345, "0.0001234"), (1e20, "1e+20"), (0, "0")],
)
def test_numbers_are_shown_with_four_digits_and_thousands_apart(value, text):
    assert show(value) == text
