"""Mail: what the server's half of the Flower engine needs of a Grid, as plain values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from covector.errors import CorruptionError

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.serverapp import Grid

__all__ = ["GridMail", "Letter", "Mail", "Reply", "Value", "entry"]

RECORD = "covector"

Value = bytes | str
T = TypeVar("T", bytes, str)


@dataclass(frozen=True)
class Letter:
    """A message to a node: one record of bytes or text.

    Args:
        node: Flower's id of the node.
        kind: ``"train"`` or ``"query"``.
        record: its entries.
    """

    node: int
    kind: str
    record: dict[str, Value]


@dataclass(frozen=True)
class Reply:
    """What came back for a letter.

    Args:
        letter: identity of the letter.
        node: who answers.
        record: the entries, ``None`` if there was no record.
        error: Flower's own error, if the node could not answer.
    """

    letter: str
    node: int
    record: dict[str, Value] | None
    error: str = ""


class Mail(ABC):
    """Letters out, replies in."""

    @abstractmethod
    def nodes(self) -> list[int]:
        """The nodes that are connected now."""

    @abstractmethod
    def post(self, letters: Sequence[Letter]) -> list[str]:
        """Send letters; returns the identity of each, ``""`` for one that was not taken."""

    @abstractmethod
    def collect(self, letters: Iterable[str]) -> list[Reply]:
        """The replies to these letters that are there now."""


class GridMail(Mail):
    """Mail over a Flower Grid: every letter is a Message with one ConfigRecord.

    Args:
        grid: Flower's connection to the nodes.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def nodes(self) -> list[int]:
        return list(self.grid.get_node_ids())

    def post(self, letters: Sequence[Letter]) -> list[str]:
        from flwr.app import ConfigRecord, Message, RecordDict

        messages = [
            Message(RecordDict({RECORD: ConfigRecord({**x.record})}), dst_node_id=x.node, message_type=x.kind)
            for x in letters
        ]
        accepted = set(self.grid.push_messages(messages)) if messages else set()
        sent = [message.metadata.message_id for message in messages]
        return [identity if identity in accepted else "" for identity in sent]

    def collect(self, letters: Iterable[str]) -> list[Reply]:
        wanted = list(letters)
        return [_reply(message) for message in self.grid.pull_messages(wanted)] if wanted else []


def _reply(message: Message) -> Reply:
    letter, node = message.metadata.reply_to_message_id, message.metadata.src_node_id
    if not message.has_content():
        return Reply(letter, node, None, f"{message.error.code}: {message.error.reason}")
    record = message.content.config_records.get(RECORD)
    if record is None:
        return Reply(letter, node, None)
    return Reply(letter, node, {key: value for key, value in record.items() if isinstance(value, bytes | str)})


def entry(record: Mapping[str, object] | None, key: str, kind: type[T]) -> T:
    """What Covector's record of a message holds under ``key``.

    Raises:
        CorruptionError: the record or the entry is missing, or of another type.

    >>> entry({"name": "north"}, "name", str)
    'north'
    """
    value = record.get(key) if record is not None else None
    if not isinstance(value, kind):
        raise CorruptionError(f"the message has no entry {key!r} of type {kind.__name__} in a record {RECORD!r}")
    return value
