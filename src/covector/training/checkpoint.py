"""Checkpoints: a folder with ``tensors.safetensors`` and ``state.json``, there as a whole or not at all.

The folder is written under another name, synced to the disk and renamed; ``state.json`` carries its own CRC-32 and
that of the tensors' file. Nothing in it can execute.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

from torch import Tensor

from covector.errors import CorruptionError
from covector.training.packing import pack, unpack

__all__ = ["checkpoint_path", "latest_checkpoint", "prune", "read_checkpoint", "write_checkpoint"]

FORMAT, VERSION = "covector-checkpoint", 1
_NAME = re.compile(r"step-(\d{8,})")


def checkpoint_path(out: Path, step: int) -> Path:
    """The folder of the checkpoint of ``step`` in the output folder ``out``.

    >>> checkpoint_path(Path("run"), 10).as_posix()
    'run/checkpoints/step-00000010'
    """
    return out / "checkpoints" / f"step-{step:08d}"


def _all(out: Path) -> list[tuple[int, Path]]:
    folder = out / "checkpoints"
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(match[1]), path) for match, path in found if match)


def latest_checkpoint(out: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint in a run's output folder, or ``None``.

    >>> import tempfile
    >>> latest_checkpoint(tempfile.mkdtemp()) is None
    True
    """
    found = _all(Path(out))
    return found[-1][1] if found else None


def prune(out: Path, keep: int) -> None:
    """Remove all checkpoints but the ``keep`` newest, and what an interrupted write left."""
    for _, path in _all(out)[: -keep or None]:
        shutil.rmtree(path)
    for leftover in (out / "checkpoints").glob(".step-*"):
        shutil.rmtree(leftover)


def write_checkpoint(path: str | os.PathLike[str], tree: Any) -> None:
    """Write a state tree to the folder ``path``, atomically.

    Args:
        path: the folder to appear; one that exists is replaced.
        tree: nested dictionaries, lists and tuples of tensors, numbers, strings and ``None``.

    Raises:
        UnsupportedError: the tree holds something else; nothing was written.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "state"
    >>> write_checkpoint(path, {"step": 3, "momentum": torch.ones(2)})
    >>> read_checkpoint(path)
    {'step': 3, 'momentum': tensor([1., 1.])}
    """
    from safetensors.torch import save_file

    target = Path(path)
    state, tensors = pack(tree)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        save_file({name: _own(tensor) for name, tensor in tensors.items()}, scratch / "tensors.safetensors")
        body = {"tensors_crc32": _crc_of_file(scratch / "tensors.safetensors"), "state": state}
        sealed = {"format": FORMAT, "version": VERSION, "crc32": _crc_of(body), **body}
        (scratch / "state.json").write_text(json.dumps(sealed, allow_nan=False, indent=1), encoding="utf-8")
        for part in (scratch / "tensors.safetensors", scratch / "state.json", scratch):
            _sync(part)
        _replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The state tree in the folder ``path``, its tensors on the CPU.

    Raises:
        CorruptionError: a file is missing, truncated or changed, or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(path)
    try:
        sealed = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        body = {"tensors_crc32": sealed["tensors_crc32"], "state": sealed["state"]}
        if (sealed["format"], sealed["version"]) != (FORMAT, VERSION):
            raise CorruptionError(f"{folder}: expected {FORMAT} version {VERSION}; written by another version?")
        if _crc_of(body) != sealed["crc32"] or _crc_of_file(folder / "tensors.safetensors") != body["tensors_crc32"]:
            raise CorruptionError(f"{folder}: a checksum does not match; remove the folder to use the one before")
        return unpack(body["state"], load_file(folder / "tensors.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if isinstance(error, CorruptionError):
            raise
        raise CorruptionError(f"{folder} is not a whole checkpoint: {type(error).__name__}: {error}") from error


def _own(tensor: Tensor) -> Tensor:
    # safetensors refuses tensors that share memory
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.contiguous().clone()


def _crc_of(body: Any) -> int:
    return zlib.crc32(json.dumps(body, separators=(",", ":"), allow_nan=False).encode())


def _crc_of_file(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(scratch: Path, target: Path) -> None:
    old = scratch.with_name(scratch.name + ".old")
    if target.exists():
        target.rename(old)
    scratch.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
