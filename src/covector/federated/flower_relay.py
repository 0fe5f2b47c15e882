"""Relay: a Flower Grid for a server that lives in another process of the same machine.

Flower starts a ServerApp as a process of its own. The process of a run has the model, the journal and whoever
watches, so the ServerApp only relays: it connects to a Unix socket of the run, whose folder is the user's alone,
and does what it is told until the socket is closed. Requests and answers are JSON after a length of four bytes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covector.errors import ProtocolError, require_extra
from covector.federated.flower_mail import GridMail, Letter, Mail, Reply, Value

if TYPE_CHECKING:
    from flwr.serverapp import Grid, ServerApp

__all__ = ["RelayedMail", "relay_app", "serve"]

_LENGTH = struct.Struct("<I")


class RelayedMail(Mail):
    """Mail through a relay that connects to a socket of this process.

    Args:
        path: where the socket is made; its folder should be open to this user only.
        trouble: called while waiting; a text that it returns says why nobody will come, and is raised.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RelayedMail(Path(folder) / "relay") as mail:
    ...         mail.path.is_socket()
    True
    """

    def __init__(self, path: Path, trouble: Callable[[], str] = lambda: "") -> None:
        self.path = path
        self.trouble = trouble
        self._near: socket.socket | None = None
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind(str(path))
        self._door.listen(1)

    def __enter__(self) -> RelayedMail:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, seconds: float = 300.0) -> None:
        """Wait for the relay.

        Raises:
            ProtocolError: it does not come in time, or cannot come.
        """
        end = time.monotonic() + seconds
        while not select.select([self._door], [], [], 0.2)[0]:
            if reason := self.trouble():
                raise ProtocolError(f"Flower did not start the run: {reason}")
            if time.monotonic() > end:
                raise ProtocolError(f"Flower started no ServerApp within {seconds} s")
        self._near, _ = self._door.accept()

    def close(self) -> None:
        """End the relay, which ends Flower's run."""
        for end in (self._near, self._door):
            if end is not None:
                end.close()
        self.path.unlink(missing_ok=True)

    def nodes(self) -> list[int]:
        return [int(node) for node in self._ask("nodes", None)]

    def post(self, letters: Sequence[Letter]) -> list[str]:
        if not letters:
            return []
        return [str(x) for x in self._ask("post", [{**asdict(x), "record": _packed(x.record)} for x in letters])]

    def collect(self, letters: Iterable[str]) -> list[Reply]:
        replies = self._ask("collect", list(letters))
        return [Reply(**{**row, "record": _unpacked(row["record"])}) for row in replies]

    def _ask(self, what: str, value: Any) -> Any:
        if self._near is None:
            raise ProtocolError("the relay is not connected; call connect first")
        try:
            _write(self._near, [what, value])
            answer = _read(self._near)
        except OSError as error:
            raise ProtocolError(f"the relay was lost: {error}; {self.trouble()}") from error
        if answer is None:
            raise ProtocolError(f"Flower's ServerApp ended before the run did; {self.trouble()}")
        problem, result = answer
        if problem:
            raise ProtocolError(f"Flower's Grid failed: {problem}")
        return result


def relay_app() -> ServerApp:
    """The ServerApp that relays; the run config's ``relay`` is the path of the socket.

    Raises:
        MissingExtraError: ``flwr`` is not installed.
    """
    require_extra("flwr", "federated")
    from flwr.app import Context
    from flwr.serverapp import ServerApp

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as far:
            far.connect(str(context.run_config["relay"]))
            serve(far, GridMail(grid))

    return app


def serve(far: socket.socket, mail: Mail) -> None:
    """Do what the other side of ``far`` asks for, until it closes."""
    with contextlib.suppress(ConnectionError):
        while (request := _read(far)) is not None:
            try:
                answer = ["", _done(mail, *request)]
            except Exception as error:  # whatever Flower raises is the other side's to report
                answer = [f"{type(error).__name__}: {error}", None]
            _write(far, answer)


def _done(mail: Mail, what: str, value: Any) -> Any:
    if what == "nodes":
        return mail.nodes()
    if what == "post":
        return mail.post([Letter(**{**row, "record": _unpacked(row["record"])}) for row in value])
    return [{**asdict(reply), "record": _packed(reply.record)} for reply in mail.collect(value)]


def _packed(record: dict[str, Value] | None) -> Any:
    if record is None:
        return None
    return {k: [v] if isinstance(v, str) else base64.b64encode(v).decode() for k, v in record.items()}


def _unpacked(record: Any) -> Any:
    if record is None:
        return None
    return {k: v[0] if isinstance(v, list) else base64.b64decode(v) for k, v in record.items()}


def _write(end: socket.socket, value: Any) -> None:
    data = json.dumps(value).encode()
    end.sendall(_LENGTH.pack(len(data)) + data)


def _read(end: socket.socket) -> Any:
    """The next value, ``None`` where the other side has closed."""
    head = _exactly(end, _LENGTH.size)
    data = _exactly(end, _LENGTH.unpack(head)[0]) if head else b""
    return json.loads(data) if data else None


def _exactly(end: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = end.recv(count - len(parts))
        if not part:
            return b""
        parts += part
    return bytes(parts)
