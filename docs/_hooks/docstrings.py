"""Docstrings as Markdown: cross-references, doctests, literal blocks and simple tables.

The sources write them the way Python does (``:class:`Dense```, ``>>>``, ``::``, rows of ``===``), so that they read
well in an editor and in ``help()``. The site wants Markdown.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`(~?)([\w.]+)`")
RULE = re.compile(r"=+( +=+)+")


class Markdown(griffe.Extension):
    """Rewrites every docstring as it is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value, obj)


def to_markdown(text: str, obj: griffe.Object) -> str:
    return fence_doctests(tables(literal_blocks(ROLE.sub(lambda role: link(role, obj), text))))


def link(role: re.Match[str], obj: griffe.Object) -> str:
    """A reference that becomes a link where the site has a place for it, and plain code elsewhere."""
    short, target = role.groups()
    text = target.rsplit(".", 1)[-1] if short else target
    return f'<autoref identifier="{resolve(target, obj)}" optional><code>{text}</code></autoref>'


def resolve(target: str, obj: griffe.Object) -> str:
    if target.startswith("covector."):
        return target
    first, *rest = target.split(".")
    try:
        return ".".join([obj.resolve(first), *rest])
    except griffe.NameResolutionError:
        return target


def literal_blocks(text: str) -> str:
    """A paragraph that ends in ``::`` announces an indented block, which Markdown takes as code already."""
    return re.sub(r"::(?=\n\n +)", ":", re.sub(r"(?m)^ *::\n(?=\n +)", "", text))


def tables(text: str) -> str:
    lines, out = text.split("\n"), []
    while lines:
        if RULE.fullmatch(lines[0].strip()) and sum(RULE.fullmatch(line.strip()) is not None for line in lines) >= 3:
            out += table(lines)
        else:
            out.append(lines.pop(0))
    return "\n".join(out)


def table(lines: list[str]) -> list[str]:
    """Takes one table off the front of ``lines``; its columns are where the first rule has its runs of ``=``."""
    starts = [run.start() for run in re.finditer("=+", lines.pop(0))]
    rows: list[list[str]] = []
    rules = 0
    while rules < 2:
        line = lines.pop(0)
        if RULE.fullmatch(line.strip()):
            rules += 1
        else:
            cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
            rows.append([cell.replace("|", "\\|") for cell in cells])
    header, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return ["", header, "|" + " --- |" * len(starts), *body, ""]


def fence_doctests(text: str) -> str:
    out: list[str] = []
    inside = False
    for line in [*text.split("\n"), ""]:
        if not inside and line.lstrip().startswith(">>>"):
            inside = True
            out += ["", line[: len(line) - len(line.lstrip())] + "```pycon"]
        elif inside and not line.strip():
            inside = False
            out.append(out_indent(out) + "```")
        out.append(line)
    return "\n".join(out[:-1] if not out[-1] else out)


def out_indent(out: list[str]) -> str:
    opening = next(line for line in reversed(out) if line.lstrip() == "```pycon")
    return opening[: len(opening) - len(opening.lstrip())]
