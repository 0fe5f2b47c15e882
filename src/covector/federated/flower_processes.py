"""Flower's programs as processes of this machine: a SuperLink, SuperNodes, and the run of an app on them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from covector.errors import ProtocolError, require_extra
from covector.federated.flower_relay import RelayedMail

__all__ = ["FlowerProcesses", "free_ports", "write_app"]

_PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "covector-run"
version = "1.0.0"
description = "A run of Covector on Flower"
license = {{ file = "LICENSE" }}
dependencies = ["flwr>={version}"]

[tool.flwr.app]
publisher = "covector"
fab-format-version = 1
flwr-version-target = "{version}"

[tool.flwr.app.components]
serverapp = "covector_run.server:app"
clientapp = "covector_run.client:app"

[tool.flwr.app.config]
{config}
"""
_SERVER = '''"""Relays to the process of the run."""

from covector.federated.flower_relay import relay_app

app = relay_app()
'''
_CLIENT = '''"""One client: its own model, its own data."""

from covector.federated.flower import client_app
from {module} import {name}

app = client_app({name})
'''


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now.

    >>> len(set(free_ports(3)))
    3
    """
    with contextlib.ExitStack() as held:
        doors = [held.enter_context(socket.socket()) for _ in range(count)]
        for door in doors:
            door.bind(("127.0.0.1", 0))
        return [int(door.getsockname()[1]) for door in doors]


def write_app(folder: Path, make_client: str, config: Mapping[str, str | int | float]) -> None:
    """Write a Flower app whose ServerApp relays and whose ClientApp is built by ``make_client``.

    Args:
        folder: where; made if missing.
        make_client: ``"module:function"`` of the installed package, a function of the node's context.
        config: the run config; it needs ``relay``, the path of the socket.
    """
    require_extra("flwr", "federated")
    import importlib.metadata

    module, _, name = make_client.partition(":")
    package = folder / "covector_run"
    package.mkdir(parents=True)
    values = "\n".join(f"{key} = {_toml(value)}" for key, value in config.items())
    version = importlib.metadata.version("flwr")
    (folder / "pyproject.toml").write_text(_PROJECT.format(version=version, config=values), encoding="utf-8")
    (folder / "LICENSE").write_text("Apache-2.0\n", encoding="utf-8")
    (package / "__init__.py").write_text('"""A run of Covector."""\n', encoding="utf-8")
    (package / "server.py").write_text(_SERVER, encoding="utf-8")
    (package / "client.py").write_text(_CLIENT.format(module=module, name=name), encoding="utf-8")


def _toml(value: str | int | float) -> str:
    """A value as TOML: its basic strings have JSON's escapes, but no surrogates."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


class FlowerProcesses:
    """Starts Flower's programs and ends them all, when the block is left or this process dies.

    Args:
        logs: folder for one log a program.

    Attributes:
        private: a folder that only this user may enter, deleted in the end: Flower's home, the app, what nodes get.

    Raises:
        MissingExtraError: ``flwr`` is not installed.
    """

    def __init__(self, logs: Path) -> None:
        require_extra("flwr", "federated")
        self.logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        self.private = Path(tempfile.mkdtemp(prefix="covector-"))
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        keeper = [sys.executable, str(Path(__file__).with_name("flower_keeper.py")), str(self.private)]
        self._keeper = subprocess.Popen(keeper, stdin=subprocess.PIPE)

    def __enter__(self) -> FlowerProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every program and wait for it."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        while self._keeper.poll() is None:  # a program that has ended exists for the keeper until it is waited for
            self.trouble()
            time.sleep(0.05)
        for process in self.started.values():
            process.wait()

    def superlink(self) -> str:
        """Start a SuperLink on a free port of the loopback interface; returns its address."""
        (port,) = free_ports(1)
        options = ["--insecure", "--disable-runtime-dependency-installation", "--port", str(port)]
        self._start("superlink", "flower-superlink", *options)
        self._wait_for(port, 120.0)
        return f"127.0.0.1:{port}"

    def supernodes(self, superlink: str, configs: Mapping[str, Mapping[str, str]]) -> None:
        """Start a SuperNode for each client, with what its ``--node-config`` shall say."""
        ports = free_ports(len(configs))
        for number, (port, config) in enumerate(zip(ports, configs.values(), strict=True)):
            file = self.private / f"node-{number}.toml"
            file.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in config.items()), encoding="utf-8")
            place = ["--superlink", superlink, "--port", str(port), "--node-config", str(file)]
            self._start(f"supernode-{number}", "flower-supernode", "--insecure", *place)

    def run(self, app: Path, superlink: str, root_certificates: Path | None = None) -> None:
        """Have a SuperLink run the app."""
        home = self.private / "home"
        home.mkdir(exist_ok=True)
        trust = (
            "insecure = true" if root_certificates is None else f"root-certificates = {_toml(str(root_certificates))}"
        )
        text = f'[superlink]\ndefault = "run"\n[superlink.run]\naddress = {_toml(superlink)}\n{trust}\n'
        (home / "config.toml").write_text(text, encoding="utf-8")
        self._start("run", "flwr", "run", str(app), "run", "--stream")

    def relay(self) -> RelayedMail:
        """The mail whose other end is the app's ServerApp."""
        return RelayedMail(self.private / "relay", self.trouble)

    def trouble(self) -> str:
        """What the programs that have ended said last, ``""`` while all are alive."""
        ended = [name for name, process in self.started.items() if process.poll() is not None]
        return "; ".join(f"{name} ended with {self.started[name].returncode}: {self._tail(name)}" for name in ended)

    def _tail(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-1500:].strip()

    def _start(self, name: str, program: str, *arguments: str) -> None:
        places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        found = shutil.which(program, path=places)
        if found is None:
            raise ProtocolError(f"flwr is installed, but its program {program!r} is not on the path")
        here = str(Path(__file__).parents[2])
        environment = {
            **os.environ,
            "PATH": places,
            "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])),
            "FLWR_HOME": str(self.private / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
        }
        with (self.logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [found, *arguments], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self.started[name] = process
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{process.pid}\n".encode())
        self._keeper.stdin.flush()

    def _wait_for(self, port: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            with socket.socket() as door:
                if door.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if (reason := self.trouble()) or time.monotonic() > end:
                raise ProtocolError(f"the SuperLink does not listen on port {port}: {reason or 'it took too long'}")
            time.sleep(0.2)
