"""The example app on a real SuperLink and SuperNodes, as separate processes on loopback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("flwr")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flower"
PROGRAMS = Path(sys.executable).parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, seconds=90.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"nothing listens on port {port} after {seconds} s")


class CountingProxy:
    """Forwards TCP connections to a port and counts the bytes each way."""

    def __init__(self, target):
        self.target, self.up, self.down = target, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            threading.Thread(target=self._pump, args=(near, far, "up"), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, "down"), daemon=True).start()

    def _pump(self, source, sink, way):
        try:
            while data := source.recv(65536):
                setattr(self, way, getattr(self, way) + len(data))
                sink.sendall(data)
        except OSError:
            return
        finally:
            source.close()
            sink.close()


class Deployment:
    """SuperLink, one proxy and one SuperNode for each client, and the configuration of ``flwr run``."""

    def __init__(self, folder, clients, certificate=None):
        self.folder, self.started = folder, []
        self.environment = {
            **os.environ,
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_HOME": str(folder / "home"),
        }
        port = free_port()
        link_tls = node_tls = ["--insecure"]
        trust = "insecure = true"
        if certificate is not None:
            cert, key = certificate
            link_tls = ["--ssl-certfile", cert, "--ssl-keyfile", key, "--ssl-ca-certfile", cert]
            node_tls = ["--root-certificates", cert, *link_tls]
            trust = f'root-certificates = "{cert}"'
        (folder / "home").mkdir()
        address = f'address = "127.0.0.1:{port}"'
        config = f'[superlink]\ndefault = "local"\n[superlink.local]\n{address}\n{trust}\n'
        (folder / "home" / "config.toml").write_text(config)
        self._start("flower-superlink", *link_tls, "--disable-runtime-dependency-installation", "--port", str(port))
        wait_for(port)
        self.proxies = [CountingProxy(port) for _ in range(clients)]
        for partition, proxy in enumerate(self.proxies):
            place = f"partition-id={partition} num-partitions={clients}"
            link = ["--superlink", f"127.0.0.1:{proxy.port}", "--port", str(free_port())]
            self._start("flower-supernode", *node_tls, *link, "--node-config", place)

    def _start(self, program, *arguments):
        log = open(self.folder / f"{program}-{len(self.started)}.log", "w")  # noqa: SIM115
        self.started.append(
            subprocess.Popen(
                [str(PROGRAMS / program), *arguments],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )

    def run(self, seconds, **config):
        """``flwr run`` the example to its end; returns what its server wrote."""
        out = self.folder / "out.json"
        settings = " ".join(f"{name}={value}" for name, value in config.items()) + f" out='{out}'"
        command = [str(PROGRAMS / "flwr"), "run", str(EXAMPLE), "local", "--stream", "--run-config", settings]
        shown = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=seconds)
        assert out.exists(), shown.stdout[-3000:] + shown.stderr[-2000:] + self.logs()
        return json.loads(out.read_text())

    def logs(self):
        return "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in self.folder.glob("*.log"))

    def stop(self):
        for process in reversed(self.started):
            for how in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, how)
                except ProcessLookupError:
                    break
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    continue
        for proxy in self.proxies if hasattr(self, "proxies") else ():
            proxy.listener.close()


@pytest.fixture
def deploy(tmp_path):
    made = []

    def start(clients, certificate=None):
        made.append(Deployment.__new__(Deployment))
        made[-1].__init__(tmp_path, clients, certificate)
        return made[-1]

    yield start
    for deployment in made:
        deployment.stop()


def embedded(monkeypatch, config):
    """The example's server and clients in this process."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from digits_seeds import task

    from covector.federated import KSeedClient, KSeedServer, run

    clients = config["clients"]
    server = KSeedServer(task.run_header(task.base_model(), config))
    parts = {f"client-{i}": KSeedClient(task.base_model(), task.batches_of(i, clients)) for i in range(clients)}
    return server, run(server, parts, config["rounds"])


@pytest.mark.processes
@pytest.mark.slow
def test_a_deployment_ends_with_the_ledger_of_the_embedded_engine(deploy, monkeypatch):
    config = {"rounds": 3, "clients": 2, "local-steps": 20, "lr": 0.02}
    deployment = deploy(clients=2)
    result = deployment.run(500, **config)
    crossed = [(proxy.up, proxy.down) for proxy in deployment.proxies]

    server, metrics = embedded(monkeypatch, config)
    assert result["ledger"] == server.ledger.digest()
    assert result["events"] == []
    payload = [{name: [t.up, t.down] for name, t in m.traffic.items()} for m in metrics.rounds]
    assert result["rounds"] == payload
    total = sum(up + down for traffic in payload for up, down in traffic.values())
    # Flower's own requests, polling and the app bundle are far above the payload; theta_0 is not among them
    assert total < sum(up + down for up, down in crossed) < 400_000
    print(json.dumps({"payload": payload, "crossed": crossed}))


def certificate(folder):
    """A self-signed certificate for 127.0.0.1."""
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", key, "-out", cert]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return cert, key


@pytest.mark.processes
@pytest.mark.slow
def test_a_deployment_over_tls(deploy, monkeypatch, tmp_path):
    config = {"rounds": 1, "clients": 1, "local-steps": 5, "lr": 0.02}
    deployment = deploy(clients=1, certificate=certificate(tmp_path))
    result = deployment.run(400, **config)
    server, _ = embedded(monkeypatch, config)
    assert result["ledger"] == server.ledger.digest()


def test_the_example_names_no_dependency_that_a_runtime_would_fetch():
    text = (EXAMPLE / "pyproject.toml").read_text()
    (listed,) = re.findall(r"^dependencies = \[(.*)\]", text, re.MULTILINE)
    assert re.findall(r'"([a-z]+)', listed) == ["flwr"]
    assert 'license = { file = "LICENSE" }' in text
    assert (EXAMPLE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
