"""The rules of the house, held by reading the sources: floors, file sizes, formats, light imports, documentation."""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import importlib.metadata
import inspect
import itertools
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import covector

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "covector"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))

# A file of more than this is more than one idea; a larger one stands here with its reason.
MAX_BYTES = 20_000
LARGE_FILES: dict[str, str] = {}

# What a first `import covector` must not pay for.
HEAVY = [
    "transformers",
    "flwr",
    "numba",
    "triton",
    "matplotlib",
    "typer",
    "sklearn",
    "peft",
    "gguf",
    "tensorboard",
    "lightning",
]

# Public names without an example of their own, by reason.
EXEMPT: dict[str, list[str]] = {
    "an inner loop: draw, the carriers and the ledger, which call it, have examples": [
        "kernels.add_field_",
        "kernels.materialize_seeded_",
        "kernels.materialize_sketch_",
        "kernels.project_sketch_",
    ],
    "the inverse of what writes it, whose example or test shows both": ["gradients.decode", "training.read_checkpoint"],
    "fetches over the network: tests/data does": ["data.get", "data.load"],
    "runs whole experiments: tests/evidence does": ["evidence.run", "evidence.collect"],
    "writes what a whole comparison found: tests/compare does": ["compare.write_report"],
    "needs a language model: tests/cli has one": ["inspection.subject_from_model"],
    "starts processes: tests/distributed does": ["distributed.hogwild", "distributed.launch"],
    "needs a model and a tokenizer: tests/language has them": [
        "language.Batches",
        "language.CausalTask",
        "language.CompletionTask",
        "language.TokenHead",
        "language.VerbalizerHead",
        "language.VerbalizerTask",
        "language.generate",
        "language.save_model",
        "language.task_for",
    ],
    "a message, laid out byte by byte at the top of its file: tests/federated sends them": [
        "federated.Commit",
        "federated.Grads",
        "federated.Join",
        "federated.Round",
    ],
    "a part of a whole run, which the demo and tests/finetune start": [
        "finetune.Federation",
        "finetune.Outcome",
        "finetune.Scorecard",
        "finetune.Workbench",
        "finetune.calibrated_accuracy",
        "finetune.finetune",
        "finetune.gather",
    ],
}
NO_EXAMPLE = {f"covector.{name}": reason for reason, names in EXEMPT.items() for name in names}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def layers() -> list[str]:
    """The rows of the import contract, highest first; a name in parentheses may be absent."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {contract["id"]: contract for contract in config["tool"]["importlinter"]["contracts"]}
    return list(contracts["floors"]["layers"])


def children() -> set[str]:
    """The packages and modules right under ``covector``."""
    return {info.name for info in pkgutil.iter_modules([str(PACKAGE)]) if not info.name.startswith("__")}


def test_every_package_has_a_floor() -> None:
    placed = re.findall(r"\w+", " ".join(layers()))
    assert len(placed) == len(set(placed)), "a package stands on two floors"
    assert children() <= set(placed), "place the new package in the floors contract of pyproject.toml"


def test_evidence_and_the_command_line_are_on_top() -> None:
    assert [row.strip("()") for row in layers()[:2]] == ["cli", "evidence"]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_holds_one_idea(path: Path) -> None:
    assert path.stat().st_size <= MAX_BYTES or relative(path) in LARGE_FILES


def imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


# What a declared dependency brings along, and is only imported beside it.
BROUGHT_BY = {"llvmlite": "numba", "cycler": "matplotlib", "triton": "torch"}


def declared() -> set[str]:
    """The distributions that pyproject.toml names, in the dependencies or in an extra, normalized."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    return {re.match(r"[\w.-]+", line).group().lower().replace("_", "-") for line in lines}  # type: ignore[union-attr]


def test_every_import_is_declared() -> None:
    distributions = importlib.metadata.packages_distributions()
    used = {name for path in SOURCES for name in imported_names(tree_of(path))}
    foreign = {BROUGHT_BY.get(name, name) for name in used - sys.stdlib_module_names - {"covector"}}
    owners = {name: {d.lower().replace("_", "-") for d in distributions.get(name, [name])} for name in foreign}
    assert not {name for name, candidates in owners.items() if not candidates & declared()}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_format_that_can_run_code(path: Path) -> None:
    tree = tree_of(path)
    unsafe = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    assert not unsafe & set(imported_names(tree))
    for name, call in calls(tree):
        assert name not in {"torch.load", "torch.save", "eval", "exec"}, f"line {call.lineno}: {name}"
        assert not any(keyword.arg == "allow_pickle" for keyword in call.keywords), f"line {call.lineno}"


MARKERS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b")


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=relative)
def test_nothing_is_left_to_do(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not MARKERS.search(text)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_declaration(node):
            assert not is_empty(node.body), f"{node.name} (line {node.lineno}) does nothing"
        if isinstance(node, ast.Raise) and node.exc is not None:
            assert "NotImplementedError" not in ast.unparse(node.exc), f"line {node.lineno}"
        if isinstance(node, ast.ExceptHandler) and is_broad(node):
            assert not is_empty(node.body), f"line {node.lineno} hides every error"


def is_declaration(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Abstract methods, overloads and protocol members have no body to fill."""
    decorators = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(decorators & {"abstractmethod", "overload"}) or (
        len(node.body) > 0 and isinstance(node.body[-1], ast.Expr) and ast.unparse(node.body[-1]) == "..."
    )


def is_empty(body: list[ast.stmt]) -> bool:
    return len(body) == 1 and isinstance(body[0], ast.Pass)


def is_broad(node: ast.ExceptHandler) -> bool:
    return node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_no_test_is_set_aside(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            assert name not in {"pytest.skip", "pytest.xfail", "pytest.mark.skip", "pytest.mark.xfail"}, name


def test_import_is_light() -> None:
    code = f"import sys, covector; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def public_modules() -> Iterator[str]:
    """``covector`` and the packages right under it, apart from the command line (its help is its documentation)."""
    yield "covector"
    yield from (f"covector.{name}" for name in sorted(children() - {"cli"}))


def public_names() -> Iterator[tuple[str, object]]:
    seen: set[int] = set()
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", []):
            value = getattr(module, name)
            ours = getattr(value, "__module__", "").split(".")[0] == "covector"
            if ours and (inspect.isclass(value) or inspect.isfunction(value)) and id(value) not in seen:
                seen.add(id(value))
                yield f"{module_name}.{name}", value


PUBLIC = dict(public_names())


@pytest.mark.parametrize("module_name", public_modules())
def test_every_package_says_what_it_is_and_what_it_exports(module_name: str) -> None:
    module = importlib.import_module(module_name)
    assert module.__doc__
    exported = getattr(module, "__all__", None)
    if module_name != "covector":
        assert exported, f"{module_name} has no __all__"
    assert not [name for name in exported or [] if not hasattr(module, name)]


def own_docstrings(value: object) -> Iterator[str]:
    """The docstring of a function, or those of a class and its own methods."""
    yield getattr(value, "__doc__", None) or ""
    if inspect.isclass(value):
        yield from (getattr(member, "__doc__", None) or "" for member in vars(value).values())


def is_declarative(value: object) -> bool:
    """Errors, protocols, abstract classes, and records without methods of their own: nothing to run."""
    if not inspect.isclass(value):
        return False
    if issubclass(value, BaseException) or inspect.isabstract(value) or getattr(value, "_is_protocol", False):
        return True
    record = dataclasses.is_dataclass(value) or hasattr(value, "_fields") or issubclass(value, enum.Enum)
    methods = [name for name, member in vars(value).items() if inspect.isfunction(member) and not name.startswith("_")]
    return record and not methods


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring_with_an_example(name: str) -> None:
    value = PUBLIC[name]
    assert inspect.getdoc(value), f"{name} has no docstring"
    if not is_declarative(value) and name not in NO_EXAMPLE:
        assert any(">>>" in doc for doc in own_docstrings(value)), f"{name} has no example"


def test_exemptions_are_still_needed() -> None:
    present = {name for name in NO_EXAMPLE if name.split(".")[1] in children()}
    assert present <= set(PUBLIC)
    assert {path for path in LARGE_FILES if (ROOT / path).stat().st_size <= MAX_BYTES} == set()


def test_the_version_is_one() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert covector.__version__ == config["project"]["version"]
