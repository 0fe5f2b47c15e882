"""The ServerApp: adds up integers; the model is only needed to look at it in the end."""

import json
from pathlib import Path

from covector import trees
from covector.federated import KSeedServer
from covector.federated.flower import server_app
from digits_seeds.task import base_model, run_header, test_accuracy


def make_server(context):
    return KSeedServer(run_header(base_model(), context.run_config))


def show(metrics):
    up = {name: traffic.up for name, traffic in metrics.traffic.items()}
    down = {name: traffic.down for name, traffic in metrics.traffic.items()}
    print(f"round {metrics.round}: loss {metrics.loss:.4f}, bytes up {up}, down {down}", flush=True)


def on_end(server, run, context):
    objective = base_model()
    server.ledger.materialize(trees.clone(objective.params), out=objective.params)
    result = {
        "ledger": server.ledger.digest(),
        "parameters": trees.digest(objective.params),
        "accuracy": test_accuracy(objective),
        "rounds": [{name: [t.up, t.down] for name, t in metrics.traffic.items()} for metrics in run.rounds],
        "events": [str(event) for event in server.report],
    }
    print(json.dumps(result), flush=True)
    if context.run_config["out"]:
        Path(context.run_config["out"]).write_text(json.dumps(result))


app = server_app(
    make_server,
    rounds=lambda context: int(context.run_config["rounds"]),
    clients=lambda context: int(context.run_config["clients"]),
    timeout=600.0,
    callbacks=[show],
    on_end=on_end,
)
