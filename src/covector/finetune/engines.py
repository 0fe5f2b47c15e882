"""Engines: who carries the bytes of a federated run between the server and its clients."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from covector import federated
from covector.errors import ArgumentError, require_extra
from covector.federated.flower_processes import FlowerProcesses, write_app
from covector.federated.flower_server import GridRounds
from covector.finetune.federation import Federation
from covector.finetune.methods import make_clients
from covector.finetune.settings import Settings

__all__ = ["Embedded", "Engine", "Flower", "Job"]

Listeners = list[Callable[[federated.RoundMetrics], None]]


@dataclass(frozen=True)
class Job:
    """A federated run, for an engine.

    Args:
        settings: of the method that runs.
        header: the run.
        replica: the model of this process.
        federation: clients and data.
    """

    settings: Settings
    header: federated.RunHeader
    replica: federated.Replica
    federation: Federation


class Engine(Protocol):
    """Drives a server's rounds to the end of a job."""

    def __call__(self, job: Job, server: federated.Server, callbacks: Listeners) -> federated.Run:
        """Run ``job.settings.rounds`` rounds, those before a resume included; call back after each."""


class Embedded:
    """Server and clients in this process, over one shared model.

    >>> callable(Embedded())  # an engine is called with a job, the server and what to call back after each round
    True
    """

    def __call__(self, job: Job, server: federated.Server, callbacks: Listeners) -> federated.Run:
        clients = make_clients(job.settings, job.replica, job.federation, job.header)
        return federated.run(server, clients, job.settings.rounds, callbacks)


class Flower:
    """Server here, clients on Flower: each a process with its own copy of the model and only its own data.

    Without ``superlink``, a SuperLink and a SuperNode for each client are started on free ports of the loopback
    interface and ended with the run. Otherwise the clients are the SuperNodes connected to that SuperLink.

    Args:
        logs: folder for the logs of Flower's programs.
        superlink: ``"host:port"`` of a SuperLink on this machine that others have started.
        root_certificates: PEM file that vouches for it; ``None`` is a connection without TLS.
        nodes: clients to wait for before the first round; default: those of the job's data.
        timeout: seconds until a round is closed without those that did not answer.

    Raises:
        ArgumentError: a value out of range.
        MissingExtraError: ``flwr`` is not installed.

    >>> Flower("runs/mine/flower", timeout=600.0).superlink is None  # the clients will be processes of this machine
    True
    """

    def __init__(
        self,
        logs: str | Path,
        superlink: str | None = None,
        root_certificates: str | Path | None = None,
        nodes: int | None = None,
        timeout: float = 3600.0,
    ) -> None:
        require_extra("flwr", "federated")
        if superlink is None and (root_certificates is not None or nodes is not None):
            name = "root_certificates" if root_certificates is not None else "nodes"
            raise ArgumentError(name, root_certificates or nodes, "nothing, unless superlink names a deployment")
        if nodes is not None and nodes < 1:
            raise ArgumentError("nodes", nodes, "a whole number of at least 1, or nothing for the clients of the data")
        if not 0.0 < timeout < float("inf"):
            raise ArgumentError("timeout", timeout, "positive seconds")
        self.logs = Path(logs)
        self.superlink = superlink
        self.root_certificates = None if root_certificates is None else Path(root_certificates).resolve()
        self.nodes = nodes
        self.timeout = timeout

    def __call__(self, job: Job, server: federated.Server, callbacks: Listeners) -> federated.Run:
        if server.round >= job.settings.rounds:
            return federated.Run()
        with FlowerProcesses(self.logs / job.settings.method) as processes, processes.relay() as mail:
            address = self.superlink
            if address is None:
                address = processes.superlink()
                processes.supernodes(address, _node_configs(job, processes.private))
            write_app(processes.private / "app", "covector.finetune.node:make_client", _run_config(job, mail.path))
            processes.run(processes.private / "app", address, self.root_certificates)
            mail.connect()
            rounds = GridRounds(mail, server, self.nodes or len(job.federation.clients), self.timeout)
            return rounds.run(job.settings.rounds, callbacks)


def _node_configs(job: Job, folder: Path) -> dict[str, dict[str, str]]:
    """A node for each client: its name and a file with its training examples, and nobody else's."""
    configs = {}
    for number, name in enumerate(job.federation.clients):
        path = folder / f"train-{number}.jsonl"
        lines = [json.dumps(example) + "\n" for example in job.federation.train[name]]
        path.write_text("".join(lines), encoding="utf-8")
        configs[name] = {"name": name, "train": str(path)}
    return configs


def _run_config(job: Job, relay: Path) -> dict[str, Any]:
    """What the clients are told of the run: its settings and its task; no data."""
    settings = job.settings.to_dict()
    if Path(settings["model"]).exists():  # a SuperNode's processes have another working directory
        settings["model"] = str(Path(settings["model"]).resolve())
    return {"relay": str(relay), "settings": json.dumps(settings), "task": json.dumps(job.federation.options)}
