import json

import pytest
from typer.testing import CliRunner

from covector.cli.shell import app
from covector.evidence.table import STATIONS, table

runner = CliRunner(env={"COLUMNS": "160"})


def test_all_papers_are_listed_under_their_stations():
    output = runner.invoke(app, ["papers"]).output
    assert all(row.slug in output for row in table())
    assert all(name in output for name in {row.station for row in table()})


def test_json_is_an_array_with_every_field():
    records = json.loads(runner.invoke(app, ["papers", "--json"]).stdout)
    assert [record["slug"] for record in records] == [row.slug for row in table()]
    assert all(
        set(record) == {"number", "slug", "title", "authors", "year", "source", "station", "summary", "url", "status"}
        for record in records
    )


@pytest.mark.parametrize("station", STATIONS)
def test_a_station_lists_its_own_papers(station):
    records = json.loads(runner.invoke(app, ["papers", "--station", station, "--json"]).stdout)
    assert [record["slug"] for record in records] == [row.slug for row in table() if row.station == station]


def test_status_tells_working_papers_from_open_ones(write_paper):
    write_paper("gam")
    working = json.loads(runner.invoke(app, ["papers", "--status", "working", "--json"]).stdout)
    assert [(record["slug"], record["status"]) for record in working] == [("gam", "working")]
    assert "120 papers: 1 working, 119 open" in runner.invoke(app, ["papers"]).output


@pytest.mark.parametrize(("option", "value"), [("--station", "optimizers"), ("--status", "done")])
def test_an_unknown_choice_is_refused_with_what_would_work(option, value):
    done = runner.invoke(app, ["papers", option, value])
    assert done.exit_code == 2
    assert f"{option[2:]}='{value}': expected" in done.stderr


def test_titles_are_whole_in_a_narrow_terminal():
    output = runner.invoke(app, ["papers", "--station", "series"], env={"COLUMNS": "60"}).output
    title = next(row.title for row in table() if row.station == "series")
    assert set(title.split()) <= set(output.split())
