"""The table of the papers: what each is, where it was published and at which station of the library it lives.

The table is data (``papers.json``): a paper is listed from the start, and becomes *working* when its evidence
module is written.
"""

from __future__ import annotations

import difflib
import functools
import json
from dataclasses import dataclass
from pathlib import Path

from covector.errors import ArgumentError

__all__ = ["STATIONS", "Paper", "find", "table"]

STATIONS = {
    "estimators": "Where a gradient comes from",
    "gradients": "What carries it, and as which bytes",
    "optim": "How it becomes a step",
    "linalg": "Functions of matrices",
    "curvature": "Hessian, Gauss-Newton and Fisher as operators",
    "landscape": "What the loss looks like along training",
    "nested": "Objectives of a solution: bilevel problems, games, metagradients",
    "pareto": "Objectives that compete",
    "solvers": "Deterministic minimizers and equation solvers",
    "theory": "Certificates, and generators of the problems studied",
    "lenses": "The categorical view of learning",
    "federated": "Machines that share scalars",
    "distributed": "Machines that share the work",
    "nn": "Layers and parametrizations",
    "attribution": "What the gradient says about the data",
    "language": "Language models",
    "physics": "Differential equations",
    "inverse": "Inverse problems",
    "geometry": "Shapes and surfaces",
    "series": "Time series",
    "control": "Policies",
}


@dataclass(frozen=True)
class Paper:
    """One row of the table.

    Args:
        number: place in the table, from 1.
        slug: the paper's name in commands and module names.
        title: as published.
        authors: as known, or None.
        year: year of first publication.
        source: where it can be read (arXiv identifier, venue), or None where that is not verified.
        station: the part of the library it belongs to, a key of ``STATIONS``.
        summary: its idea in one sentence of ours.
    """

    number: int
    slug: str
    title: str
    authors: str | None
    year: int
    source: str | None
    station: str
    summary: str

    @property
    def url(self) -> str | None:
        """Address of the paper, where the source names one.

        >>> find("ademamix").url
        'https://arxiv.org/abs/2409.03137'
        """
        first = (self.source or "").split(",")[0]
        return f"https://arxiv.org/abs/{first[6:]}" if first.startswith("arXiv:") else None

    @property
    def module(self) -> str:
        """Name of the module that holds its evidence.

        >>> find("one-byte-per-gradient").module
        'one_byte_per_gradient'
        """
        return self.slug.replace("-", "_")


@functools.cache
def table() -> tuple[Paper, ...]:
    """Return all papers in the table's order.

    >>> len(table()), table()[0].slug
    (120, 'fedkseed')
    """
    rows = json.loads(Path(__file__).with_name("papers.json").read_text(encoding="utf-8"))
    return tuple(Paper(**row) for row in rows)


def find(slug: str) -> Paper:
    """Return the paper with this slug.

    Args:
        slug: its name in the table, such as ``"fedkseed"``.

    Returns:
        The row of the table.

    Raises:
        ArgumentError: no paper has that slug; the message names the closest ones.

    >>> find("diff2").year
    2023
    >>> find("fedkseeed")
    Traceback (most recent call last):
    ...
    covector.errors.ArgumentError: slug='fedkseeed': expected the slug of a paper; did you mean 'fedkseed'?
    """
    by_slug = {paper.slug: paper for paper in table()}
    if slug in by_slug:
        return by_slug[slug]
    close = difflib.get_close_matches(slug.lower().replace("_", "-"), by_slug, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "`covector papers` lists them"
    raise ArgumentError("slug", slug, f"the slug of a paper; {hint}")
