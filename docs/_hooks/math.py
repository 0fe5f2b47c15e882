"""TeX between dollar signs becomes MathML when the site is built: browsers draw it without any script."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

MARKED = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def on_page_content(content: str, **_: Any) -> str:
    """Called by MkDocs with each page's HTML."""
    return MARKED.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    tag, bracket, tex = match.groups()
    display = "block" if bracket == "[" else "inline"
    return f'<{tag} class="math">{convert(html.unescape(tex).strip(), display=display)}</{tag}>'
