"""The documentation is true: each Python block of each page runs, in order, and the pages name what exists."""

from __future__ import annotations

import ast
import doctest
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from covector.evidence import Budget

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```\s*$", re.M | re.S)
NOT_RUN = re.compile(r"<!--\s*not run:\s*(?P<reason>\S[^>]*?)\s*-->\s*\Z")


class Block(NamedTuple):
    """One fenced block: where it starts, its code and why it is not run (empty: it is)."""

    line: int
    code: str
    reason: str


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        if match["language"] not in {"python", "py"}:
            continue
        indent = len(match["indent"])
        code = "".join(line[indent:] or "\n" for line in match["code"].splitlines(keepends=True))
        mark = NOT_RUN.search(text[: match.start()])
        blocks.append(Block(text[: match.start("code")].count("\n") + 1, code, mark["reason"] if mark else ""))
    return blocks


def with_code() -> list[Path]:
    return [page for page in PAGES if python_blocks(page)]


@pytest.mark.parametrize("page", with_code(), ids=relative)
def test_code_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for block in python_blocks(page):
        padded = "\n" * (block.line - 1) + block.code  # so that a traceback shows the line of the page
        compiled = compile(padded, str(page), "exec")
        if not block.reason:
            exec(compiled, namespace)
    check_what_the_page_defines(namespace, tmp_path)


def check_what_the_page_defines(namespace: dict[str, object], out: Path) -> None:
    """A page that shows a test, a docstring's example or a paper's experiment shows one that works."""
    mine = {name: v for name, v in namespace.items() if getattr(v, "__module__", "") == "__docs__"}
    for name, value in mine.items():
        for example in doctest.DocTestFinder().find(value, name, module=False, globs=dict(namespace)):
            assert doctest.DocTestRunner(verbose=False).run(example).failed == 0, example.name
        if name.startswith("test_") and callable(value):
            value()
        if hasattr(value, "experiment") and callable(value):
            assert value(Budget("smoke", out=out)).verdict == "holds"


@pytest.mark.parametrize("page", with_code(), ids=relative)
def test_most_blocks_are_run(page: Path) -> None:
    blocks = python_blocks(page)
    left_out = [block for block in blocks if block.reason]
    assert len(left_out) <= 2, f"lines {[block.line for block in left_out]}"


@pytest.mark.parametrize("page", with_code(), ids=relative)
def test_examples_use_the_public_surface(page: Path) -> None:
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block.code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "covector":
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not private, f"line {block.line}: {private}"


def test_every_page_is_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"\b([\w/-]+\.md)\b", config))
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} == listed


def test_every_package_has_its_reference() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    packages = {p.name.removesuffix(".py") for p in (ROOT / "src" / "covector").iterdir() if p.suffix in {"", ".py"}}
    public = {name for name in packages if not name.startswith("_") and name != "cli"}
    documented = {match.split(".")[0] for match in re.findall(r"^::: covector\.([\w.]+)", text, re.M)}
    assert public <= documented, "give the package a page in docs/ with a ::: block"


def test_pages_name_only_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"(?:^(?:\$ )?|`)make (?:[A-Z]+=\S+ )*([a-z]+)", text, re.M))
    assert named
    assert named <= targets
