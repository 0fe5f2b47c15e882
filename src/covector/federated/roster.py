"""Roster: the clients of a run, their numbers, and which state each is known to have."""

from __future__ import annotations

from covector.errors import ArgumentError

__all__ = ["Roster"]


class Roster:
    """Names in the order of their numbers.

    >>> roster = Roster()
    >>> roster.add("a"), roster.add("b"), "b" in roster, roster.name(1)
    (0, 1, True, 'b')
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._answered: dict[int, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def __len__(self) -> int:
        return len(self._names)

    def check(self, name: str) -> None:
        """Refuse a name that is taken, empty or too long, and the 65537th client."""
        if name in self._numbers or not 1 <= len(name.encode()) <= 1 << 12:
            raise ArgumentError("client", name, "a new, non-empty name of at most 4096 bytes")
        if len(self._names) >= 1 << 16:
            raise ArgumentError("clients", len(self._names) + 1, "at most 65536 clients in a run")

    def add(self, name: str) -> int:
        """Give a new client the next number.

        Raises:
            ArgumentError: see :meth:`check`.
        """
        self.check(name)
        self._numbers[name] = len(self._names)
        self._names.append(name)
        return self._numbers[name]

    def number(self, name: str) -> int:
        """The client's number."""
        return self._numbers[name]

    def name(self, number: int) -> str:
        """The client's name."""
        return self._names[number]

    def heard(self, number: int, round: int) -> None:
        """The client answered ``round``, so it has that round's table and the state before it."""
        self._answered[number] = max(round, self._answered.get(number, 0))

    def forget(self, number: int) -> None:
        """The client says that it has no state."""
        self._answered.pop(number, None)

    def answered(self, number: int) -> int | None:
        """The last round the client answered since it last joined."""
        return self._answered.get(number)
