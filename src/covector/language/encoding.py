"""From text to token ids: templates that survive truncation, and padding on either side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from covector.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["IGNORED", "Batch", "Encoded", "Encoder", "Padding", "pad_rows", "plain_ids"]

Batch = dict[str, Tensor]
Padding = Literal["right", "left"]
IGNORED = -100  # the label of a position that is not predicted, as cross_entropy skips it
_SLOT = "{text}"


class Encoded(NamedTuple):
    """One example as numbers: token ``ids``, and ``labels``, a class or one token id a position."""

    ids: list[int]
    labels: int | list[int]


class Encoder:
    """Puts texts into a template and turns them into at most ``max_length`` token ids.

    A text that is too long loses its end; what the template puts around it always stays whole. The result
    starts as the tokenizer starts a sequence (with a begin token or not) and never ends with an end token.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: has ``{text}`` exactly once.
        max_length: most tokens of a text in its template.

    Raises:
        ArgumentError: no such slot in ``template``, or ``max_length`` too small for the template alone.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str = _SLOT, max_length: int = 64) -> None:
        if template.count(_SLOT) != 1:
            raise ArgumentError("template", template, "a string with {text} exactly once")
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        self._start = _start_ids(tokenizer)
        self.template_length = len(self.unlimited([""])[0])
        if max_length <= self.template_length:
            raise ArgumentError("max_length", max_length, f"over {self.template_length}, the template's tokens")

    def render(self, text: str) -> str:
        """The text in its template.

        Not ``str.format``: braces in a text are only text.
        """
        return self.template.replace(_SLOT, text)

    def __call__(self, texts: Sequence[str], reserve: Sequence[int] | None = None) -> list[list[int]]:
        """Token ids of each text in its template.

        Args:
            texts: what goes into the slot.
            reserve: tokens to keep free for what follows each text, taken off ``max_length``.
        """
        rooms = [self.max_length - taken for taken in reserve or [0] * len(texts)]
        rows = self.unlimited(texts)
        return [
            ids if len(ids) <= room else self._shortened(text, room)
            for ids, text, room in zip(rows, texts, rooms, strict=True)
        ]

    def unlimited(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text in its template, whatever their number."""
        rows = plain_ids(self.tokenizer, [self.render(text) for text in texts])
        return [self._start + row for row in rows]

    def _shortened(self, text: str, room: int) -> list[int]:
        """The longest beginning of ``text`` that fits, found by bisection over its token ends."""
        ends = _token_ends(self.tokenizer, text)
        low, high = 0, len(ends) - 1
        best = self.unlimited([""])[0]
        while low <= high:
            middle = (low + high) // 2
            ids = self.unlimited([text[: ends[middle]]])[0]
            if len(ids) <= room:
                best, low = ids, middle + 1
            else:
                high = middle - 1
        return best


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text without any special token around it."""
    if not texts:
        return []
    return [list(row) for row in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]


def pad_rows(rows: Sequence[Sequence[int]], value: int, side: Padding = "right") -> Tensor:
    """Rows of different length as one int64 ``[B, longest]`` tensor, filled up with ``value``.

    >>> pad_rows([[1, 2], [3]], 0, "left").tolist()
    [[1, 2], [0, 3]]
    """
    width = max((len(row) for row in rows), default=0)
    out = torch.full((len(rows), width), value, dtype=torch.int64)
    for number, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        out[number, place] = torch.tensor(row, dtype=torch.int64)
    return out


def _start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a text: the difference between the two ways of encoding one."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return list(full[:start])
    return []


def _token_ends(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Places where ``text`` may be cut: the ends of its tokens, else of its words."""
    if tokenizer.is_fast:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return sorted({end for _, end in encoded["offset_mapping"]})
    return [match.end() for match in re.finditer(r"\S+", text)]
