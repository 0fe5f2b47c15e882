"""A swarm over TCP: every peer listens, dials every other peer it hears of, and sends over what it dialed.

Connections only carry bytes; who has what, who is waited for and what is asked for again is decided by
:class:`~covector.federated.swarm.Peer`, which tolerates any loss. So a connection that breaks is dialed again
and what was queued on it may be dropped; a message that does not decode ends its connection and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter, deque

from covector.errors import CorruptionError
from covector.federated.swarm import Peer
from covector.federated.swarm_messages import MAGIC as SWARM
from covector.federated.swarm_standing import Letter
from covector.federated.tcp_frames import Hello, largest_frame, read_frame

__all__ = ["Address", "Link", "Mesh"]

Address = tuple[str, int]

_HANDSHAKE_SECONDS = 10.0
_FORGET_SECONDS = 120.0
_QUEUE = 1024
_KIND = 10  # where a swarm message says its kind
_KINDS = {1: "contributions", 2: "reports", 3: "joins", 4: "syncs", 5: "refusals"}


class Mesh:
    """The connections of one peer.

    Args:
        peer: the state machine; its letters are sent and what arrives is given to it.
        host: interface to listen on.
        port: 0 takes a free one, see :attr:`port`.
        server_tls: how to accept connections (for example with ``verify_mode=CERT_REQUIRED``); ``None``: plain TCP.
        client_tls: how to dial; ``None``: plain TCP.
        give_up: seconds after which a peer whose address refuses connections is suspected.

    ``sent`` and ``received`` count bytes by what they are: ``contributions``, ``reports``, ``syncs``, ``joins``,
    ``refusals`` and ``handshakes``.
    """

    def __init__(
        self,
        peer: Peer,
        host: str = "127.0.0.1",
        port: int = 0,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        give_up: float = 3.0,
    ) -> None:
        self.peer = peer
        self.host, self.port = host, port
        self.server_tls, self.client_tls = server_tls, client_tls
        self.give_up = give_up
        self.largest = largest_frame(peer.header)
        self.links: dict[Address, Link] = {}
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.changed = asyncio.Event()
        self.closing = False
        self._server: asyncio.Server | None = None
        self._incoming: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def __aenter__(self) -> Mesh:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, ssl=self.server_tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.closing = True
        links = [link.task for link in self.links.values()]
        for task in links:
            task.cancel()
        self.hang_up()
        accepted = [task for task in self._incoming.values() if task is not None]
        await asyncio.gather(*links, *accepted, return_exceptions=True)

    @property
    def known(self) -> dict[int, Address]:
        """Addresses of the peers that were reached."""
        return {link.origin: address for address, link in self.links.items() if link.origin is not None}

    def dial(self, address: Address) -> None:
        """Keep a connection to ``address`` from now on; dialing a known one does nothing."""
        if address not in self.links and len(self.links) < 2 * self.peer.header.most_peers:
            self.links[address] = Link(self, address)

    def hang_up(self) -> None:
        """Break all accepted connections; who wants to talk dials again."""
        for writer in self._incoming:
            writer.transport.abort()

    def flush(self) -> None:
        """Queue the peer's letters on the connections they go to."""
        for letter in self.peer.drain():
            for link in self.links.values():
                if link.wants(letter):
                    link.queue(letter.data)

    async def sent_all(self, seconds: float) -> None:
        """Wait until what is queued for reachable peers is on its way, at most ``seconds``."""
        until = time.monotonic() + seconds
        while any(link.busy for link in self.links.values()) and time.monotonic() < until:
            await asyncio.sleep(0.02)

    def hello(self) -> bytes:
        """This peer's handshake."""
        return Hello(self.peer.origin, self.port, self.known).to_bytes()

    def meet(self, hello: Hello, host: str) -> None:
        """Dial the sender of a handshake and those it knows."""
        self.dial((host, hello.port))
        for origin, address in hello.known.items():
            if origin != self.peer.origin:
                self.dial(address)

    def count(self, counter: Counter[str], data: bytes) -> None:
        """Account for a frame."""
        kind = _KINDS.get(data[_KIND], "unknown") if data[:4] == SWARM and len(data) > _KIND else "handshakes"
        counter[kind] += len(data)

    async def _accept(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._incoming) >= 2 * self.peer.header.most_peers:
            writer.close()
            return
        self._incoming[writer] = asyncio.current_task()
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                data = await read_frame(stream, self.largest)
                hello = Hello.from_bytes(data)
                self.count(self.received, data)
                await self._answer(writer)
            self.meet(hello, writer.get_extra_info("peername")[0])
            while True:
                self._take(await read_frame(stream, self.largest))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.refused["ended"] += 1
        except CorruptionError:
            self.refused["corrupt"] += 1
        finally:
            del self._incoming[writer]
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        data = self.hello()
        self.count(self.sent, data)
        writer.write(data)
        await writer.drain()

    def _take(self, data: bytes) -> None:
        self.count(self.received, data)
        receipt = self.peer.receive(data, time.monotonic())
        if receipt.status == "refused":
            self.refused[receipt.reason[:80]] += 1
        self.flush()
        self.changed.set()


class Link:
    """One outgoing connection, dialed again for as long as it is wanted."""

    def __init__(self, mesh: Mesh, address: Address) -> None:
        self.mesh = mesh
        self.address = address
        self.origin: int | None = None
        self.open = False
        self.redundant = False
        self._letters: deque[bytes] = deque(maxlen=_QUEUE)
        self._wake = asyncio.Event()
        self._writing = False
        self.task = asyncio.create_task(self._keep())

    @property
    def busy(self) -> bool:
        """Whether something is queued on an open connection."""
        return self.open and (bool(self._letters) or self._writing)

    def wants(self, letter: Letter) -> bool:
        """Whether the letter goes this way; before the handshake all do."""
        return not self.redundant and (letter.receiver is None or self.origin in (None, letter.receiver))

    def queue(self, data: bytes) -> None:
        """Send ``data`` when the connection is open; the oldest is dropped where too much waits."""
        self._letters.append(data)
        self._wake.set()

    async def _keep(self) -> None:
        wait, failing_since = 0.05, time.monotonic()
        while not (self.redundant or self.mesh.closing):
            failing = time.monotonic() - failing_since
            if failing > _FORGET_SECONDS and self.origin not in self.mesh.peer.members:
                del self.mesh.links[self.address]
                return
            try:
                await self._once()
            except ConnectionRefusedError:
                # nobody listens there any more: the process is gone, not slow
                if self.origin is not None and failing > self.mesh.give_up:
                    self.mesh.peer.suspect(self.origin)
                    self._letters.clear()
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                self.mesh.refused["unreachable"] += 1
            except CorruptionError:
                self.mesh.refused["corrupt"] += 1
            if self.open:
                self.open, wait, failing_since = False, 0.05, time.monotonic()
            await asyncio.sleep(wait)
            wait = min(2 * wait, 2.0)

    async def _once(self) -> None:
        mesh = self.mesh
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            stream, writer = await asyncio.open_connection(*self.address, ssl=mesh.client_tls)
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                writer.write(self._counted(mesh.hello()))
                await writer.drain()
                data = await read_frame(stream, mesh.largest)
            mesh.count(mesh.received, data)
            hello = Hello.from_bytes(data)
            same = [link for link in mesh.links.values() if link.open and link.origin == hello.origin]
            if same or hello.origin == mesh.peer.origin:
                self.redundant = True
                return
            self.origin, self.open = hello.origin, True
            mesh.meet(Hello(hello.origin, self.address[1], hello.known), self.address[0])
            ended = asyncio.create_task(stream.read(1))
            try:
                await self._write(writer, ended)
            finally:
                ended.cancel()
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 1.0)

    async def _write(self, writer: asyncio.StreamWriter, ended: asyncio.Task[bytes]) -> None:
        while not ended.done():
            while self._letters:
                self._writing = True
                writer.write(self._counted(self._letters.popleft()))
                await writer.drain()
            self._writing = False
            self._wake.clear()
            waiting = asyncio.create_task(self._wake.wait())
            await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    def _counted(self, data: bytes) -> bytes:
        self.mesh.count(self.mesh.sent, data)
        return data
