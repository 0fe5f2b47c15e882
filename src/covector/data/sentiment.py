"""Human-rated sentiment of short texts in four domains: movies, news, tweets and products.

Hutto and Gilbert, "VADER: a parsimonious rule-based model for sentiment analysis of social media text", ICWSM
2014: twenty people rated each snippet from -4 (very negative) to 4 (very positive); the mean rating is kept.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from covector.data.corpus import Corpus, read_examples, write_examples
from covector.data.splits import stratified
from covector.data.unpack import unpack
from covector.errors import ArgumentError

__all__ = ["convert", "load"]

_FILES = {
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}
_SHARE = 0.15  # of each domain and label, to each of validation and test: over 200 in every domain


def convert(raw: Path, out: Path, name: str) -> None:
    """Read the four rating files into examples with a split each.

    Splits are drawn over all snippets, stratified by domain and by rating (below -1, between, above 1),
    before :func:`load` drops any: an example has the same split whatever ``minimum`` is. Snippets of one
    article or review stay in one split. Of equal texts the first is kept.
    """
    (inner,) = raw.rglob("hutto_ICWSM_2014.tar.gz")
    unpack(inner, raw, tuple(f"*/{file}" for file in _FILES.values()))
    examples: dict[str, dict[str, Any]] = {}
    for client, file in _FILES.items():
        for line in (raw / "hutto_ICWSM_2014" / file).read_text(encoding="utf-8").splitlines():
            number, rating, text = line.split("\t")
            text = " ".join(html.unescape(text).split())
            row = {"id": f"{client}/{number}", "client": client, "rating": float(rating), "text": text}
            examples.setdefault(text.lower(), row)
    rows = list(examples.values())
    splits = stratified(
        [row["id"] for row in rows],
        [(row["client"], int(row["rating"] >= 1.0) - int(row["rating"] <= -1.0)) for row in rows],
        groups=[row["id"].split("_")[0] for row in rows],
        validation=_SHARE,
        test=_SHARE,
    )
    write_examples(out, [{**row, "split": split} for row, split in zip(rows, splits, strict=True)])


def load(folder: Path, name: str, minimum: float = 1.0) -> Corpus:
    """Positive and negative snippets.

    Args:
        folder: the converted folder.
        name: the corpus's name.
        minimum: label 1 from a mean rating of ``minimum`` up, label 0 from ``-minimum`` down; snippets
            between are dropped. In (0, 4].

    Returns:
        A corpus whose examples have ``text``, ``label``, ``client`` (the domain), ``rating`` and ``id``.
    """
    if not 0.0 < minimum <= 4.0:
        raise ArgumentError("minimum", minimum, "a rating in (0, 4]")
    clear = [row for row in read_examples(folder) if abs(row["rating"]) >= minimum]
    return Corpus.from_examples(name, [{**row, "label": int(row["rating"] > 0)} for row in clear])
