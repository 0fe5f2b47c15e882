"""Training by several workers that do not wait for each other: asynchronous schemes, simulated and with processes.

A :class:`Scheme` is the two sides of a protocol as plain state machines: what a worker does with a gradient
(:class:`Replica`), and what the shared side does with a worker's message (:class:`Server`). The same scheme runs in
:class:`AsyncSimulator`, where delays are drawn from a seed, over ``torch.distributed`` (:func:`participate`), and, for
Hogwild, over shared memory (:func:`hogwild`).
"""

from covector.distributed.averaging import LocalAveraging
from covector.distributed.delays import Delay, Fixed, Geometric, Poisson
from covector.distributed.downpour import Downpour, Hogwild
from covector.distributed.elastic import EASGD
from covector.distributed.group import participate
from covector.distributed.processes import launch
from covector.distributed.revision import AdaptiveRevision
from covector.distributed.schemes import Collective, Replica, Scheme, Server
from covector.distributed.shared import hogwild
from covector.distributed.simulator import AsyncSimulator

__all__ = [
    "EASGD",
    "AdaptiveRevision",
    "AsyncSimulator",
    "Collective",
    "Delay",
    "Downpour",
    "Fixed",
    "Geometric",
    "Hogwild",
    "LocalAveraging",
    "Poisson",
    "Replica",
    "Scheme",
    "Server",
    "hogwild",
    "launch",
    "participate",
]
