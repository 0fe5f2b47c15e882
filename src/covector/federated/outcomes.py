"""What can become of a message, and the lines of a run's report."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Event", "Outcome", "Verdict"]


class Verdict(enum.Enum):
    """What became of a message or a client. Only the first three change the state."""

    ACCEPTED = "accepted"
    LATE = "late, will be applied with less weight"
    JOINED = "joined"
    EMPTY = "has no data"
    DUPLICATE = "duplicate, ignored"
    TOO_LATE = "too late, refused"
    NOT_ASKED = "was not asked in this round, refused"
    FUTURE = "for a round that is not open, refused"
    UNKNOWN_CLIENT = "from an unknown client, refused"
    WRONG_CLIENT = "carries another client's number, refused"
    WRONG_RUN = "belongs to another run, refused"
    WRONG_VERSION = "of another protocol version, refused"
    CORRUPT = "corrupt, refused"
    INVALID = "does not fit the run, refused"
    NONFINITE = "non-finite numbers left out"
    ABSURD = "absurd numbers bounded"
    VANISHED = "did not answer"
    FAILED = "failed"
    SCALE = "scale of the one-byte code at the end of its range"


_APPLIED = (Verdict.ACCEPTED, Verdict.LATE, Verdict.JOINED, Verdict.EMPTY)


@dataclass(frozen=True)
class Outcome:
    """What the server did with a message.

    Args:
        verdict: the kind.
        client: who sent it.
        round: the round it was about, 0 if none.
        detail: more for a reader.
        reply: bytes to send back to the client now, if any.

    >>> Outcome(Verdict.CORRUPT, "client-0").accepted
    False
    """

    verdict: Verdict
    client: str
    round: int = 0
    detail: str = ""
    reply: bytes | None = None

    @property
    def accepted(self) -> bool:
        """Whether the message was taken."""
        return self.verdict in _APPLIED


@dataclass(frozen=True)
class Event:
    """A line of the report: something that did not go the plain way.

    >>> print(Event(3, "client-1", Verdict.VANISHED))
    round 3: client-1: did not answer
    """

    round: int
    client: str
    verdict: Verdict
    detail: str = ""

    def __str__(self) -> str:
        tail = f" ({self.detail})" if self.detail else ""
        return f"round {self.round}: {self.client}: {self.verdict.value}{tail}"
