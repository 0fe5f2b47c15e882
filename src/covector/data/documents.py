"""Long documents for language modeling, by author, genre, book or chapter.

Addresses, chapters and novels are split by position: the first 80 % of each document trains, the next 10 %
validates, the last 10 % tests, cut between sentences, so every client has all three and no text is in two.
The Brown corpus has enough documents to be split by whole document instead, stratified by genre.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from covector.data.brown import brown_documents
from covector.data.corpus import Corpus, read_examples, write_examples
from covector.data.rfiles import read_lazy
from covector.data.splits import SPLITS, stratified
from covector.errors import ArgumentError

__all__ = ["convert", "load", "passages"]

_SENTENCE_END = re.compile(r"(?<=[.!?;])[\"')\]”’]*\s+")
_CHAPTER = re.compile(r"chapter\s+[0-9ivxlc]+\.?", re.IGNORECASE)
_NOVELS = {
    "emma": "Emma",
    "mansfieldpark": "Mansfield Park",
    "northangerabbey": "Northanger Abbey",
    "persuasion": "Persuasion",
    "prideprejudice": "Pride and Prejudice",
    "sensesensibility": "Sense and Sensibility",
}


def convert(raw: Path, out: Path, name: str) -> None:
    """Read the corpus ``name`` into examples, each inside one split of one document."""
    if name == "brown":
        write_examples(out, _by_document(brown_documents(raw)))
        return
    read = {"sotu": _addresses, "moby-dick": _chapters, "austen": _novels}[name]
    write_examples(out, _by_position(read(raw)))


def load(folder: Path, name: str, words: int | None = None) -> Corpus:
    """The corpus, whole or in passages.

    Args:
        folder: the converted folder.
        name: the corpus's name.
        words: cut the documents into passages of at most this many words, whole sentences where they fit;
            None keeps each document's share of a split in one piece.

    Returns:
        A corpus whose examples have ``text``, ``client``, ``document`` and ``id``; ``brown`` also has
        ``label``, the genre's number in alphabetical order.
    """
    if words is not None and words < 1:
        raise ArgumentError("words", words, "a whole number of at least 1, or None")
    examples = read_examples(folder)
    if words is None:
        return Corpus.from_examples(name, examples)
    return Corpus.from_examples(name, _cut(examples, words))


def passages(text: str, words: int) -> list[str]:
    """Cut a text into passages of at most ``words`` words, between sentences where they fit.

    >>> passages("One two. Three four five. Six.", 5)
    ['One two. Three four five.', 'Six.']
    >>> passages("a b c d e", 2)
    ['a b', 'c d', 'e']
    """
    found: list[list[str]] = [[]]
    for sentence in _SENTENCE_END.sub(lambda end: end.group().strip() + "\x00", text).split("\x00"):
        tokens = sentence.split()
        if len(found[-1]) + len(tokens) > words and found[-1]:
            found.append([])
        while len(tokens) > words:
            found[-1] = tokens[:words]
            tokens = tokens[words:]
            found.append([])
        found[-1].extend(tokens)
    return [" ".join(tokens) for tokens in found if tokens]


def _cut(examples: Iterable[dict[str, Any]], words: int) -> Iterator[dict[str, Any]]:
    for example in examples:
        for number, text in enumerate(passages(example["text"], words)):
            yield {**example, "text": text, "id": f"{example['id']}/{number}"}


def _by_document(documents: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    names = [document["document"] for document in documents]
    splits = stratified(names, [document["client"] for document in documents])
    for document, split in zip(documents, splits, strict=True):
        yield {**document, "id": document["document"], "split": split}


def _by_position(documents: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for document in documents:
        for split, text in zip(SPLITS, _parts(document["text"]), strict=True):
            if text:
                yield {**document, "text": text, "id": f"{document['document']}/{split}", "split": split}


def _parts(text: str) -> tuple[str, str, str]:
    """The first 80 %, the next 10 % and the last 10 % of a text, cut after the sentence at the mark."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)] + [len(text)]
    first = next(end for end in ends if end >= 0.8 * len(text))
    second = next(end for end in ends if end >= 0.9 * len(text))
    return text[:first].strip(), text[first:second].strip(), text[second:].strip()


def _addresses(raw: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(raw.rglob("sotu/data/*.json")):
        address = json.loads(path.read_text(encoding="utf-8"))
        yield {
            "text": " ".join(address["text"].split()),
            "client": address["name"],
            "document": path.stem,
            "year": int(address["year"]),
            "party": address["party"],
        }


def _chapters(raw: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(raw.rglob("moby-dick/data/chapter_*.json"), key=lambda path: int(path.stem[8:])):
        chapter = json.loads(path.read_text(encoding="utf-8"))
        text = " ".join(chapter["text"].split())
        yield {"text": text, "client": path.stem, "document": path.stem, "title": chapter["title"]}


def _novels(raw: Path) -> Iterator[dict[str, Any]]:
    (index,) = raw.rglob("janeaustenr/data/Rdata.rdx")
    for variable, title in _NOVELS.items():
        lines = [str(line) for line in read_lazy(index, variable)]
        for number, chapter in enumerate(_split_chapters(lines)):
            yield {"text": chapter, "client": title, "document": f"{variable}/{number:02d}"}


def _split_chapters(lines: Iterable[str]) -> Iterator[str]:
    """The text of each chapter; what stands before the first one (title, volume) is left out."""
    chapter: list[str] | None = None
    for line in lines:
        if _CHAPTER.fullmatch(line.strip()):
            if chapter:
                yield " ".join(" ".join(chapter).split())
            chapter = []
        elif chapter is not None:
            chapter.append(line)
    if chapter:
        yield " ".join(" ".join(chapter).split())
