"""SpamAssassin's public mail corpus: subject and readable body of each mail, spam or not.

Headers other than the subject are left out: they tell which collection a mail comes from.
"""

from __future__ import annotations

import email
import json
from collections.abc import Iterator
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from covector.data.corpus import Corpus, read_examples, write_examples
from covector.data.splits import stratified

__all__ = ["convert", "load", "readable"]


def convert(raw: Path, out: Path, name: str) -> None:
    """Read the mails; of equal ones the first is kept. Splits are 80/10/10, stratified by group."""
    kept: dict[str, dict[str, Any]] = {}
    for path in sorted(raw.rglob("spam-assassin/data/*/*.json")):
        mail = json.loads(path.read_text(encoding="utf-8"))
        group = mail["group"]
        text = readable(mail["text"])
        row = {
            "text": text,
            "label": int(group.startswith("spam")),
            "client": group,
            "id": f"{group}/{path.stem}",
        }
        if text:
            kept.setdefault(text, row)
    rows = list(kept.values())
    splits = stratified([row["id"] for row in rows], [row["client"] for row in rows])
    write_examples(out, [{**row, "split": split} for row, split in zip(rows, splits, strict=True)])


def load(folder: Path, name: str) -> Corpus:
    """The mails: ``text`` (subject, then body), ``label`` (1 spam, 0 ham), ``client`` (the group), ``id``."""
    return Corpus.from_examples(name, read_examples(folder))


def readable(source: str) -> str:
    r"""Subject and body of a mail as plain text, markup removed, white space joined.

    >>> readable("From a  Thu\nSubject: Hi\nContent-Type: text/html\n\n<p>Read <b>this</b></p>")
    'Hi\nRead this'
    """
    if source.startswith("From "):  # the mailbox separator is no header
        source = source.split("\n", 1)[-1]
    message = email.message_from_string(source)
    subject = " ".join(str(message["subject"] or "").split())
    return f"{subject}\n{_body(message)}".strip()


def _body(message: Message) -> str:
    parts = {part.get_content_type(): part for part in reversed(list(_texts(message)))}
    if "text/plain" in parts:
        return " ".join(_decoded(parts["text/plain"]).split())
    if "text/html" in parts:
        page = _Page()
        page.feed(_decoded(parts["text/html"]))
        return " ".join(" ".join(page.pieces).split())
    return ""


def _texts(message: Message) -> Iterator[Message]:
    return (part for part in message.walk() if part.get_content_maintype() == "text")


def _decoded(part: Message) -> str:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)  # a text part is no multipart
    try:
        return content.decode(part.get_content_charset() or "latin-1", errors="replace")
    except LookupError:  # a charset nobody knows, as spam likes to declare
        return content.decode("latin-1")


class _Page(HTMLParser):
    """Collects the visible text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.pieces.append(data)
