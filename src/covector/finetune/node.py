"""The client of a fine-tuning on a machine of its own: its model, its data, built from the run's settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from covector import language
from covector.errors import ArgumentError
from covector.federated import Client, Replica
from covector.federated.flower_client import node_name
from covector.finetune.federation import Federation, task_from
from covector.finetune.methods import make_clients
from covector.finetune.settings import Settings

if TYPE_CHECKING:
    from flwr.app import Context

__all__ = ["make_client"]


def make_client(context: Context) -> Client:
    """The client of a Flower node.

    Args:
        context: its node config has ``train``, a JSONL file of this client's training examples, and may have
            ``name``, ``model`` (a folder with the base model) and ``device``; its run config is what
            ``covector finetune --engine flower`` wrote: ``settings`` and ``task``.

    Raises:
        ArgumentError: the node config names no data.
        DataError: the data cannot be read.
    """
    node = context.node_config
    if "train" not in node:
        raise ArgumentError("train", None, "--node-config \"train='FILE.jsonl'\", this client's training examples")
    values = json.loads(str(context.run_config["settings"]))
    settings = Settings(**{**values, **{key: str(node[key]) for key in ("model", "device") if key in node}})
    model, tokenizer = language.load_model(settings.model, settings.dtype, settings.device)
    options = json.loads(str(context.run_config["task"]))
    examples = language.read_jsonl(str(node["train"]), options["shape"])[: settings.examples]
    task = task_from(options, tokenizer)
    name = node_name(context)
    federation = Federation(task, {name: examples}, {}, {}, options)
    return make_clients(settings, Replica(task.objective(model)), federation)[name]
