"""Client: the half of the protocol that holds data. ``handle(message) -> message``, nothing else."""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from dataclasses import replace

import torch

from covector.errors import CorruptionError, MismatchError, ProtocolError
from covector.federated.batches import Batches, batch_index
from covector.federated.commit import Settings
from covector.federated.header import RunHeader
from covector.federated.messages import Grads, Join, Round, check_version
from covector.federated.payloads import Kind, Payload
from covector.federated.privacy import GaussianNoise
from covector.federated.replica import Replica
from covector.gradients import Ledger
from covector.gradients.framing import Reader, frame, unframe
from covector.objective import Batch, Objective
from covector.random import derive

__all__ = ["Client"]

STATE, STATE_VERSION = b"CVFS", 1


class Client(ABC):
    """Keeps a replica in step with the run and answers rounds.

    Args:
        objective: the loss and the live parameters, or a :class:`Replica` shared with other clients.
        batches: this client's data, a sequence of batches; may be empty.
        header: the run, if known; else the first message brings it.
        examples: number of examples behind the batches, for ``weighting="examples"``; 0 counts them when needed.
        privacy: noise added to every number before it is used or sent.
    """

    methods: tuple[str, ...] = ()

    def __init__(
        self,
        objective: Objective | Replica,
        batches: Batches,
        header: RunHeader | None = None,
        examples: int = 0,
        privacy: GaussianNoise | None = None,
    ) -> None:
        self.replica = objective if isinstance(objective, Replica) else Replica.of(objective)
        self.objective = self.replica.objective
        self.batches = batches
        self.examples = examples
        self.privacy = privacy
        self.header: RunHeader | None = None
        self.ledger: Ledger | None = None
        self.round = 0
        self._settings: Settings | None = None
        self._last: tuple[bytes, bytes] | None = None
        if header is not None:
            self._adopt(header)

    def handle(self, data: bytes) -> bytes:
        """Answer a ROUND message with a GRADS message, or with JOIN when the state it builds on is missing here.

        The same message gets the same answer. After an error nothing has changed.

        Raises:
            CorruptionError: truncated or changed bytes.
            ProtocolError: another run or version.
            MismatchError: the run starts from another model.
        """
        if self._last is not None and self._last[0] == data:
            return self._last[1]
        check_version(data)
        if self.header is None and not Round.brings_header(data):
            return self.join()
        message = Round.from_bytes(data, self.header)
        header = self._checked(self.header or message.header)
        number = message.settings.round
        # a round that is over here is a replay, or a server that was set back: ask it where it stands
        ledger = self._advance(header, message) if number > self.round else None
        if ledger is None:
            return self.join()
        self.header, self.ledger, self.round, self._settings = header, ledger, number - 1, message.settings
        self.replica.show(ledger)
        answer = self._answer(header, message.settings, message.client).to_bytes(header)
        self._last = (bytes(data), answer)
        return answer

    def join(self) -> bytes:
        """A JOIN message: asks for the state this client lacks."""
        self.ledger, self.round, self._settings = None, 0, None
        return Join(self.header.id if self.header is not None else bytes(8), 0).to_bytes()

    def state_bytes(self) -> bytes:
        """Header, round and ledger, for a client whose process does not outlive a round."""
        if self.header is None or self.ledger is None:
            return frame(STATE, STATE_VERSION, b"")
        sent, ledger = self.header.to_bytes(), self.ledger.to_bytes()
        return frame(STATE, STATE_VERSION, struct.pack("<IH", self.round, len(sent)) + sent + ledger)

    def load_state_bytes(self, data: bytes) -> None:
        """Take over a state from :meth:`state_bytes`."""
        payload = unframe(data, STATE, STATE_VERSION)
        if not payload:
            return
        reader = Reader(payload)
        round, length = reader.unpack("<IH")
        header = self._checked(RunHeader.from_bytes(bytes(reader.take(length))))
        ledger = Ledger.from_bytes(payload[6 + length :])
        if ledger.pool != header.pool or ledger.quantum != header.quantum:
            raise CorruptionError("the stored ledger is not over the run's pool")
        self.header, self.ledger, self.round, self._settings, self._last = header, ledger, round, None, None

    def _adopt(self, header: RunHeader) -> None:
        self.header = self._checked(header)

    def _checked(self, header: RunHeader | None) -> RunHeader:
        if header is None:
            raise ProtocolError("no run header is known here")
        if self.header is not None and header == self.header:
            return header
        if header.method not in self.methods:
            raise MismatchError(f"the run's method is {header.method!r}; {type(self).__name__} does {self.methods}")
        if header.theta0 != self.replica.base_digest:
            raise MismatchError(
                f"the run starts from parameters {header.theta0} but this client has {self.replica.base_digest}; "
                "load the run's base model"
            )
        return header

    def _advance(self, header: RunHeader, message: Round) -> Ledger | None:
        """The ledger that the round starts from, or ``None`` if it cannot be reached from here."""
        before = message.settings.round - 1
        have, ledger = (self.round, self.ledger) if self.ledger is not None else (0, header.ledger())
        if message.state is None:
            return ledger if have == before else None
        if isinstance(message.state, tuple):
            if message.state[0] != before:
                raise CorruptionError(f"a snapshot of round {message.state[0]} before round {before + 1}")
            return message.state[1]
        for commit, table_known in message.state:
            number = commit.settings.round
            if number <= have:
                continue
            if number != have + 1:
                return None
            if table_known:
                if self._settings is None or self._settings.round != number:
                    return None
                commit = replace(commit, settings=replace(commit.settings, table=self._settings.table))
            try:
                ledger, have = self.replica.after(ledger, commit, header), number
            except MismatchError:  # this client's state is not the server's: ask for a snapshot
                return None
        return ledger if have == before else None

    def batch(self, header: RunHeader, client: int, step: int) -> Batch:
        """The batch of a step counted from the run's beginning."""
        return self.batches[batch_index(header.key, client, step, len(self.batches))]

    def _answer(self, header: RunHeader, settings: Settings, client: int) -> Grads:
        if len(self.batches) == 0:
            return Grads(settings.round, client, 0, 0, math.nan, Payload(Kind.SCALARS, torch.zeros(0)))
        with torch.random.fork_rng(devices=[]):  # dropout, too, is a function of run, round and client
            torch.default_generator.manual_seed(derive(header.key, "dropout", settings.round, client) & (2**63 - 1))
            payload, loss = self.work(header, settings, client)
        # only what the run uses leaves: no sizes where clients weigh the same, no exact loss beside noised numbers
        batches = len(self.batches) if header.weighting == "batches" else 1
        examples = self._count_examples() if header.weighting == "examples" else 0
        return Grads(settings.round, client, examples, batches, math.nan if self.privacy else loss, payload)

    def _count_examples(self) -> int:
        if self.examples == 0:
            self.examples = sum(self.objective.size(self.batches[i]) for i in range(len(self.batches)))
        return self.examples

    @abstractmethod
    def work(self, header: RunHeader, settings: Settings, client: int) -> tuple[Payload, float]:
        """The round's numbers and the mean loss."""
