"""run_peer: one process of a swarm over TCP, from joining to the end of the run."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from covector.errors import ProtocolError
from covector.federated.swarm_worker import Worker
from covector.federated.tcp import Address, Mesh
from covector.objective import Batch

__all__ = ["PeerReport", "run_peer"]


@dataclass
class PeerReport:
    """What a peer did in a run.

    Args:
        losses: mean loss of its own batches, by iteration.
        sent: bytes by kind of message, all receivers together.
        received: bytes by kind of message.
        refused: messages and connections that were not accepted, by reason.
        iterations: the iteration reached.
    """

    losses: dict[int, float] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    iterations: int = 0


async def run_peer(
    worker: Worker,
    batches: Callable[[int], Sequence[Batch]],
    peers: Sequence[Address] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    server_tls: ssl.SSLContext | None = None,
    client_tls: ssl.SSLContext | None = None,
    leave_after: int | None = None,
    on_start: Callable[[Mesh], None] | None = None,
    on_iteration: Callable[[int], None] | None = None,
) -> PeerReport:
    """Take part in a swarm until its last iteration is closed by all, or until this peer has left.

    The slopes are measured in a thread, so that a long forward pass does not silence the peer.

    Args:
        worker: peer and objective; a peer with founders starts the run, one without joins it.
        batches: ``batches(iteration)``, one batch for each of the peer's samples.
        peers: addresses to dial first; the others are learned from them.
        host: interface to listen on.
        port: port to listen on, 0 for a free one.
        server_tls: TLS for accepted connections.
        client_tls: TLS for dialed connections.
        leave_after: contribute to this iteration as the last one and go.
        on_start: called with the mesh when it listens (its ``port`` is known then).
        on_iteration: called with i after the live parameters have been brought to the end of iteration i.

    Returns:
        Losses, bytes and refusals.

    Raises:
        ProtocolError: the swarm refuses this peer, or moved on too far while it was cut off: start again as a
            newcomer, with another origin.
    """
    report = PeerReport()
    async with Mesh(worker.peer, host, port, server_tls, client_tls) as mesh:
        worker.peer.on_close.append(_listener(worker, mesh, on_iteration))
        if on_start is not None:
            on_start(mesh)
        for address in peers:
            mesh.dial(address)
        async with _clock(mesh):
            await _work(worker, batches, mesh, leave_after, report)
            await mesh.sent_all(seconds=5.0)
    worker.refresh()
    report.sent, report.received, report.refused = dict(mesh.sent), dict(mesh.received), dict(mesh.refused)
    report.iterations = worker.peer.iteration
    return report


def _listener(worker: Worker, mesh: Mesh, on_iteration: Callable[[int], None] | None) -> Callable[[], None]:
    def closed() -> None:
        mesh.changed.set()
        if on_iteration is not None:
            worker.refresh()
            on_iteration(worker.peer.iteration - 1)

    return closed


@contextlib.asynccontextmanager
async def _clock(mesh: Mesh) -> AsyncIterator[None]:
    async def beat() -> None:
        while True:
            mesh.peer.tick(time.monotonic())
            mesh.flush()
            mesh.changed.set()
            await asyncio.sleep(mesh.peer.view.timing.report / 4)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _work(
    worker: Worker,
    batches: Callable[[int], Sequence[Batch]],
    mesh: Mesh,
    leave_after: int | None,
    report: PeerReport,
) -> None:
    peer = worker.peer
    while not (peer.settled or _has_left(worker)):
        if peer.refusal is not None and not peer.members:
            raise ProtocolError(f"the swarm refuses this peer: {peer.refusal}")
        if peer.stranded:
            raise ProtocolError("the swarm moved on too far while this peer was cut off: join again as a newcomer")
        if not peer.ready:
            mesh.changed.clear()
            await mesh.changed.wait()
            continue
        iteration = peer.iteration
        worker.refresh()
        directions = peer.directions()
        loss, slopes = await asyncio.to_thread(worker.measure, batches(iteration), directions)
        if not peer.ready or peer.iteration != iteration:
            continue
        report.losses[iteration] = loss
        leaves = leave_after is not None and iteration >= leave_after
        worker.contribute(slopes, time.monotonic(), leave=leaves)
        mesh.flush()


def _has_left(worker: Worker) -> bool:
    peer = worker.peer
    last = peer.replica.known(peer.origin)
    others = [r for origin, r in peer.view.reports.items() if origin in peer.members]
    return peer.leaving and peer.iteration > last and all(r.iteration > last for r in others)
