"""The Brown corpus: tagged words back to running text, one document a file, genre as client and label.

Francis and Kucera, "A standard corpus of present-day edited American English", Brown University, 1964.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["brown_documents", "running_text"]

_NO_SPACE_BEFORE = frozenset({",", ".", ";", ":", "?", "!", ")", "]", "''", "%"})
_NO_SPACE_AFTER = frozenset({"(", "[", "``", "$"})
_END_MARKS = frozenset({"?", "!", ";", ":"})  # the corpus file has some of them twice
_QUOTES = {"``": '"', "''": '"'}


def brown_documents(raw: Path) -> list[dict[str, Any]]:
    """The 500 documents with their genre, in the corpus's order."""
    (index,) = raw.rglob("cats.txt")
    genre_of = dict(line.split() for line in index.read_text(encoding="ascii").splitlines() if line.strip())
    genres = sorted(set(genre_of.values()))
    documents = []
    for document, genre in sorted(genre_of.items()):
        tagged = (index.parent / document).read_text(encoding="latin-1").split()
        text = running_text(word.rsplit("/", 1)[0] for word in tagged)
        documents.append({"text": text, "client": genre, "label": genres.index(genre), "document": document})
    return documents


def running_text(words: Iterable[str]) -> str:
    """Words and punctuation joined as they are printed; a doubled end mark becomes one.

    >>> running_text(["Call", "Mr.", "Allen", "Jr.", "."])
    'Call Mr. Allen Jr.'
    >>> running_text(["``", "Yes", "''", ",", "he", "said", "(", "twice", ")", "!", "!"])
    '"Yes", he said (twice)!'
    """
    pieces: list[str] = []
    previous = ""
    for word in words:
        if (word == previous and word in _END_MARKS) or (word == "." and previous.endswith(".")):
            continue
        if pieces and word not in _NO_SPACE_BEFORE and previous not in _NO_SPACE_AFTER:
            pieces.append(" ")
        pieces.append(_QUOTES.get(word, word))
        previous = word
    return "".join(pieces)
