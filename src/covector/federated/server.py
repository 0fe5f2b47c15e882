"""Server: the half of the protocol that keeps the state. Bytes in, bytes out; no sockets, threads or clocks.

``open_round`` gives each sampled client its message, ``receive`` judges every reply, ``close_round`` turns the
accepted ones into a :class:`~covector.federated.commit.Commit`. With a journal, whatever is answered for is on
disk first, and the journal alone brings the server back to the same bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Self

from covector.errors import ArgumentError, CorruptionError, CovectorError, MismatchError, ProtocolError
from covector.federated import records
from covector.federated.admission import finite, late_refusal, misfit
from covector.federated.commit import Commit, Settings, apply, sealed
from covector.federated.header import PROTOCOL, RunHeader
from covector.federated.history import History
from covector.federated.messages import GRADS, JOIN, Grads, Join, Round, check_version
from covector.federated.outcomes import Event, Outcome, Verdict
from covector.federated.roster import Roster
from covector.federated.screen import Screen
from covector.gradients import Ledger
from covector.gradients.framing import unframe
from covector.gradients.journal import Journal
from covector.random import derive, sample_without_replacement

__all__ = ["Server"]


# a client that floods the server with nonsense must not fill its memory
REPORT_LINES = 1 << 16


class Server(ABC):
    """Rounds, roster, judgement of replies, journal. Subclasses say how replies become a commit.

    Args:
        header: the run.
        journal: where the state lives; ``None`` keeps it in memory only.
        clients_per_round: m, sampled without replacement from the clients offered; ``None`` takes all.
        screen: bounds on what one reply can do.
        late: ``"refuse"`` replies to closed rounds, or ``"apply"`` them with a weight halved once a round.
        max_age: rounds after which a late reply is refused in any case.

    Raises:
        MismatchError: the header's method is another server's.
    """

    methods: tuple[str, ...] = ()

    def __init__(
        self,
        header: RunHeader,
        journal: Journal | None = None,
        clients_per_round: int | None = None,
        screen: Screen | None = None,
        late: Literal["refuse", "apply"] = "refuse",
        max_age: int = 8,
    ) -> None:
        if header.method not in self.methods:
            raise MismatchError(f"method={header.method!r}: {type(self).__name__} does {self.methods}")
        if clients_per_round is not None and clients_per_round < 1:
            raise ArgumentError("clients_per_round", clients_per_round, "a whole number of at least 1, or None")
        if late not in ("refuse", "apply"):
            raise ArgumentError("late", late, "'refuse' or 'apply'")
        if not 1 <= max_age <= 255:
            raise ArgumentError("max_age", max_age, "a whole number from 1 to 255")
        self.header = header
        self.journal = journal
        self.clients_per_round = clients_per_round
        self.screen = screen or Screen()
        self.late = late
        self.ledger: Ledger = header.ledger()
        self.report: list[Event] = []
        self.roster = Roster()
        self.history = History(header, max_age)
        self.round = 0
        self.opened: tuple[int, ...] | None = None
        self._settings: Settings | None = None
        self.pending: dict[int, Grads] = {}
        self.late_pending: dict[tuple[int, int], Grads] = {}
        if journal is not None:
            self._replay(journal)

    @classmethod
    def resume(cls, journal: Journal, **options: Any) -> Self:
        """The server whose state is in ``journal``; ``options`` are those of the constructor.

        Raises:
            CorruptionError: the journal does not begin with a run header.
        """
        return cls(records.header_of(journal), journal, **options)

    # rounds

    def open_round(self, clients: Sequence[str]) -> dict[str, bytes]:
        """Open the next round and return the message for each sampled client.

        If a round is open already (the server was restarted, or messages were lost), returns the messages of
        the clients that have not answered yet.

        Args:
            clients: names of the clients that can be reached now.

        Raises:
            ArgumentError: no clients, or more than 65536 in all.
        """
        if self.opened is None:
            self._open(clients)
        assert self.opened is not None
        missing = [number for number in self.opened if number not in self.pending]
        names = {number: self.roster.name(number) for number in missing}
        return {name: self._round_message(number) for number, name in names.items() if name in set(clients)}

    def _open(self, clients: Sequence[str]) -> None:
        offered = sorted(set(clients))
        if not offered:
            raise ArgumentError("clients", clients, "the name of at least one client")
        for name in offered:
            self._enroll(name)
        number = self.round + 1
        chosen = offered
        if self.clients_per_round is not None and self.clients_per_round < len(offered):
            seed = derive(self.header.key, "clients", number)
            picks = sample_without_replacement(seed, len(offered), self.clients_per_round)
            chosen = [offered[i] for i in picks]
        numbers = sorted(self.roster.number(name) for name in chosen)
        self._record(records.OPEN, records.open_bytes(number, numbers))
        self._opened(number, tuple(numbers))

    def _opened(self, number: int, clients: tuple[int, ...]) -> None:
        if self.opened is not None or number != self.round + 1:
            raise CorruptionError(f"the journal opens round {number} after round {self.round}")
        settings, clamped = self.history.settings(number)
        if clamped and not any(event.verdict is Verdict.SCALE for event in self.report):
            self._note("server", Verdict.SCALE, f"{settings.step_units} units; choose another quantum", number)
        self.opened, self._settings, self.pending = clients, settings, {}

    def _enroll(self, name: str) -> int:
        if name in self.roster:
            return self.roster.number(name)
        self.roster.check(name)
        self._record(records.NAME, name.encode())
        return self.roster.add(name)

    def _round_message(self, number: int) -> bytes:
        assert self._settings is not None
        answered = self.roster.answered(number)
        sent = self.header if answered is None else None
        state = self.history.way(self.round, self.ledger, answered)
        return Round(self._settings, number, state, sent).to_bytes(self.header)

    def close_round(self) -> bytes:
        """Commit the accepted replies and return the COMMIT message.

        Raises:
            ProtocolError: no round is open.
        """
        if self.opened is None or self._settings is None:
            raise ProtocolError("no round is open; call open_round first")
        lines = len(self.report)
        try:
            commit, after = sealed(self.ledger, self._draft(), self.header)
            data = commit.to_bytes(self.header)
            self._record(records.COMMIT, data)
        except BaseException:
            del self.report[lines:]
            raise
        self._committed(commit, after)
        return data

    def _draft(self) -> Commit:
        assert self.opened is not None
        assert self._settings is not None
        for number in self.opened:
            if number not in self.pending:
                self._note(self.roster.name(number), Verdict.VANISHED)
        return self._combine(self._settings, *self._replies())

    def _replies(self) -> tuple[dict[int, Grads], dict[tuple[int, int], Grads]]:
        """What is pending, on time and late, in an order that does not depend on arrival."""
        return dict(sorted(self.pending.items())), dict(sorted(self.late_pending.items()))

    def _committed(self, commit: Commit, after: Ledger) -> None:
        replies, late = self._replies()
        asked = frozenset(self.opened or ())
        self.ledger, self.round = after, commit.settings.round
        self.opened, self._settings, self.pending, self.late_pending = None, None, {}, {}
        self.history.close(commit, asked, frozenset(replies), frozenset(late))
        self._absorb(commit, replies, late)

    @abstractmethod
    def _combine(self, settings: Settings, replies: dict[int, Grads], late: dict[tuple[int, int], Grads]) -> Commit:
        """The commit of these replies, its digest still empty; what it changes in the server is only its report.

        It is called again for every commit of a journal, before :meth:`_absorb`.
        """

    @abstractmethod
    def _absorb(self, commit: Commit, replies: dict[int, Grads], late: dict[tuple[int, int], Grads]) -> None:
        """Update what the subclass keeps beside the ledger, as a function of journaled things only."""

    # replies

    def receive(self, client: str, data: bytes) -> Outcome:
        """Judge a message. Never raises for what a client sent; what was refused has changed nothing."""
        outcome = self._judge(client, data)
        if outcome.verdict is not Verdict.ACCEPTED:
            self._note(client, outcome.verdict, outcome.detail, outcome.round or None)
        return outcome

    def _judge(self, client: str, data: bytes) -> Outcome:
        try:
            magic = check_version(data)
        except ProtocolError as error:
            return Outcome(Verdict.WRONG_VERSION, client, detail=str(error))
        except CorruptionError as error:
            return Outcome(Verdict.CORRUPT, client, detail=str(error))
        try:
            if magic == JOIN:
                return self._join(client, Join.from_bytes(data))
            if magic == GRADS:
                return self._grads(client, data)
            unframe(data, magic, PROTOCOL)
            return Outcome(Verdict.INVALID, client, detail=f"a {magic.decode()} message is not for servers")
        except CorruptionError as error:
            return Outcome(Verdict.CORRUPT, client, detail=str(error))
        except ProtocolError as error:
            return Outcome(Verdict.WRONG_RUN, client, detail=str(error))
        except CovectorError as error:
            return Outcome(Verdict.INVALID, client, detail=str(error))

    def _join(self, client: str, message: Join) -> Outcome:
        if message.run not in (self.header.id, bytes(8)):
            raise ProtocolError(f"JOIN for run {message.run.hex()}, this is run {self.header.id.hex()}")
        number = self._enroll(client)
        self.roster.forget(number)
        asked = self.opened is not None and number in self.opened and number not in self.pending
        reply = self._round_message(number) if asked else None
        return Outcome(Verdict.JOINED, client, self.round, reply=reply)

    def _grads(self, client: str, data: bytes) -> Outcome:
        grads = Grads.from_bytes(data, self.header)
        if client not in self.roster:
            return Outcome(Verdict.UNKNOWN_CLIENT, client, grads.round)
        number = self.roster.number(client)
        if grads.client != number:
            return Outcome(Verdict.WRONG_CLIENT, client, grads.round, f"number {grads.client} is not {number}")
        if refusal := self._timing(number, grads.round):
            return Outcome(refusal, client, grads.round)
        settings = self.history.settings_of(grads.round, self._settings)
        if problem := misfit(self.header, grads, settings.step_units):
            return Outcome(Verdict.INVALID, client, grads.round, problem)
        self._record(records.REPLY, records.reply_bytes(number, data))
        return self._accept(number, grads)

    def _timing(self, number: int, round: int) -> Verdict | None:
        if self.opened is not None and round == self.round + 1:
            if number not in self.opened:
                return Verdict.NOT_ASKED
            return Verdict.DUPLICATE if number in self.pending else None
        if round > self.round or round < 1:
            return Verdict.FUTURE
        if (number, round) in self.late_pending:
            return Verdict.DUPLICATE
        waiting = [origin for client, origin in self.late_pending if client == number]
        newest = max([self.ledger.clock.get(str(number), 0), *waiting])
        return late_refusal(self.history, number, round, newest, self.late)

    def _accept(self, number: int, grads: Grads) -> Outcome:
        name = self.roster.name(number)
        kept, bad = finite(grads)
        if bad:
            self._note(name, Verdict.NONFINITE, f"{bad} of {grads.payload.numbers.numel()}")
        self.roster.heard(number, grads.round)
        if grads.round == self.round + 1:
            self.pending[number] = kept
            return Outcome(Verdict.ACCEPTED if grads.batches else Verdict.EMPTY, name, grads.round)
        if kept.batches == 0:
            return Outcome(Verdict.EMPTY, name, grads.round)
        self.late_pending[(number, grads.round)] = kept
        return Outcome(Verdict.LATE, name, grads.round, f"{self.round - grads.round + 1} rounds")

    # journal

    def _record(self, kind: int, payload: bytes) -> None:
        if self.journal is not None:
            self.journal.append(kind, payload)

    def _replay(self, journal: Journal) -> None:
        entries = list(journal.records())
        if not entries:
            journal.append(records.HEADER, self.header.to_bytes())
            return
        kind, payload = entries[0]
        if kind != records.HEADER or payload != self.header.to_bytes():
            raise MismatchError("the journal belongs to another run: its run header differs from this one")
        for kind, payload in entries[1:]:
            self._replay_record(kind, payload)

    def _replay_record(self, kind: int, payload: bytes) -> None:
        if kind == records.NAME:
            self.roster.add(payload.decode())
        elif kind == records.OPEN:
            self._opened(*records.read_open(payload))
        elif kind == records.REPLY:
            number, message = records.read_reply(payload)
            self._accept(number, Grads.from_bytes(message, self.header))
        elif kind == records.COMMIT:
            commit = Commit.from_bytes(payload, self.header)
            self._draft()  # for the report and the moments; what counts is the commit that was journaled
            self._committed(commit, apply(self.ledger, commit, self.header))
        else:
            raise CorruptionError(f"the journal holds a record of unknown kind {kind}")

    def _note(self, client: str, verdict: Verdict, detail: str = "", round: int | None = None) -> None:
        number = round if round is not None else self.round + (self.opened is not None)
        if len(self.report) < REPORT_LINES:
            self.report.append(Event(number, client, verdict, detail))
