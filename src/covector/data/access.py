"""Get and load: fetch, convert once, and hand over what the cache holds."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, overload

import covector
from covector.data.arrays import Arrays
from covector.data.cache import MANIFEST, cache_folder, lock, publish, read_manifest, scratch
from covector.data.catalog import Entry, entry
from covector.data.corpus import Corpus
from covector.data.fetch import archive
from covector.data.graph import Graph
from covector.data.pretrained import Pretrained
from covector.data.unpack import unpack
from covector.errors import ArgumentError

__all__ = ["get", "load"]

log = logging.getLogger("covector.data")


def get(name: str) -> Path:
    """Fetch and convert a data set or model, once, and return its folder in the cache.

    Safe to call from several processes at the same time: one does the work, the others wait for it.

    Args:
        name: a name of the catalog (:func:`covector.data.list`).

    Returns:
        The folder. It holds ``covector.json`` (source package, version, SHA-256, license, note) and the
        converted files; a model's folder loads with ``from_pretrained(folder)``.

    Raises:
        ArgumentError: no such name.
        DataError: a client program or the network is missing, or the archive is not the pinned one.
        MissingExtraError: the conversion needs an optional dependency.
    """
    wanted = entry(name)
    folder = cache_folder() / name
    if _is_current(folder, wanted):
        return folder
    with lock(name):
        if not _is_current(folder, wanted):
            _make(wanted, folder)
    return folder


TextName = Literal["austen", "brown", "moby-dick", "sentiment", "sotu", "spam"]
ModelName = Literal["minilm-l6", "smollm2-135m-instruct"]
GraphName = Literal["wordnet-nouns"]
ArraysName = Literal[
    "ames", "basic-motions", "breast-cancer", "concrete", "diamonds", "digits", "fashion-mnist", "gun-point",
    "italy-power-demand", "letter", "mnist", "movielens", "photos", "satellite", "shuttle", "spambase",
]  # fmt: skip


@overload
def load(name: TextName, **options: Any) -> Corpus: ...
@overload
def load(name: ModelName, **options: Any) -> Pretrained: ...
@overload
def load(name: GraphName, **options: Any) -> Graph: ...
@overload
def load(name: ArraysName, **options: Any) -> Arrays: ...
@overload
def load(name: str, **options: Any) -> Any: ...
def load(name: str, **options: Any) -> Any:
    """Load a data set or model, fetching it first where the cache lacks it.

    Args:
        name: a name of the catalog.
        options: ``dtype`` for models; ``minimum`` for ``sentiment``; ``words`` for documents; ``encode`` and
            ``standardize`` for tables; ``size`` for ``photos``; ``root`` for ``wordnet-nouns``.

    Returns:
        A :class:`Corpus` for text, :class:`Arrays` for images, tables and series, a :class:`Graph`, or a
        :class:`Pretrained` for models.

    Raises:
        ArgumentError: no such name or option.
        DataError, MissingExtraError: as :func:`get`.
    """
    loader = _module(entry(name)).load
    known = [*inspect.signature(loader).parameters][2:]  # after the folder and the name
    for option in options:
        if option not in known:
            raise ArgumentError("option", option, f"one of {known}" if known else f"no options for {name!r}")
    return loader(get(name), name, **options)


def _is_current(folder: Path, wanted: Entry) -> bool:
    manifest = read_manifest(folder)
    if (manifest.get("sha256"), manifest.get("revision")) != (wanted.package.sha256, wanted.revision):
        return False
    recorded: dict[str, int] = manifest.get("files", {})
    return recorded.items() <= _sizes(folder).items()


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of a converted folder, so that a lost or cut file is noticed at no cost."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _make(wanted: Entry, folder: Path) -> None:
    packed = archive(wanted.package)
    with scratch() as work:
        raw, out = work / "raw", work / "out"
        out.mkdir()
        unpack(packed, raw, wanted.members)
        log.info("converting %s", wanted.name)
        _module(wanted).convert(raw, out, wanted.name)
        manifest = {**_manifest(wanted), "files": _sizes(out)}
        (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        publish(out, folder)
    log.info("%s is ready in %s", wanted.name, folder)


def _manifest(wanted: Entry) -> dict[str, Any]:
    return {
        "name": wanted.name,
        "kind": wanted.kind,
        "description": wanted.description,
        "registry": {"wheel": "PyPI", "sdist": "PyPI", "npm": "npm", "apt": "Debian"}[wanted.package.client],
        "package": wanted.package.name,
        "version": wanted.package.version,
        "sha256": wanted.package.sha256,
        "license": wanted.license,
        "note": wanted.note,
        "revision": wanted.revision,
        "converted_by": f"covector {covector.__version__}",
    }


def _module(wanted: Entry) -> ModuleType:
    return importlib.import_module(f"covector.data.{wanted.module}")
