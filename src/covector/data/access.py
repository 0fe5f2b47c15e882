"""Get and load: fetch, convert once, and hand over what the cache holds."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import covector
from covector.data.cache import MANIFEST, cache_folder, lock, publish, read_manifest, scratch
from covector.data.catalog import Entry, entry
from covector.data.fetch import archive
from covector.data.unpack import unpack

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


def load(name: str, **options: Any) -> Any:
    """Load a data set or model, fetching it first where the cache lacks it.

    Args:
        name: a name of the catalog.
        options: those of the entry's module, e.g. ``minimum`` for ``sentiment``, ``dtype`` for models.

    Returns:
        A :class:`Corpus` for text, a :class:`Pretrained` for models.
    """
    return _module(entry(name)).load(get(name), name, **options)


def _is_current(folder: Path, wanted: Entry) -> bool:
    manifest = read_manifest(folder)
    return (manifest.get("sha256"), manifest.get("revision")) == (wanted.package.sha256, wanted.revision)


def _make(wanted: Entry, folder: Path) -> None:
    packed = archive(wanted.package)
    with scratch() as work:
        raw, out = work / "raw", work / "out"
        out.mkdir()
        unpack(packed, raw, wanted.members)
        log.info("converting %s", wanted.name)
        _module(wanted).convert(raw, out, wanted.name)
        (out / MANIFEST).write_text(json.dumps(_manifest(wanted), indent=2) + "\n", encoding="utf-8")
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
