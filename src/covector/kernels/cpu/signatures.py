"""What the loops take: one address, where the numbers of a call lie packed, and tags that tell types.

Packed, a call of a dozen numbers costs as little as a call of one.
"""

from __future__ import annotations

import struct

import torch

__all__ = ["ENTRY", "layout", "type_names"]

# the one symbol of an object file that is called from outside
ENTRY = "covector_kernel"

# eight bytes a number: addresses, indices and words are int64, factors float64
_NUMBERS = {
    "add_one_seed": "7qd",
    "sum_rademacher": "10qd",
    "sum_values": "10qd",
    "materialize_sketch": "11q",
    "project_sketch": "12q",
}
# what a sum begins with follows, in the type of the sum; read as int32 it is the low half of an int64
_INITIAL = {torch.float32: "f4x", torch.float64: "d", torch.int32: "q", torch.int64: "q"}
# half precision has no type of its own in the loops: an unsigned and a signed word stand for the two
_TAGS = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "uint16",
    torch.float16: "int16",
    torch.int32: "int32",
    torch.int64: "int64",
}


def layout(name: str, *dtypes: torch.dtype) -> struct.Struct:
    """How the numbers of a call of the loop lie in memory.

    >>> layout("sum_rademacher", torch.float32, torch.bfloat16).size
    96
    """
    initial = _INITIAL[dtypes[0]] if name.startswith("sum_") else ""
    return struct.Struct("=" + _NUMBERS[name] + initial)


def type_names(*dtypes: torch.dtype) -> list[str]:
    """The types of the tags, by their names in ``numba.types``.

    >>> type_names(torch.float32, torch.bfloat16)
    ['float32', 'uint16']
    """
    return [_TAGS[dtype] for dtype in dtypes]
