"""The relay carries what the Grid carries, says what failed, and nothing outlives the run."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib

import pytest

from covector.errors import ArgumentError, ProtocolError
from covector.federated import flower_keeper
from covector.federated.flower_mail import Letter, Mail, Reply
from covector.federated.flower_processes import FlowerProcesses, write_app
from covector.federated.flower_relay import RelayedMail, serve

pytest.importorskip("flwr")


class Echo(Mail):
    """Answers every letter with its own record; node 13 is broken, node 14 has no record."""

    def __init__(self):
        self.sent = {}

    def nodes(self):
        return [11, 2**63 + 5]

    def post(self, letters):
        if any(letter.kind == "bad" for letter in letters):
            raise ArgumentError("kind", "bad", "a kind")
        start = len(self.sent)
        names = [f"id-{start + i}" if letter.node else "" for i, letter in enumerate(letters)]
        self.sent.update(dict(zip(names, letters, strict=True)))
        return names

    def collect(self, letters):
        return [self._reply(name, self.sent.pop(name)) for name in letters if name in self.sent]

    def _reply(self, name, letter):
        if letter.node == 13:
            return Reply(name, 13, None, "2: the process died")
        return Reply(name, letter.node, None if letter.node == 14 else letter.record)


@pytest.fixture
def relayed(tmp_path):
    """Mail through a relay that runs in another thread, and the mail it ends at."""
    mail, echo = RelayedMail(tmp_path / "relay"), Echo()

    def answer():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as far:
            far.connect(str(tmp_path / "relay"))
            serve(far, echo)

    thread = threading.Thread(target=answer)
    thread.start()
    mail.connect(10.0)
    yield mail, echo
    mail.close()
    thread.join(10.0)
    assert not thread.is_alive()


def test_letters_and_replies_arrive_as_they_were(relayed):
    mail, _ = relayed
    assert mail.nodes() == [11, 2**63 + 5]
    letters = [
        Letter(11, "train", {"message": bytes(range(256)), "name": 'Ärzte ["x"]'}),
        Letter(0, "train", {}),
        Letter(13, "query", {"name": ""}),
        Letter(14, "query", {"name": "b'"}),
    ]
    assert mail.post(letters) == ["id-0", "", "id-2", "id-3"]
    replies = mail.collect(["id-0", "id-2", "id-3", "id-9"])
    assert replies == [
        Reply("id-0", 11, letters[0].record),
        Reply("id-2", 13, None, "2: the process died"),
        Reply("id-3", 14, None),
    ]
    assert mail.collect(["id-0"]) == []


def test_what_the_grid_raises_is_raised_here_and_the_relay_lives_on(relayed):
    mail, _ = relayed
    with pytest.raises(ProtocolError, match="ArgumentError: kind='bad'"):
        mail.post([Letter(1, "bad", {})])
    assert mail.post([Letter(1, "train", {"message": b"x"})]) == ["id-0"]


def test_a_relay_that_does_not_come_or_goes_is_an_error_that_says_why(tmp_path):
    with RelayedMail(tmp_path / "a") as mail, pytest.raises(ProtocolError, match=r"within 0\.3 s"):
        mail.connect(0.3)
    with RelayedMail(tmp_path / "b", lambda: "run ended with 1") as mail:
        with pytest.raises(ProtocolError, match="not connected"):
            mail.nodes()
        with pytest.raises(ProtocolError, match="run ended with 1"):
            mail.connect(60.0)
    with RelayedMail(tmp_path / "c", lambda: "") as mail, socket.socket(socket.AF_UNIX) as far:
        far.connect(str(tmp_path / "c"))
        mail.connect(5.0)
        far.close()
        with pytest.raises(ProtocolError, match=r"ServerApp ended|relay was lost"):
            mail.nodes()
    assert not list(tmp_path.iterdir())


def test_an_app_says_what_it_was_told(tmp_path):
    told = {"relay": "/tmp/x y", "settings": '{"a": "\\u00e4 \'\\"\\n", "b": [1]}', "rounds": 3}
    write_app(tmp_path / "app", "covector.finetune.node:make_client", told)
    read = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text(encoding="utf-8"))
    assert read["tool"]["flwr"]["app"]["config"] == told
    code = (tmp_path / "app" / "covector_run" / "client.py").read_text()
    assert "from covector.finetune.node import make_client" in code
    compile(code, "client.py", "exec")


SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.{how}); print('up', flush=True); time.sleep(600)"
RUN = """
import subprocess, sys, time
keeper = subprocess.Popen([sys.executable, {keeper!r}, {private!r}], stdin=subprocess.PIPE)
for code in {codes!r}:
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
    keeper.stdin.write(b"%d\\n" % child.pid)
    keeper.stdin.flush()
    print(child.pid, flush=True)
print("ready", flush=True)
time.sleep(600)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = open(f"/proc/{pid}/stat").read() if os.path.exists(f"/proc/{pid}/stat") else "? (x) S"  # noqa: SIM115
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.processes
def test_a_run_that_is_killed_leaves_no_process_and_no_data(tmp_path):
    codes = [SLEEPER.format(how="SIG_DFL"), SLEEPER.format(how="SIG_IGN")]
    private = tmp_path / "private"
    private.mkdir()
    (private / "train-0.jsonl").write_text("a client's own text")
    code = RUN.format(keeper=flower_keeper.__file__, private=str(private), codes=codes)
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    lines = [run.stdout.readline().strip() for _ in range(3)]
    assert lines[2] == "ready"
    children = [int(line) for line in lines[:2]]
    assert all(map(alive, children))
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    end = time.monotonic() + 30.0
    while (private.exists() or any(map(alive, children))) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, children))
    assert not private.exists()


@pytest.mark.processes
def test_the_private_folder_is_the_users_alone_and_goes_with_the_block(tmp_path):
    with FlowerProcesses(tmp_path / "logs") as processes:
        private = processes.private
        assert private.stat().st_mode & 0o077 == 0
        with processes.relay() as mail:
            assert mail.path.parent == private
        assert processes.trouble() == ""
    assert not private.exists()
