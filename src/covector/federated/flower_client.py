"""The client half of the Flower engine: one Covector client behind a ClientApp's handlers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from covector.errors import CovectorError
from covector.federated.client import Client
from covector.federated.flower_mail import RECORD, entry

if TYPE_CHECKING:
    from flwr.app import ConfigRecord, Context, Message

__all__ = ["FlowerClients", "node_name"]

MESSAGE, ERROR, NAME, STATE = "message", "error", "name", "state"


def node_name(context: Context) -> str:
    """The client's name: ``name`` or ``partition-id`` of the SuperNode's ``--node-config``, else its node id.

    Names, not node ids, enter the run: a node that connects again under the same name is the same client, and a
    run can be repeated.
    """
    config = context.node_config
    if "name" in config:
        return str(config["name"])
    if "partition-id" in config:
        return f"client-{config['partition-id']}"
    return f"node-{context.node_id}"


class FlowerClients:
    """Builds, keeps and restores the clients of the nodes that this process serves.

    A SuperNode may start a fresh process for every message, so what a client knows of the run (header, round and
    ledger: about 16 KB for a sketch of 4096 numbers) is kept in ``context.state``, which stays on the node. What
    is expensive to build stays in this process for as long as the process lives.

    Args:
        make_client: ``make_client(context) -> Client``, called once a process and node.
        keep: clients kept in one process (a simulation serves many nodes by one process).
    """

    def __init__(self, make_client: Callable[[Context], Client], keep: int = 4) -> None:
        self.make_client = make_client
        self.keep = keep
        self._clients: OrderedDict[tuple[int, int], Client] = OrderedDict()

    def answer(self, message: Message, context: Context) -> ConfigRecord:
        """The record that replies to a TRAIN message."""
        from flwr.app import ConfigRecord

        try:
            client = self._client(context)
            answer = client.handle(entry(message.content.config_records.get(RECORD), MESSAGE, bytes))
        except CovectorError as error:
            return ConfigRecord({ERROR: f"{type(error).__name__}: {error}"})
        context.state[RECORD] = ConfigRecord({STATE: client.state_bytes()})
        return ConfigRecord({MESSAGE: answer})

    def _client(self, context: Context) -> Client:
        place = (context.run_id, context.node_id)
        client = self._clients.pop(place, None)
        if client is None:
            client = self.make_client(context)
            if RECORD in context.state:
                client.load_state_bytes(entry(context.state.config_records.get(RECORD), STATE, bytes))
        self._clients[place] = client
        while len(self._clients) > self.keep:
            self._clients.popitem(last=False)
        return client
