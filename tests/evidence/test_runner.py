import random

import numpy
import pytest
import torch

from covector.errors import ArgumentError, CorruptionError
from covector.evidence import Budget, DidNotRun, Evidence, collect, run

DRAWS = """
import random, numpy, torch
value = random.random() + float(numpy.random.rand()) + float(torch.rand(()))
return Evidence("gam", [Finding("It draws", "any", value, "none", "1", None, "three generators")])
"""


def test_a_run_fills_in_what_the_experiment_does_not_know(write_paper, tmp_path):
    write_paper("gam")
    found = run("gam", Budget("full", seed=3, out=tmp_path))
    assert isinstance(found, Evidence)
    assert (found.budget, found.seed, found.parts) == ("full", 3, ("covector.errors.CovectorError",))
    assert found.environment["torch"] == torch.__version__
    assert found.seconds > 0
    assert [figure.name for figure in found.figures] == ["loss-by-step.svg"]


def test_the_same_seed_gives_the_same_findings_and_another_gives_others(write_module):
    write_module("gam", DRAWS)
    first, again, other = (run("gam", Budget(seed=seed)) for seed in (1, 1, 2))
    assert first.findings == again.findings
    assert first.findings != other.findings


def test_a_run_leaves_the_global_generators_as_they_were(write_module):
    write_module("gam", DRAWS)
    for seed in (random.seed, numpy.random.seed, torch.manual_seed):
        seed(7)
    expected = (random.random(), numpy.random.rand(), torch.rand(()).item())
    for seed in (random.seed, numpy.random.seed, torch.manual_seed):
        seed(7)
    run("gam", Budget(seed=1))
    assert (random.random(), numpy.random.rand(), torch.rand(()).item()) == expected


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise ValueError('no data')", "ValueError: no data"),
        ("import a_package_that_is_not_there", "ModuleNotFoundError"),
        ("return None", "returned NoneType, expected Evidence"),
        ("return Evidence('diff2', [Finding('a', 'b', 1, 2, 'c', True, 'd')])", "the evidence of 'diff2'"),
        (
            "return Evidence('gam', [Finding('a', 'b', 1, 2, 'c', True, 'd')], ['no.svg'])",
            "did not write: no.svg",
        ),
        ("return Evidence('gam', [Finding('a', 'b', float('nan'), 2, 'c', True, 'd')])", "measured=nan"),
    ],
)
def test_an_experiment_that_fails_is_reported_with_its_error(write_module, body, error):
    write_module("gam", body)
    failed = run("gam", Budget())
    assert isinstance(failed, DidNotRun)
    assert failed.verdict == "did not run"
    assert error in failed.error
    assert "Traceback" in failed.trace


def test_a_module_that_does_not_import_is_reported_too(write_module):
    write_module("gam", "return None").write_text("def")
    assert "SyntaxError" in run("gam", Budget()).error


@pytest.mark.parametrize("slug", ["no-such-paper", "diff2"])
def test_an_unknown_or_open_paper_is_an_error_of_the_caller(write_paper, slug):
    write_paper("gam")
    with pytest.raises(ArgumentError):
        run(slug, Budget())


def test_results_are_collected_as_they_were_written(write_paper, write_module, tmp_path):
    write_paper("gam")
    write_module("diff2", "raise ValueError('no data')")
    out = tmp_path / "runs"
    results = [run(slug, Budget(out=out / slug)) for slug in ("diff2", "gam")]
    for result in results:
        result.write(out / result.slug)
    failed, found = collect(out)
    assert failed == results[0]
    assert found.findings == results[1].findings
    assert found.figures[0].is_file()


def test_a_failure_replaces_an_older_result(write_paper, write_module, tmp_path):
    write_paper("gam")
    run("gam", Budget(out=tmp_path / "gam")).write(tmp_path / "gam")
    write_module("gam", "raise ValueError('no data')")
    run("gam", Budget(out=tmp_path / "gam")).write(tmp_path / "gam")
    assert [type(result) for result in collect(tmp_path)] == [DidNotRun]


def test_no_folder_holds_no_results(tmp_path):
    assert collect(tmp_path / "absent") == []


@pytest.mark.parametrize("text", ["{", "[]", '{"verdict": "did not run"}'])
def test_a_damaged_record_is_refused(tmp_path, text):
    (tmp_path / "gam").mkdir()
    (tmp_path / "gam" / "evidence.json").write_text(text)
    with pytest.raises(CorruptionError):
        collect(tmp_path)
