"""Journal: what was appended is there after any crash; a torn tail is cut, other damage is refused."""

import os
import random
import subprocess
import sys

import pytest

from covector.errors import ArgumentError, CorruptionError, ProtocolError
from covector.gradients.journal import Journal

RECORDS = [(1, b"header"), (2, b""), (7, bytes(range(40))), (255, b"last")]


def write(path, records=RECORDS):
    with Journal(path, fsync="never") as journal:
        for kind, payload in records:
            journal.append(kind, payload)
    return path.read_bytes()


def test_records_come_back_in_order(tmp_path):
    data = write(tmp_path / "j")
    assert data[:8].hex() == b"CVJL\x01\x00\x00\x00".hex()
    assert len(data) == 8 + sum(9 + len(payload) for _, payload in RECORDS)
    with Journal(tmp_path / "j") as journal:
        assert list(journal.records()) == RECORDS
        assert journal.dropped == 0
        journal.append(3, b"more")
    with Journal(tmp_path / "j") as journal:
        assert list(journal.records()) == [*RECORDS, (3, b"more")]


def test_a_cut_at_every_byte_leaves_the_whole_records_before_it(tmp_path):
    data = write(tmp_path / "j")
    ends = [8]
    for _, payload in RECORDS:
        ends.append(ends[-1] + 9 + len(payload))
    for cut in range(len(data) + 1):
        path = tmp_path / f"cut-{cut}"
        path.write_bytes(data[:cut])
        whole = max((i for i, end in enumerate(ends) if end <= cut), default=0)
        with Journal(path) as journal:
            assert list(journal.records()) == RECORDS[:whole]
            assert journal.dropped == (cut - ends[whole] if cut >= 8 else cut)
            journal.append(9, b"after the crash")
        with Journal(path) as journal:
            assert list(journal.records()) == [*RECORDS[:whole], (9, b"after the crash")]
            assert journal.dropped == 0


def test_garbage_after_the_last_record_is_cut(tmp_path):
    data = write(tmp_path / "j")
    for garbage in (bytes(4096), b"\xff" * 100, random.Random(0).randbytes(300)):
        (tmp_path / "g").write_bytes(data + garbage)
        with Journal(tmp_path / "g") as journal:
            assert list(journal.records()) == RECORDS
            assert journal.dropped == len(garbage)


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_before_the_last_record_is_refused_and_nothing_is_cut(tmp_path, seed):
    data = bytearray(write(tmp_path / "j"))
    bit = random.Random(seed).randrange(8 * (len(data) - 9 - len(RECORDS[-1][1])))
    data[bit // 8] ^= 1 << bit % 8
    path = tmp_path / "flipped"
    path.write_bytes(data)
    with pytest.raises(CorruptionError):
        Journal(path)
    assert path.read_bytes() == data


def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path):
    for content in (b"not a journal at all", b"CVJL\x02\x00\x00\x00", b"no"):
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(CorruptionError):
            Journal(tmp_path / "f")
        assert (tmp_path / "f").read_bytes() == content


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    write(tmp_path / "j")
    with Journal(tmp_path / "j") as journal:
        monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "no space left")))
        with pytest.raises(OSError, match="no space"):
            journal.append(4, b"lost")
        monkeypatch.undo()
        assert list(journal.records()) == RECORDS
        journal.append(5, b"kept")
    with Journal(tmp_path / "j") as journal:
        assert list(journal.records()) == [*RECORDS, (5, b"kept")]


def test_every_record_is_synced_before_append_returns(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def spy(descriptor):
        synced.append((tmp_path / "j").stat().st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    with Journal(tmp_path / "j") as journal:
        journal.append(1, b"abc")
    assert (tmp_path / "j").stat().st_size in synced


@pytest.mark.parametrize("kind", [0, 256, -1])
def test_kinds_are_one_byte(tmp_path, kind):
    with Journal(tmp_path / "j") as journal, pytest.raises(ArgumentError):
        journal.append(kind, b"")


def test_the_policy_is_checked(tmp_path):
    with pytest.raises(ArgumentError):
        Journal(tmp_path / "j", fsync="sometimes")


@pytest.mark.processes
def test_two_processes_cannot_write_one_journal(tmp_path):
    with Journal(tmp_path / "j"):
        code = f"from covector.gradients.journal import Journal; Journal({str(tmp_path / 'j')!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "ProtocolError" in done.stderr
    assert "open in another process" in done.stderr
    with Journal(tmp_path / "j") as journal, pytest.raises(ProtocolError):
        Journal(tmp_path / "j")
    assert journal.dropped == 0
