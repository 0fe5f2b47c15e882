"""A causal language model and its tokenizer, from a catalog name or a folder; and back into a folder.

Nothing is looked up on a hub: a name comes from :mod:`covector.data`, everything else is a local folder in
the Hugging Face layout. Weights are read and written as safetensors only, because pickled weights can run
code.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from covector.errors import ArgumentError, DataError, require_extra

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["DEFAULT_MODEL", "load_model", "save_model"]

DEFAULT_MODEL = "smollm2-135m-instruct"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name_or_path: str | Path = DEFAULT_MODEL,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    attention: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model in evaluation mode and its tokenizer, with a padding token set.

    Args:
        name_or_path: a name of ``covector data list`` (fetched on first use), or a local folder with
            ``config.json``, ``*.safetensors`` and the tokenizer's files.
        dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``: the precision the weights are held in.
        device: where the weights go, as in ``torch.device``.
        attention: implementation of attention as transformers names it. ``None`` takes its default; choose
            ``"eager"`` for forward-mode derivatives, which the fused CPU kernel does not have.

    Returns:
        ``(model, tokenizer)``.

    Raises:
        MissingExtraError: transformers is not installed.
        ArgumentError: unknown ``dtype`` or ``device``.
        DataError: the folder is not a causal language model in the Hugging Face layout.

    >>> load_model("no/such/folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    covector.errors.DataError: no folder 'no/such/folder': ...
    """
    torch_dtype = _dtype(dtype)
    target = _device(device)
    folder = _folder(name_or_path)
    require_extra("transformers", "language")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    weights: dict[str, Any] = {"dtype": torch_dtype, "use_safetensors": True}
    if attention is not None:
        weights["attn_implementation"] = attention
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, **weights, **options)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"{folder} does not load as a causal language model: {error}") from error
    _set_pad_token(model, tokenizer)
    return model.to(target).eval(), tokenizer


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> Path:
    """Write model and tokenizer so that ``AutoModelForCausalLM.from_pretrained(folder)`` loads them.

    Weights go to safetensors, tied ones once. Everything is written beside ``folder`` first and moved in
    when complete, so that an interrupted save leaves the old files as they were.

    Args:
        model: the model, in any dtype; it is not changed.
        tokenizer: its tokenizer.
        folder: created where missing; files of the same name are replaced.

    Returns:
        The folder.

    >>> import tempfile
    >>> from covector.language import tiny_model
    >>> model, tokenizer = tiny_model("it was great")
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     again, _ = load_model(save_model(model, tokenizer, Path(parent) / "model"))
    >>> torch.equal(again.lm_head.weight, model.lm_head.weight)
    True
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ArgumentError("folder", str(folder), "a folder, or a path where none is yet; this is a file")
    partial = target.with_name(target.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    target.mkdir(parents=True, exist_ok=True)
    for stale in target.glob("*.safetensors*"):
        stale.unlink()
    for file in sorted(partial.iterdir()):
        file.replace(target / file.name)
    partial.rmdir()
    return target


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar of transformers for a load that takes a second."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise ArgumentError("dtype", dtype, "one of " + ", ".join(map(repr, _DTYPES)))
    return _DTYPES[dtype]


def _device(device: str | torch.device) -> torch.device:
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ArgumentError("device", device, "a device torch knows, such as 'cpu' or 'cuda'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("device", device, "'cpu': this torch sees no CUDA device")
    return found


def _folder(name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _checked(path)
    if isinstance(name_or_path, Path) or len(path.parts) > 1 or path.is_absolute():
        raise DataError(
            f"no folder {str(name_or_path)!r}: give the folder of a Hugging Face model,"
            f" or a catalog name such as {DEFAULT_MODEL!r}"
        )
    from covector import data

    return _checked(Path(data.get(str(name_or_path))))


def _checked(folder: Path) -> Path:
    config = folder / "config.json"
    if not config.is_file():
        raise DataError(
            f"{folder} has no config.json: expected a folder as written by save_pretrained (config.json,"
            f" *.safetensors, tokenizer files); it has {_listing(folder)}"
        )
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{config} is not JSON: {error}") from error
    if not any(folder.glob("*.safetensors")):
        raise DataError(
            f"{folder} has no *.safetensors: weights in other formats are not read, because they can run"
            f" code; it has {_listing(folder)}"
        )
    return folder


def _listing(folder: Path, limit: int = 8) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "nothing"


def _set_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.pad_token_id is None:
        token = tokenizer.eos_token or tokenizer.unk_token
        if token is None:
            raise DataError("the tokenizer has no pad, end or unknown token: set tokenizer.pad_token")
        tokenizer.pad_token = token
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
