"""The connections of a swarm in one event loop: strangers, garbage, floods, broken connections, address exchange."""

import asyncio
import random
import struct
import time

import pytest

from covector import SketchPool
from covector.errors import CorruptionError
from covector.federated.swarm import Peer
from covector.federated.swarm_header import SwarmHeader
from covector.federated.swarm_membership import Timing
from covector.federated.tcp import Mesh
from covector.federated.tcp_frames import Hello, largest_frame, read_frame
from covector.gradients.framing import frame

HEADER = SwarmHeader("0" * 64, SketchPool(1, 16), lr=0.25)
TIMING = Timing(report=0.1, silence=10.0)


def peer(origin, founders=None, iterations=None):
    return Peer(HEADER, origin, 1, founders, iterations, TIMING)


async def drive(meshes, until, seconds=20.0):
    """Contribute and tick until ``until()``."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, [(m.peer.iteration, dict(m.refused)) for m in meshes]
        for mesh in meshes:
            now = time.monotonic()
            mesh.peer.tick(now)
            if mesh.peer.ready:
                mesh.peer.contribute([random.Random(mesh.peer.iteration * 7 + mesh.peer.origin).gauss(0, 1)], now)
            mesh.flush()
        await asyncio.sleep(0.01)


def settled(meshes):
    return lambda: all(mesh.peer.settled for mesh in meshes)


async def garbage(port, data):
    """Write ``data`` and wait until the other side closes; returns what it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 5.0)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_strangers_and_garbage_end_their_own_connection_only():
    async def scenario():
        founders = {1: 1, 2: 1}
        async with Mesh(peer(1, founders, 40)) as one, Mesh(peer(2, founders, 40)) as two:
            one.dial(("127.0.0.1", two.port))
            await drive([one, two], lambda: one.peer.iteration >= 3)
            hello = Hello(9, 1).to_bytes()
            endless = struct.pack("<4sHI", b"CVSW", 1, 2**32 - 1)
            for data in (
                b"GET / HTTP/1.1\r\n\r\n" * 4,
                endless,
                hello + b"\x00" * 64,
                hello + endless,
                hello[:-1] + b"?",
            ):
                await garbage(one.port, data)
            flipped = bytearray(one.peer.report().to_bytes(HEADER.tag))
            flipped[20] ^= 1
            _, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(hello + bytes(flipped))
            await writer.drain()
            await drive([one, two], lambda: any("checksum" in reason for reason in one.refused))
            writer.close()
            assert one.refused["corrupt"] >= 4
            await drive([one, two], settled([one, two]))
            assert one.peer.replica.ledger.digest() == two.peer.replica.ledger.digest()

    asyncio.run(scenario())


def test_a_broken_connection_is_dialed_again_and_what_was_lost_is_asked_for():
    async def scenario():
        founders = {1: 1, 2: 1}
        async with Mesh(peer(1, founders, 60)) as one, Mesh(peer(2, founders, 60)) as two:
            one.dial(("127.0.0.1", two.port))
            for iteration in (5, 15, 25):
                await drive([one, two], lambda i=iteration: min(one.peer.iteration, two.peer.iteration) >= i)
                two.hang_up()
            await drive([one, two], settled([one, two]))
            assert one.peer.replica.clock == two.peer.replica.clock == {1: 59, 2: 59}
            assert one.sent["handshakes"] > 2 * len(one.hello())

    asyncio.run(scenario())


def test_a_newcomer_that_knows_one_address_learns_the_others():
    async def scenario():
        founders = {1: 1, 2: 1, 3: 1}
        async with (
            Mesh(peer(1, founders, 80)) as one,
            Mesh(peer(2, founders, 80)) as two,
            Mesh(peer(3, founders, 80)) as three,
            Mesh(peer(4, None, 80)) as four,
        ):
            founding = [one, two, three]
            one.dial(("127.0.0.1", two.port))
            two.dial(("127.0.0.1", three.port))
            await drive(founding, lambda: one.peer.iteration >= 3)
            four.dial(("127.0.0.1", three.port))
            everybody = [*founding, four]
            await drive(everybody, settled(everybody), 40.0)
            assert set(four.known) == {1, 2, 3}
            assert len({mesh.peer.replica.ledger.digest() for mesh in everybody}) == 1
            assert four.peer.replica.known(4) == 79

    asyncio.run(scenario())


def test_a_peer_whose_port_is_closed_is_suspected_before_it_is_silent_for_long():
    async def scenario():
        founders = {1: 1, 2: 1}
        async with Mesh(peer(1, founders, 30), give_up=0.3) as one:
            async with Mesh(peer(2, founders, 30)) as two:
                one.dial(("127.0.0.1", two.port))
                await drive([one, two], lambda: one.peer.iteration >= 5)
            begun = time.monotonic()
            await drive([one], lambda: one.peer.ended)
            assert time.monotonic() - begun < TIMING.silence
            assert list(one.peer.members) == [1]

    asyncio.run(scenario())


def test_no_frame_above_the_bound_of_the_run_is_read():
    async def scenario(data, most):
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        return await read_frame(stream, most)

    whole = frame(b"CVSW", 1, b"x" * 100)
    assert asyncio.run(scenario(whole, len(whole))) == whole
    with pytest.raises(CorruptionError, match="needs at most"):
        asyncio.run(scenario(whole, len(whole) - 1))


def test_the_bound_admits_the_largest_messages_of_a_run():
    founders = {origin: 1 for origin in range(250)}
    crowd = Peer(HEADER, 0, 1, founders)
    crowd.replica.ledger.coefficients += 1 << 40
    for origin in founders:
        crowd.replica.ledger.clock[f"{origin:016x}"] = 0
    crowd.replica.iteration = 1
    crowd._send_missing(1, {5: 0})
    assert max(len(letter.data) for letter in crowd.drain()) <= largest_frame(HEADER)
    assert len(Hello(1, 1, {o: ("255.255.255.255", 65535) for o in founders}).to_bytes()) <= largest_frame(HEADER)
