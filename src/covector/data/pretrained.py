"""Pretrained language models that come inside packages, as folders that ``from_pretrained`` reads.

A model that is packed as GGUF is converted once: its dequantized float32 weights and its tokenizer are saved
as safetensors and tokenizer files, bit-equal to what loading the GGUF file gives.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from covector.errors import require_extra

__all__ = ["Pretrained", "convert", "load"]

log = logging.getLogger("covector.data")


class Pretrained(NamedTuple):
    """A pretrained model, its tokenizer and the folder they came from."""

    model: Any
    tokenizer: Any
    folder: Path


def convert(raw: Path, out: Path, name: str) -> None:
    """Bring the package's model into ``out``: dequantized from GGUF, or copied where it is safetensors."""
    packed = sorted(raw.rglob("*.gguf"))
    if packed:
        _convert_gguf(packed[0], out)
        return
    (weights,) = raw.rglob("model.safetensors")
    shutil.copytree(weights.parent, out, dirs_exist_ok=True)


def load(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Pretrained:
    """The model (in evaluation mode) and its tokenizer, from the cache alone.

    Args:
        folder: the converted folder.
        name: the catalog's name.
        dtype: of the weights.

    Returns:
        ``model, tokenizer, folder``; the model is a causal language model where the folder's configuration
        says so, else an encoder.
    """
    require_extra("transformers", "language")
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    causal = any(kind.endswith("ForCausalLM") for kind in config.architectures or [])
    family = AutoModelForCausalLM if causal else AutoModel
    with _quiet():
        model = family.from_pretrained(folder, dtype=dtype, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Pretrained(model.eval(), tokenizer, folder)


def _convert_gguf(packed: Path, out: Path) -> None:
    require_extra("transformers", "language")
    require_extra("gguf", "language")
    with _quiet():
        _dequantize(packed, out)


def _dequantize(packed: Path, out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"gguf_file": packed.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(packed.parent, **source)
    model = AutoModelForCausalLM.from_pretrained(packed.parent, dtype=torch.float32, **source)
    # the weights are plain float32 by now; left in place, the quantizer would refuse to save them
    del model.config.quantization_config
    for attribute in ("hf_quantizer", "is_quantized", "quantization_method"):
        model.__dict__.pop(attribute, None)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars that transformers draws on stderr out of sight; they go to the log instead."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            yield
    finally:
        log.debug("%s", shown.getvalue())
