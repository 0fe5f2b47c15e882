"""Examples of text: three shapes of JSON Lines, natural clients, and splits that do not leak.

=============================  ==============  ============================================
keys of a line                 shape           task
=============================  ==============  ============================================
``text``                       ``"text"``      :class:`~covector.language.CausalTask`
``prompt``, ``completion``     ``"prompt"``    :class:`~covector.language.CompletionTask`
``text``, ``label``            ``"label"``     :class:`~covector.language.VerbalizerTask`
=============================  ==============  ============================================

Other keys are kept: one of them (an author, a domain) usually names the clients.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from covector.errors import ArgumentError, DataError

__all__ = ["Example", "Shape", "Splits", "by_field", "read_jsonl", "shape_of", "split"]

Example = dict[str, Any]
Shape = Literal["text", "prompt", "label"]
_KEYS: dict[Shape, tuple[str, ...]] = {
    "prompt": ("prompt", "completion"),
    "label": ("text", "label"),
    "text": ("text",),
}
_WORKS = "'text'; 'prompt' and 'completion'; or 'text' and 'label'"


def read_jsonl(path: str | Path, shape: Shape | None = None) -> list[Example]:
    """The examples of a JSON Lines file, all of one shape. An empty file is an empty data set.

    Args:
        path: a UTF-8 file with one JSON object a line; blank lines are skipped.
        shape: demand this shape (``"text"`` also reads labeled files, for language modeling);
            ``None`` takes the shape of the first line.

    Returns:
        One dict a line, in order, with all its keys.

    Raises:
        DataError: names the line, the keys seen there and what would work.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "reviews.jsonl"
    ...     _ = file.write_text('{"text": "a fine film", "label": 1, "domain": "movies"}')
    ...     read_jsonl(file)
    [{'text': 'a fine film', 'label': 1, 'domain': 'movies'}]
    """
    file = Path(path)
    if shape is not None and shape not in get_args(Shape):
        raise ArgumentError("shape", shape, "one of " + ", ".join(map(repr, get_args(Shape))))
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"no file {str(path)!r}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    examples: list[Example] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        example = _parse(line, f"{path}, line {number}")
        if shape is None:
            shape = _shape(example, f"{path}, line {number}")
        _check(example, shape, f"{path}, line {number}")
        examples.append(example)
    return examples


def shape_of(examples: Sequence[Example]) -> Shape:
    """The common shape of examples that did not come from :func:`read_jsonl`.

    Raises:
        ArgumentError: there are no examples to tell it from.
        DataError: names the first example that does not fit, by position.

    >>> shape_of([{"text": "fine", "label": 1}])
    'label'
    """
    if not examples:
        raise ArgumentError("examples", examples, "at least one example to tell the shape from")
    shape = _shape(examples[0], "example 0")
    for number, example in enumerate(examples):
        _check(example, shape, f"example {number}")
    return shape


def by_field(examples: Iterable[Example], field: str, clients: Sequence[str] | None = None) -> dict[str, list[Example]]:
    """The natural clients: examples grouped by the value of one of their keys.

    Args:
        examples: any examples that have ``field``.
        field: the key whose value, as a string, names the client.
        clients: the clients there shall be, in this order. One without examples gets an empty list; an
            example of a client outside the list is an error. ``None``: those that occur, sorted by name.

    Returns:
        Client name to its examples, in their order.

    Raises:
        DataError: an example lacks ``field``, or belongs to no listed client.

    >>> by_field([{"text": "a", "by": "Ann"}, {"text": "b", "by": "Ann"}], "by", clients=["Ann", "Bob"])
    {'Ann': [{'text': 'a', 'by': 'Ann'}, {'text': 'b', 'by': 'Ann'}], 'Bob': []}
    """
    groups: dict[str, list[Example]] = {name: [] for name in clients or ()}
    for number, example in enumerate(examples):
        if field not in example:
            raise DataError(f"example {number} has no {field!r} to name its client; it has {_seen(example)}")
        name = str(example[field])
        if clients is not None and name not in groups:
            raise DataError(f"example {number} has {field}={name!r}, none of clients={list(clients)!r}")
        groups.setdefault(name, []).append(example)
    return groups if clients is not None else dict(sorted(groups.items()))


class Splits(NamedTuple):
    """Three disjoint lists of examples.

    >>> train, validation, test = split([{"text": str(i)} for i in range(10)])
    >>> len(train)
    7
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]


def split(
    examples: Sequence[Example],
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    strata: Sequence[str] = ("label",),
) -> Splits:
    """Deterministic, stratified train, validation and test examples.

    Within each stratum (same values of ``strata``) the examples are ranked by a hash of ``seed`` and their
    text, and cut at the two fractions. So the result depends neither on the order of the examples nor on
    the machine, and equal texts never end up on two sides of a cut, whatever their labels.

    Args:
        examples: the examples; a key of ``strata`` that they lack counts as one common value.
        validation: fraction for the validation split, in [0, 1).
        test: fraction for the test split, in [0, 1); ``validation + test`` below 1.
        seed: another seed, another split.
        strata: keys whose values are spread evenly over the splits, usually the label and the client.

    Returns:
        :class:`Splits`; each list keeps the order of ``examples``.

    >>> parts = split([{"text": str(i), "label": i % 2} for i in range(20)])
    >>> len(parts.train), len(parts.validation), len(parts.test)
    (14, 2, 4)
    """
    for name, fraction in (("validation", validation), ("test", test)):
        if not 0 <= fraction < 1:
            raise ArgumentError(name, fraction, "a fraction in [0, 1)")
    if validation + test >= 1:
        raise ArgumentError("test", test, f"validation + test below 1; validation={validation}")
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(json.dumps([str(example.get(key)) for key in strata]), []).append(index)
    side_of: dict[bytes, int] = {}
    for stratum in sorted(groups):
        _assign([_rank(examples[index], seed) for index in groups[stratum]], validation, test, side_of)
    sides: tuple[list[Example], ...] = ([], [], [])
    for example in examples:
        sides[side_of[_rank(example, seed)]].append(example)
    return Splits(*sides)


def _assign(ranks: list[bytes], validation: float, test: float, side_of: dict[bytes, int]) -> None:
    """Give each rank a side (0 train, 1 validation, 2 test) unless an earlier stratum already did."""
    ends = (round(test * len(ranks)), round(test * len(ranks)) + round(validation * len(ranks)))
    for position, rank in enumerate(sorted(ranks)):
        side = 2 if position < ends[0] else 1 if position < ends[1] else 0
        side_of.setdefault(rank, side)


def _rank(example: Example, seed: int) -> bytes:
    body = [example.get("text"), example.get("prompt")]
    return hashlib.sha256(json.dumps([seed, *body]).encode()).digest()


def _parse(line: str, where: str) -> Example:
    try:
        example = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}; expected one JSON object a line") from error
    if not isinstance(example, dict):
        raise DataError(f"{where} is a JSON {type(example).__name__}; expected an object with {_WORKS}")
    return example


def _shape(example: Example, where: str) -> Shape:
    for shape, keys in _KEYS.items():
        if all(key in example for key in keys):
            return shape
    raise DataError(f"{where} has {_seen(example)}; expected {_WORKS}")


def _check(example: Example, shape: Shape, where: str) -> None:
    missing = [key for key in _KEYS[shape] if key not in example]
    if missing:
        wanted = " and ".join(map(repr, _KEYS[shape]))
        raise DataError(f"{where} has {_seen(example)}; the shape {shape!r} of this data set needs {wanted}")
    for key in _KEYS[shape]:
        allowed: tuple[type, ...] = (str, int) if key == "label" else (str,)
        if not isinstance(example[key], allowed):
            wanted = "a string or a whole number" if key == "label" else "a string"
            raise DataError(f"{where} has {key}={example[key]!r}; expected {wanted}")


def _seen(example: Example) -> str:
    return "the keys " + ", ".join(map(repr, example)) if example else "no keys"
