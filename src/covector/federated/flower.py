"""The Flower engine: the same servers and clients as in one process, on Flower's SuperLink and SuperNodes.

``flower_apps`` gives the two apps that a Flower project names in its ``pyproject.toml``. What Flower carries are
the protocol's own messages, a few KB of bytes each; theta_0 never travels, each node loads it for itself. TLS,
authentication of nodes and deployment are Flower's (``flower-superlink --ssl-certfile ...``); see docs/engines.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from covector.errors import require_extra
from covector.federated.client import Client
from covector.federated.flower_client import NAME, FlowerClients, node_name
from covector.federated.flower_mail import RECORD
from covector.federated.flower_server import GridRounds
from covector.federated.inprocess import RoundMetrics, Run
from covector.federated.server import Server

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp

__all__ = ["client_app", "flower_apps", "server_app"]


def flower_apps(
    make_server: Callable[[Context], Server],
    make_client: Callable[[Context], Client],
    rounds: int,
    clients: int = 1,
    timeout: float = 3600.0,
    callbacks: Iterable[Callable[[RoundMetrics], None]] = (),
    on_end: Callable[[Server, Run, Context], None] | None = None,
) -> tuple[ServerApp, ClientApp]:
    """A Flower ServerApp and ClientApp that run ``rounds`` rounds of the protocol.

    Args:
        make_server: builds the server (its header fixes the run); with a journal it resumes.
        make_client: builds the client of the node whose context it gets; called once a process, which may be
            once a message.
        rounds: total number of rounds.
        clients: nodes to wait for before the first round.
        timeout: seconds until a round is closed without those that did not answer.
        callbacks: called with the metrics of every round.
        on_end: called with the server, the metrics and the context when the last round is closed.

    Returns:
        ``(server_app, client_app)``. A project that keeps data away from the server builds each half by
        :func:`server_app` and :func:`client_app` in its own module.

    Raises:
        MissingExtraError: ``flwr`` is not installed.
    """
    return server_app(make_server, rounds, clients, timeout, callbacks, on_end), client_app(make_client)


def server_app(
    make_server: Callable[[Context], Server],
    rounds: int | Callable[[Context], int],
    clients: int | Callable[[Context], int] = 1,
    timeout: float = 3600.0,
    callbacks: Iterable[Callable[[RoundMetrics], None]] = (),
    on_end: Callable[[Server, Run, Context], None] | None = None,
) -> ServerApp:
    """The server half of :func:`flower_apps`; ``rounds`` and ``clients`` may be read from the context's run config."""
    require_extra("flwr", "federated")
    from flwr.serverapp import ServerApp

    app, listeners = ServerApp(), list(callbacks)

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        server = make_server(context)
        wanted = clients(context) if callable(clients) else clients
        run = GridRounds(grid, server, wanted, timeout).run(rounds(context) if callable(rounds) else rounds, listeners)
        if on_end is not None:
            on_end(server, run, context)

    return app


def client_app(make_client: Callable[[Context], Client], keep: int = 4) -> ClientApp:
    """The client half of :func:`flower_apps`; ``keep`` clients stay in one process."""
    require_extra("flwr", "federated")
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp

    app, kept = ClientApp(), FlowerClients(make_client, keep)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({RECORD: kept.answer(message, context)}), reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return Message(RecordDict({RECORD: ConfigRecord({NAME: node_name(context)})}), reply_to=message)

    return app
