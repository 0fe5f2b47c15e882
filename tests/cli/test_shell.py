import importlib
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import covector
from covector.cli import commands, shell
from covector.cli.commands import COMMANDS, Command

runner = CliRunner()

HELP = """
import sys, covector
before = set(sys.modules)
from covector.cli import main
sys.argv = ["covector", *{arguments!r}]
try:
    main()
except SystemExit as stop:
    code = stop.code or 0
heavy = {{"torch", "transformers", "matplotlib", "numba", "jinja2", "flwr"}}
print(sorted(heavy & (set(sys.modules) - before)), file=sys.stderr)
print(sorted(name for name in sys.modules if name.startswith("covector.cli.")), file=sys.stderr)
sys.exit(code)
"""


def covector_process(*arguments):
    script = HELP.format(arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def extra_command(monkeypatch, tmp_path):
    """A command module that is on the path but in no table yet."""
    (tmp_path / "a_new_command.py").write_text(
        "import typer\n"
        "from covector.errors import ArgumentError\n"
        "def greet(name: str, times: int = 1) -> None:\n"
        "    '''Greet somebody.'''\n"
        "    if times < 1:\n"
        "        raise ArgumentError('times', times, 'at least 1')\n"
        "    typer.echo(f'hello {name} ' * times)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(COMMANDS, "greet", Command("a_new_command:greet", "Say hello."))
    yield
    sys.modules.pop("a_new_command", None)


def test_help_in_a_real_process_lists_all_commands_and_imports_none():
    done = covector_process("--help")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout and command.help[:20] in done.stdout for name, command in COMMANDS.items())
    heavy, loaded = done.stderr.splitlines()
    assert heavy == "[]"
    assert loaded == "['covector.cli.commands', 'covector.cli.shell']"


def test_the_list_of_papers_needs_nothing_heavy():
    done = covector_process("papers", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "[]"


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "covector.cli", "version"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == f"covector {covector.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_and_explains_itself_by_example(name):
    module, attribute = COMMANDS[name].target.split(":")
    assert hasattr(importlib.import_module(module), attribute)
    done = runner.invoke(shell.app, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert f"covector {name}" in done.output.split("Example")[1]


def test_one_line_in_the_table_adds_a_command(extra_command):
    assert "Say hello." in runner.invoke(shell.app, ["--help"]).output
    assert "a_new_command" not in sys.modules
    done = runner.invoke(shell.app, ["greet", "Ada", "--times", "2"])
    assert done.output == "hello Ada hello Ada \n"


def test_an_error_is_one_message_and_exit_code_2(extra_command):
    done = runner.invoke(shell.app, ["greet", "Ada", "--times", "0"])
    assert done.exit_code == shell.ERROR_CODE == 2
    assert done.stdout == ""
    assert done.stderr == "Error: times=0: expected at least 1\n"


@pytest.mark.parametrize(("arguments", "variables"), [(["--debug"], {}), ([], {"COVECTOR_DEBUG": "1"})])
def test_debugging_lets_the_error_through(extra_command, arguments, variables):
    done = runner.invoke(shell.app, [*arguments, "greet", "Ada", "--times", "0"], env=variables)
    assert isinstance(done.exception, covector.errors.ArgumentError)


def test_errors_that_are_not_ours_are_not_hidden(monkeypatch):
    def broken():
        raise ZeroDivisionError

    monkeypatch.setattr("covector.cli.version.version", broken)
    assert isinstance(runner.invoke(shell.app, ["version"]).exception, ZeroDivisionError)


def test_a_misspelled_command_is_corrected():
    done = runner.invoke(shell.app, ["papesr"])
    assert done.exit_code == 2
    assert "Did you mean 'papers'?" in done.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_is_printed(arguments):
    assert runner.invoke(shell.app, arguments).output == f"covector {covector.__version__}\n"


def test_without_arguments_the_help_is_shown():
    assert "Usage" in runner.invoke(shell.app, []).output


def test_a_table_line_may_name_a_group_of_commands(monkeypatch):
    group = typer.Typer()
    group.command("one")(lambda: typer.echo("first"))
    group.command("two")(lambda: typer.echo("second"))
    monkeypatch.setattr(commands, "group_of_two", group, raising=False)
    monkeypatch.setitem(COMMANDS, "pair", Command("covector.cli.commands:group_of_two", "Two commands."))
    assert runner.invoke(shell.app, ["pair", "two"]).output == "second\n"
