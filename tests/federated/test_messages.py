"""Messages: their bytes as documented, and what damaged ones do."""

import random
import struct
import zlib

import pytest
import torch

from covector import SeedPool, SketchPool
from covector.errors import ArgumentError, CompositionError, CorruptionError, CovectorError, ProtocolError
from covector.federated import Commit, Grads, Join, Round, RunHeader, run
from covector.federated.commit import Displacement, Entry, Settings
from covector.federated.messages import check_version
from covector.federated.payloads import Kind, Payload
from covector.gradients.framing import OVERHEAD

HEADER = RunHeader("ab" * 32, SeedPool(5, 16), lr=0.5, code="byte", ids="derived", local_steps=3)
EXPLICIT = RunHeader("ab" * 32, SeedPool(5, 16), lr=0.5, local_steps=3)
SKETCH = RunHeader("ab" * 32, SketchPool(5, 16), lr=0.5, method="sketch", ids="derived", server_step="adam")
CODES = torch.tensor([1, 2, 200], dtype=torch.uint8)
TABLE = torch.arange(16, dtype=torch.uint8)


def ledger_of(header):
    ledger = header.ledger()
    ledger.add_([1, 2], torch.tensor([300, -70000]))
    return ledger


def commit_of(header, displacement=None):
    entries = (Entry(0, 1 << 15, Payload(Kind.BYTES, CODES)), Entry(3, 7, Payload(Kind.SCALARS, torch.ones(3))))
    return Commit(Settings(2, 0.25, 1 << 20), () if displacement else entries, displacement, "cd" * 32)


def messages():
    """One message of every shape: (bytes, reader)."""
    late = Entry(4, 9, Payload(Kind.UNITS, torch.tensor([5, -6]), torch.tensor([0, 15])), age=1)
    explicit = Payload(Kind.EXPLICIT, torch.tensor([0.5, 2.0]), torch.tensor([3, 15]))
    coordinates = Payload(Kind.COORDINATES_BYTE, torch.arange(16, dtype=torch.uint8), scale=0.5)
    exact = Displacement(torch.arange(16) * -1000)
    coded = Displacement(torch.arange(16, dtype=torch.uint8), 1 << 20)
    settings = Settings(3, 0.25, 1 << 20, TABLE)
    read = {
        "round": lambda header: lambda data: Round.from_bytes(data, header),
        "grads": lambda header: lambda data: Grads.from_bytes(data, header),
        "commit": lambda header: lambda data: Commit.from_bytes(data, header),
    }
    return {
        "header": (HEADER.to_bytes(), RunHeader.from_bytes),
        "join": (Join(HEADER.id, 3).to_bytes(), Join.from_bytes),
        "round-nothing": (Round(settings, 1, None, HEADER).to_bytes(HEADER), read["round"](None)),
        "round-snapshot": (Round(settings, 1, (2, ledger_of(HEADER))).to_bytes(HEADER), read["round"](HEADER)),
        "round-log": (Round(settings, 1, [(commit_of(HEADER), False)]).to_bytes(HEADER), read["round"](HEADER)),
        "grads-bytes": (Grads(3, 1, 7, 2, 0.5, Payload(Kind.BYTES, CODES)).to_bytes(HEADER), read["grads"](HEADER)),
        "grads-explicit": (Grads(3, 1, 7, 2, 0.5, explicit).to_bytes(EXPLICIT), read["grads"](EXPLICIT)),
        "grads-coordinates": (Grads(3, 1, 7, 2, 0.5, coordinates).to_bytes(SKETCH), read["grads"](SKETCH)),
        "commit": (commit_of(HEADER).to_bytes(HEADER), read["commit"](HEADER)),
        "commit-late": (Commit(settings, (late,), None, "cd" * 32).to_bytes(HEADER), read["commit"](HEADER)),
        "commit-exact": (commit_of(SKETCH, exact).to_bytes(SKETCH), read["commit"](SKETCH)),
        "commit-coded": (commit_of(SKETCH, coded).to_bytes(SKETCH), read["commit"](SKETCH)),
    }


NAMES = tuple(messages())


def bytes_again(value, data):
    if isinstance(value, (RunHeader, Join)):
        return value.to_bytes()
    return next(
        again for header in (HEADER, EXPLICIT, SKETCH) if (again := value.to_bytes(header))[10:18] == data[10:18]
    )


@pytest.mark.parametrize("name", NAMES)
def test_reading_and_writing_gives_the_same_bytes(name):
    data, read = messages()[name]
    assert bytes_again(read(data), data) == data


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_refused(name):
    data, read = messages()[name]
    for length in range(len(data)):
        with pytest.raises(CorruptionError):
            read(data[:length])


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit_is_refused(name):
    data, read = messages()[name]
    for bit in random.Random(name).sample(range(8 * len(data)), min(300, 8 * len(data))):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError):
            read(bytes(changed))


@pytest.mark.parametrize("name", NAMES)
def test_a_valid_checksum_over_nonsense_raises_nothing_but_our_errors(name):
    data, read = messages()[name]
    source = random.Random(name)
    refused = 0
    for _ in range(300):
        payload = bytearray(data[10:-4])
        for _ in range(source.randint(1, 4)):
            payload[source.randrange(len(payload))] = source.choice((0, 255, source.randrange(256)))
        if source.random() < 0.3:
            payload = payload[: source.randrange(len(payload))]
        head = data[:6] + struct.pack("<I", len(payload)) + bytes(payload)
        try:
            read(head + struct.pack("<I", zlib.crc32(head)))
        except CovectorError:
            refused += 1
    assert refused > 50


def test_a_header_is_128_bytes_and_lays_out_as_documented():
    data = HEADER.to_bytes()
    assert len(data) == 128
    assert (data[:4], data[10:42].hex()) == (b"CVFH", "ab" * 32)
    method, pool, law, key, size, quantum = struct.unpack_from("<BBBqIB", data, 10 + 32)
    assert (method, pool, law, key, size, quantum) == (1, 1, 0, 5, 16, 32)
    eps, steps, code, ids, schedule, lr = struct.unpack_from("<dIBBBd", data, 10 + 56)
    assert (eps, steps, code, ids, schedule, lr) == (2.0**-11, 3, 2, 1, 0, 0.5)


def test_sizes_of_messages_as_documented():
    assert len(Join(HEADER.id, 0).to_bytes()) == OVERHEAD + 12
    grads = Grads(1, 0, 0, 1, 0.0, Payload(Kind.BYTES, CODES))
    assert len(grads.to_bytes(HEADER)) == OVERHEAD + 8 + 4 + 2 + 4 + 4 + 4 + 1 + 4 + 3
    settings = Settings(1, 0.5)
    assert len(Round(settings, 0, None).to_bytes(HEADER)) == OVERHEAD + 8 + 2 + 4 + 2 + 8 + 8 + 1 + 1
    ledger = HEADER.ledger()
    snapshot = len(Round(settings, 0, (0, ledger)).to_bytes(HEADER)) - len(Round(settings, 0, None).to_bytes(HEADER))
    assert snapshot == 4 + 1 + 16 * 1
    ledger.coefficients[0] = -(1 << 23)
    assert len(Round(settings, 0, (0, ledger)).to_bytes(HEADER)) == OVERHEAD + 34 + 5 + 16 * 3
    assert len(Round(settings, 0, (0, ledger)).to_bytes(EXPLICIT)) == OVERHEAD + 34 + 5 + 16 * 4
    commit = Commit(settings, (Entry(0, 1, Payload(Kind.BYTES, CODES)),), None, "00" * 32)
    assert len(commit.to_bytes(HEADER)) == OVERHEAD + 8 + 20 + 1 + 2 + (7 + 5 + 3) + 1 + 32


def test_another_version_is_named():
    data = bytearray(Join(HEADER.id, 0).to_bytes())
    data[4:6] = struct.pack("<H", 2)
    with pytest.raises(ProtocolError, match=r"version 2; this is version 1"):
        check_version(bytes(data))


def test_a_message_of_another_run_is_refused():
    other = RunHeader("ab" * 32, SeedPool(6, 16), lr=0.5, code="byte", ids="derived", local_steps=3)
    data = Grads(1, 0, 0, 1, 0.0, Payload(Kind.BYTES, CODES)).to_bytes(other)
    with pytest.raises(ProtocolError, match="belongs to run"):
        Grads.from_bytes(data, HEADER)


def test_an_announced_pool_allocates_nothing_beyond_the_limit():
    huge = RunHeader("ab" * 32, SketchPool(5, 1 << 26), lr=0.5, method="sketch", ids="derived", server_step="sgd")
    with pytest.raises(CorruptionError, match="67108864"):
        RunHeader.from_bytes(huge.to_bytes())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"method": "kseed-pro", "pool": SketchPool(1, 8)}, CompositionError),
        ({"method": "sketch"}, CompositionError),
        ({"code": "byte"}, CompositionError),
        ({"server_step": "adam"}, CompositionError),
        ({"lr": 0.0}, ArgumentError),
        ({"eps": float("inf")}, ArgumentError),
        ({"local_steps": 0}, ArgumentError),
        ({"theta0": "ab"}, ArgumentError),
        ({"schedule": "step"}, ArgumentError),
    ],
)
def test_headers_that_cannot_work_are_refused(options, error):
    with pytest.raises(error):
        RunHeader(**{"theta0": "ab" * 32, "pool": SeedPool(1, 8), "lr": 0.1, **options})


def test_messages_of_a_real_run_are_read_back(federation, kind):
    made = federation(kind)
    seen = []

    def spy(way, round, client, data):
        seen.append(check_version(data))
        return [data]

    run(made.server, made.clients, 3, faults=spy)
    assert seen.count(b"CVFR") == seen.count(b"CVFG") == 9
