"""Run a fine-tuning: base scores, rounds, scores after, files. The state of a federated run is its journal."""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from covector import federated, language, trees
from covector.errors import ArgumentError, MismatchError, require_extra
from covector.finetune.central import central_rounds
from covector.finetune.engines import Embedded, Engine, Job
from covector.finetune.federation import Federation, gather
from covector.finetune.lora import lora_rounds
from covector.finetune.methods import FEDERATED, make_header, make_server
from covector.finetune.privacy import account
from covector.finetune.progress import Listener, Metrics, RoundRecord, Tensorboard
from covector.finetune.scoring import Scorecard, calibrated_accuracy, score
from covector.finetune.settings import Settings
from covector.gradients import Ledger
from covector.gradients.journal import Journal

__all__ = ["MethodResult", "Workbench", "peak_memory"]


# a folder of an earlier version does not name what came since
_DEFAULTS = {f.name: f.default for f in fields(Settings)}


def peak_memory() -> int:
    """Peak resident memory of this process so far, in bytes.

    >>> peak_memory() > 0
    True
    """
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclass
class MethodResult:
    """What one method did.

    Args:
        settings: how it ran.
        records: one a round, the look before training first.
        test: scores on the test examples after training.
        seconds: wall time of the training rounds.
        ledger: exact state, for the federated methods.
        digest: SHA-256 of the final parameters.
        memory: peak resident memory of the process in bytes, so far.
        predictions: what the trained model says to a few test examples.
        privacy: epsilon and what it follows from (:func:`covector.finetune.privacy.account`), for a private run.
    """

    settings: Settings
    records: list[RoundRecord]
    test: Scorecard
    seconds: float
    ledger: Ledger | None = None
    digest: str = ""
    memory: int = 0
    predictions: list[dict[str, Any]] = field(default_factory=list)
    privacy: dict[str, Any] | None = None

    @property
    def bytes_up(self) -> float:
        """Mean bytes a client sends in a round."""
        sent = [count for record in self.records for count in record.up.values()]
        return sum(sent) / len(sent) if sent else 0.0

    @property
    def bytes_down(self) -> float:
        """Mean bytes a client receives in a round."""
        received = [count for record in self.records for count in record.down.values()]
        return sum(received) / len(received) if received else 0.0


class Workbench:
    """A model, a federation and a folder, shared by the methods that are compared.

    Args:
        settings: of the main method; model, data and seed are common to all.
        out: folder for journals, metrics and results.
        listeners: called with every :class:`RoundRecord`.
        resume: go on with journals found in ``out``; otherwise they must not exist.
        engine: drives the federated methods; default the embedded one.

    Raises:
        ArgumentError: an engine for a method that is not federated.
        MismatchError: ``out`` holds another run.
        MissingExtraError: privacy without its accountant.
    """

    def __init__(
        self,
        settings: Settings,
        out: Path,
        listeners: Iterable[Listener] = (),
        resume: bool = False,
        engine: Engine | None = None,
    ) -> None:
        self.settings = settings
        self.out = out
        self.resume = resume
        self.engine: Engine = engine or Embedded()
        self.resumed = 0
        if engine is not None and settings.method not in FEDERATED:
            raise ArgumentError("method", settings.method, "one that an engine drives: " + ", ".join(FEDERATED))
        if settings.dp_noise:
            require_extra("dp_accounting", "federated")
        out.mkdir(parents=True, exist_ok=True)
        self._remember_settings()
        self.model, self.tokenizer = language.load_model(settings.model, settings.dtype, settings.device)
        self.federation: Federation = gather(settings, self.tokenizer)
        self.objective = self.federation.task.objective(self.model)
        self.replica = federated.Replica(self.objective)
        self.metrics = Metrics(out / "metrics.jsonl")
        self.listeners: list[Listener] = [self.metrics, *listeners]
        self._before: float | None = None
        with contextlib.suppress(ImportError):
            self.listeners.append(Tensorboard(out / "tensorboard"))

    def _remember_settings(self) -> None:
        path = self.out / "settings.json"
        now = self.settings.to_dict()
        if path.exists() and self.resume:
            before = {**_DEFAULTS, **json.loads(path.read_text())}
            self.resumed = before.get("resumed", 0) + 1
            different = {name for name in now if before.get(name) != now[name]} - {"rounds", "device"}
            if different:
                raise MismatchError(f"cannot resume {self.out}: {sorted(different)} differ from the run that is there")
        elif any(self.out.glob("*.journal")):
            raise MismatchError(f"{self.out} holds a run already: pass --resume to go on with it, or another --out")
        path.write_text(json.dumps({**now, "resumed": self.resumed}, indent=1) + "\n")

    def base(self) -> tuple[Scorecard, float | None]:
        """Test scores of the untouched model, and its accuracy after moving the threshold."""
        self.restore()
        test = score(self.federation, self.model, self.federation.test)
        validation = score(self.federation, self.model, self.federation.validation)
        self._before = validation.overall.value
        return test, calibrated_accuracy(validation, self.federation.validation, test, self.federation.test)

    def restore(self) -> None:
        """Make the live parameters those of the base model."""
        trees.copy_(self.objective.params, self.replica.theta0)
        self.replica.moved()

    def run(self, settings: Settings) -> MethodResult:
        """Run one method from the base model to its end."""
        self.restore()
        before = self._look() if self._before is None else self._before
        records = [RoundRecord(settings.method, 0, validation=before)]
        for listener in self.listeners:
            listener(records[0])
        if settings.method in FEDERATED:
            result = self._federated(settings, records)
        else:
            rounds = self._lora(settings) if settings.method == "lora" else self._central(settings)
            result = self._plain(settings, records, rounds)
        result.memory = peak_memory()
        return result

    def _tell(self, records: list[RoundRecord], record: RoundRecord, settings: Settings, model: Any = None) -> None:
        if record.round % settings.check_every == 0 or record.round == settings.rounds:
            record.validation = self._look(model)
        records.append(record)
        for listener in self.listeners:
            listener(record)

    def _look(self, model: Any = None) -> float:
        return score(self.federation, model or self.model, self.federation.validation).overall.value

    def _federated(self, settings: Settings, records: list[RoundRecord]) -> MethodResult:
        header = make_header(settings, self.replica)
        with Journal(self.out / f"{settings.method}.journal") as journal:
            server = make_server(settings, header, journal)
            records += [r for r in self.metrics.read(settings.method, server.round) if r.round]
            begin = time.perf_counter() - (records[-1].seconds if len(records) > 1 else 0.0)

            def on_round(metrics: federated.RoundMetrics) -> None:
                record = RoundRecord(
                    settings.method,
                    metrics.round,
                    losses={name: loss for name, loss in metrics.losses.items() if not math.isnan(loss)},
                    up={name: traffic.up for name, traffic in metrics.traffic.items()},
                    down={name: traffic.down for name, traffic in metrics.traffic.items()},
                    seconds=time.perf_counter() - begin,
                    events=[str(event) for event in metrics.events],
                )
                if metrics.round % settings.check_every == 0 or metrics.round == settings.rounds:
                    self.replica.show(server.ledger)
                self._tell(records, record, settings)

            self.engine(Job(settings, header, self.replica, self.federation), server, [on_round])
            seconds = time.perf_counter() - begin
            self.replica.show(server.ledger)
            result = self._finished(settings, records, seconds, self.model, server.ledger)
            result.privacy = account(settings, records, self.resumed)
            return result

    def _central(self, settings: Settings) -> Iterator[tuple[Any, dict[str, float], int]]:
        for losses in central_rounds(settings, self.objective, self.federation):
            self.replica.moved()
            yield self.model, losses, 0

    def _lora(self, settings: Settings) -> Iterator[tuple[Any, dict[str, float], int]]:
        model, _ = language.load_model(settings.model, settings.dtype, settings.device)
        for done in lora_rounds(settings, model, self.federation):
            yield done.model, done.losses, done.nbytes

    def _plain(
        self, settings: Settings, records: list[RoundRecord], rounds: Iterator[tuple[Any, dict[str, float], int]]
    ) -> MethodResult:
        begin = time.perf_counter()
        model: Any = self.model
        for number, (current, losses, nbytes) in enumerate(rounds, start=1):
            model = current
            traffic = dict.fromkeys(losses, nbytes) if nbytes else {}
            record = RoundRecord(
                settings.method, number, losses, up=traffic, down=traffic, seconds=time.perf_counter() - begin
            )
            self._tell(records, record, settings, model)
        return self._finished(settings, records, time.perf_counter() - begin, model, None)

    @torch.no_grad()
    def _finished(
        self, settings: Settings, records: list[RoundRecord], seconds: float, model: Any, ledger: Ledger | None
    ) -> MethodResult:
        test = score(self.federation, model, self.federation.test)
        digest = trees.digest(self.objective.params) if ledger is not None else ""
        return MethodResult(settings, records, test, seconds, ledger, digest, predictions=self.samples(model))

    def samples(self, model: Any, each: int = 2) -> list[dict[str, Any]]:
        """What a model says to the first test examples of each client."""
        task = self.federation.task
        rows = []
        for client, examples in self.federation.test.items():
            rows += [{"client": client, **row} for row in task.predictions(model, examples[:each])]
        return rows
