"""Resume: the journal is the server's only state; cut anywhere, it gives the clean prefix and the same end."""

import random

import pytest

from covector import SeedPool
from covector.errors import CorruptionError, MismatchError
from covector.federated import Commit, KSeedServer, RunHeader, Screen, Verdict, run
from covector.federated.records import COMMIT, REPLY
from covector.gradients.journal import Journal


def journaled(federation, path, kind, rounds, **options):
    with Journal(path, fsync="never") as journal:
        made = federation(kind, journal=journal, **options)
        run(made.server, made.clients, rounds)
        return made, list(journal.records())


def fingerprint(server):
    moments = getattr(server, "moments", None)
    preference = server.history.preference
    return (
        server.ledger.digest(),
        dict(server.ledger.clock),
        server.round,
        server.history.median.value,
        None if moments is None else (moments.first.tolist(), moments.second.tolist(), moments.count),
        None if preference is None else preference.probabilities().tolist(),
    )


def committed(records, header):
    """(end offset, digest) of every commit in the file."""
    end, digests = 8, []
    for kind, payload in records:
        end += 9 + len(payload)
        if kind == COMMIT:
            digests.append((end, Commit.from_bytes(payload, header).digest))
    return digests


def prefix_digest(records, header, cut):
    done = [digest for end, digest in committed(records, header) if end <= cut]
    return done[-1] if done else header.ledger().digest()


def test_a_resumed_server_has_every_bit_of_the_one_that_stopped(federation, kind, tmp_path):
    made, _ = journaled(federation, tmp_path / "j", kind, 4)
    with Journal(tmp_path / "j") as journal:
        again = made.resumed(journal)
        assert fingerprint(again) == fingerprint(made.server)
        assert [str(event) for event in again.report] == [str(event) for event in made.server.report]


def test_going_on_after_a_resume_ends_on_the_uninterrupted_bits(federation, kind, tmp_path):
    whole = federation(kind)
    run(whole.server, whole.clients, 6)
    made, _ = journaled(federation, tmp_path / "j", kind, 2)
    for rounds in (3, 6):
        with Journal(tmp_path / "j", fsync="never") as journal:
            server = made.resumed(journal)
            run(server, federation(kind).clients, rounds)
    assert fingerprint(server) == fingerprint(whole.server)


def test_a_journal_cut_at_every_byte_resumes_to_its_clean_prefix(federation, tmp_path):
    made, records = journaled(federation, tmp_path / "j", "faithful", 2, clients=2, steps=2)
    data = (tmp_path / "j").read_bytes()
    head = 8 + 9 + 128
    for cut in range(len(data) + 1):
        path = tmp_path / "cut"
        path.write_bytes(data[:cut])
        with Journal(path, fsync="never") as journal:
            if cut < head:
                with pytest.raises(CorruptionError, match="holds no run"):
                    KSeedServer.resume(journal)
                continue
            server = KSeedServer.resume(journal)
            assert server.ledger.digest() == prefix_digest(records, made.header, cut)
        path.unlink()


def test_a_journal_cut_anywhere_goes_on_to_the_same_end(federation, kind, tmp_path):
    whole = federation(kind)
    run(whole.server, whole.clients, 3)
    made, records = journaled(federation, tmp_path / "j", kind, 3)
    data = (tmp_path / "j").read_bytes()
    source = random.Random(kind)
    for cut in sorted(source.sample(range(8 + 9 + 128, len(data)), 12)):
        (tmp_path / "cut").write_bytes(data[:cut])
        with Journal(tmp_path / "cut", fsync="never") as journal:
            server = made.resumed(journal)
            assert server.ledger.digest() == prefix_digest(records, made.header, cut)
            run(server, made.clients if cut % 2 else federation(kind).clients, 3)
            assert fingerprint(server) == fingerprint(whole.server)


def test_replies_that_were_accepted_are_not_asked_for_again(federation, kind, tmp_path):
    with Journal(tmp_path / "j", fsync="never") as journal:
        made = federation(kind, journal=journal)
        run(made.server, made.clients, 1)
        down = made.server.open_round(list(made.clients))
        assert made.server.receive("client-1", made.clients["client-1"].handle(down["client-1"])).accepted
    with Journal(tmp_path / "j", fsync="never") as journal:
        server = made.resumed(journal)
        again = server.open_round(list(made.clients))
        assert sorted(again) == ["client-0", "client-2"]
        assert again["client-0"] == down["client-0"]
        duplicate = made.clients["client-1"].handle(down["client-1"])
        assert server.receive("client-1", duplicate).verdict is Verdict.DUPLICATE


def test_late_replies_survive_a_resume(federation, kind, tmp_path):
    options = {"late": "apply"}
    with Journal(tmp_path / "j", fsync="never") as journal:
        made = federation(kind, journal=journal, server=options)
        down = made.server.open_round(list(made.clients))
        up = {name: made.clients[name].handle(data) for name, data in down.items()}
        made.server.receive("client-0", up["client-0"])
        made.server.close_round()
        assert made.server.receive("client-2", up["client-2"]).verdict is Verdict.LATE
    with Journal(tmp_path / "j", fsync="never") as journal:
        server = made.resumed(journal, **options)
        assert server.receive("client-2", up["client-2"]).verdict is Verdict.DUPLICATE
        run(server, made.clients, 2)
        end = fingerprint(server)
    with Journal(tmp_path / "j", fsync="never") as journal:
        assert fingerprint(made.resumed(journal, **options)) == end


def test_every_reply_is_on_disk_before_it_is_acknowledged(federation, tmp_path):
    with Journal(tmp_path / "j") as journal:
        made = federation("compact", journal=journal)
        down = made.server.open_round(["client-0"])
        made.server.receive("client-0", made.clients["client-0"].handle(down["client-0"]))
        assert [kind for kind, _ in journal.records()][-1] == REPLY
        data = made.server.close_round()
        assert list(journal.records())[-1] == (COMMIT, data)


def test_a_full_disk_leaves_the_server_as_it_was(federation, tmp_path, monkeypatch):
    with Journal(tmp_path / "j") as journal:
        made = federation("compact", journal=journal)
        run(made.server, made.clients, 1)
        down = made.server.open_round(list(made.clients))
        up = {name: made.clients[name].handle(data) for name, data in down.items()}
        before = fingerprint(made.server)

        def full(descriptor):
            raise OSError(28, "no space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            made.server.receive("client-0", up["client-0"])
        assert made.server.pending == {}
        monkeypatch.undo()
        for name, data in up.items():
            made.server.receive(name, data)
        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            made.server.close_round()
        assert fingerprint(made.server) == before
        monkeypatch.undo()
        made.server.close_round()
        end = fingerprint(made.server)
    with Journal(tmp_path / "j") as journal:
        assert fingerprint(made.resumed(journal)) == end


def test_the_report_survives_a_resume(federation, kind, tmp_path):
    with Journal(tmp_path / "j", fsync="never") as journal:
        made = federation(kind, journal=journal, server={"screen": Screen(bound=1.5)})
        run(made.server, made.clients, 2)
        down = made.server.open_round(list(made.clients))
        made.server.receive("client-0", made.clients["client-0"].handle(down["client-0"]))
        made.server.close_round()
    lines = [str(event) for event in made.server.report]
    assert {Verdict.VANISHED, Verdict.ABSURD} <= {event.verdict for event in made.server.report}
    with Journal(tmp_path / "j", fsync="never") as journal:
        assert [str(event) for event in made.resumed(journal, screen=Screen(bound=1.5)).report] == lines


def test_another_run_is_refused_and_the_journal_kept(federation, tmp_path):
    journaled(federation, tmp_path / "j", "compact", 1)
    before = (tmp_path / "j").read_bytes()
    other = RunHeader("ab" * 32, SeedPool(1, 64), lr=0.1)
    with Journal(tmp_path / "j") as journal, pytest.raises(MismatchError, match="another run"):
        KSeedServer(other, journal)
    assert (tmp_path / "j").read_bytes() == before


def test_the_exact_steps_of_a_sketch_do_not_need_the_servers_floats(federation, tmp_path):
    made, records = journaled(federation, tmp_path / "j", "sketch", 4)
    ledger = made.header.ledger()
    for kind, payload in records:
        if kind == COMMIT:
            commit = Commit.from_bytes(payload, made.header)
            ledger.add_coordinates_(commit.displacement.units())
    assert ledger.digest() == made.server.ledger.digest()
