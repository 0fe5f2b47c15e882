"""A template and its values become one HTML file."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["environment", "write_page"]

_BASE = Path(__file__).parent / "templates"


def environment() -> dict[str, Any]:
    """Versions and machine, for the foot of a report.

    >>> sorted(environment())
    ['covector', 'machine', 'python', 'threads', 'torch']
    """
    import torch

    from covector import __version__

    return {
        "covector": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def write_page(
    template: Path, values: Mapping[str, Any], path: Path, filters: Mapping[str, Callable[..., Any]] | None = None
) -> None:
    """Fill a template and write the page.

    Args:
        template: a Jinja template; may extend ``base.html``, which has the style and the blocks ``title`` and
            ``main``. Text is escaped; drawings need ``|safe``.
        values: what the template uses, by name.
        path: an ``.html`` file.
        filters: further filters for the template.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.html").write_text("{% extends 'base.html' %}{% block main %}{{ text }}{% endblock %}")
    >>> write_page(folder / "a.html", {"text": "1 < 2"}, folder / "out.html")
    >>> "1 &lt; 2" in (folder / "out.html").read_text()
    True
    """
    from jinja2 import Environment, FileSystemLoader

    loader = FileSystemLoader([template.parent, _BASE])
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.filters |= dict(filters or {})
    path.write_text(pages.get_template(template.name).render(**values), encoding="utf-8")
