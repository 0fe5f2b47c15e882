import sys

import pytest

from covector.errors import ArgumentError, MismatchError
from covector.evidence import Budget, Evidence, Finding, paper, papers
from covector.evidence.registry import load, status


def test_the_decorated_function_is_returned_unchanged():
    def evidence(budget):
        return Evidence("gam", [Finding("a", "b", 1, 2, "c", None, "d")])

    assert paper("gam")(evidence) is evidence
    assert evidence(Budget()).slug == "gam"


def test_a_slug_outside_the_table_is_refused_at_the_decorator():
    with pytest.raises(ArgumentError, match="did you mean 'gam'"):
        paper("gamm")


def test_parts_given_as_one_string_are_refused():
    with pytest.raises(ArgumentError, match="parts="):
        paper("gam", parts="covector.trees.dot")


def test_presence_of_the_file_makes_a_paper_working(write_paper):
    assert status("one-byte-per-gradient") == "open"
    path = write_paper("one-byte-per-gradient")
    assert path.name == "one_byte_per_gradient.py"
    assert status("one-byte-per-gradient") == "working"


def test_listing_the_papers_imports_none_of_them(write_module):
    path = write_module("gam", "return None")
    path.write_text("raise RuntimeError('imported')")
    assert [row.slug for row in papers(status="working")] == ["gam"]
    with pytest.raises(RuntimeError, match="imported"):
        load("gam")


def test_loading_gives_the_experiment_with_its_parts(write_paper):
    write_paper("gam")
    experiment = load("gam")
    assert experiment.paper.slug == "gam"
    assert experiment.parts == ("covector.errors.CovectorError",)


def test_an_open_paper_cannot_be_loaded(write_paper):
    write_paper("gam")
    with pytest.raises(ArgumentError, match=r"open \(working: gam\)"):
        load("diff2")


def test_a_module_without_the_paper_s_experiment_is_refused(write_paper):
    write_paper("gam").rename(write_paper("diff2"))
    with pytest.raises(MismatchError, match="no experiment of 'diff2'"):
        load("diff2")


def test_a_module_outside_the_package_leaves_no_trace_among_the_imported_ones(write_paper):
    write_paper("gam")
    load("gam")
    assert "gam" not in sys.modules
