"""Federated training by scalars: pure state machines, bytes in and bytes out, and the embedded engine.

The state of a run is a :class:`~covector.gradients.Ledger` of integers. Clients send a few numbers a round, the
server commits them, and any machine that applies the commits has the same parameters bit for bit.

* :class:`KSeedServer`, :class:`KSeedClient`: FedKSeed and FedKSeed-Pro, local zeroth-order steps.
* :class:`SketchServer`, :class:`SketchClient`: averaged gradients in a sketch, by any estimator.
* :func:`run`: the embedded engine. The interface of every engine is four calls: ``server.open_round``,
  ``client.handle``, ``server.receive``, ``server.close_round``.
"""

from covector.federated.client import Client
from covector.federated.commit import Commit
from covector.federated.header import PROTOCOL, RunHeader
from covector.federated.inprocess import RoundMetrics, Run, Traffic, run
from covector.federated.kseed import KSeedClient, KSeedServer
from covector.federated.messages import Grads, Join, Round
from covector.federated.outcomes import Event, Outcome, Verdict
from covector.federated.privacy import GaussianNoise, epsilon
from covector.federated.replica import Replica
from covector.federated.screen import Screen
from covector.federated.server import Server
from covector.federated.sketch import SketchClient, SketchServer

__all__ = [
    "PROTOCOL",
    "Client",
    "Commit",
    "Event",
    "GaussianNoise",
    "Grads",
    "Join",
    "KSeedClient",
    "KSeedServer",
    "Outcome",
    "Replica",
    "Round",
    "RoundMetrics",
    "Run",
    "RunHeader",
    "Screen",
    "Server",
    "SketchClient",
    "SketchServer",
    "Traffic",
    "Verdict",
    "epsilon",
    "run",
]
