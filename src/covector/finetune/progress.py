"""What a run tells while it goes on: one record a round, to listeners of any kind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Listener", "Metrics", "RoundRecord", "Tensorboard"]


@dataclass
class RoundRecord:
    """One round of one method.

    Args:
        method: which method.
        round: its number, from 1; 0 is before training.
        losses: mean training loss of each client.
        validation: score on the validation sample, when it was looked at.
        up: bytes each client sent.
        down: bytes each client received.
        seconds: wall time since training began.
        events: lines of the report: what did not go the plain way.
    """

    method: str
    round: int
    losses: dict[str, float] = field(default_factory=dict)
    validation: float | None = None
    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    events: list[str] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Mean of the clients' losses, NaN without any.

        >>> RoundRecord("sketch", 1, {"a": 1.0, "b": 3.0}).loss
        2.0
        """
        return sum(self.losses.values()) / len(self.losses) if self.losses else float("nan")

    @property
    def bytes(self) -> int:
        """Bytes of all clients, both ways."""
        return sum(self.up.values()) + sum(self.down.values())


Listener = Callable[[RoundRecord], None]


class Metrics:
    """Appends each record to a JSON Lines file.

    Args:
        path: the file; created with its folder.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def __call__(self, record: RoundRecord) -> None:
        row: dict[str, Any] = {**asdict(record), "time": time.time()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def read(self, method: str, last_round: int) -> list[RoundRecord]:
        """The records of ``method`` up to a round, for a run that is resumed; one record a round."""
        found: dict[int, RoundRecord] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                row.pop("time")
                record = RoundRecord(**row)
                if record.method == method and record.round <= last_round:
                    found[record.round] = record
        return [found[number] for number in sorted(found)]


class Tensorboard:
    """Writes each record's scalars for TensorBoard, where it is installed."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def __call__(self, record: RoundRecord) -> None:
        for client, loss in record.losses.items():
            self.writer.add_scalar(f"{record.method}/loss/{client}", loss, record.round)
        if record.validation is not None:
            self.writer.add_scalar(f"{record.method}/validation", record.validation, record.round)
        self.writer.add_scalar(f"{record.method}/bytes", record.bytes, record.round)
        self.writer.flush()
