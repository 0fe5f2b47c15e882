"""One worker process of a swarm on scikit-learn's digits; prints JSON lines, waits for a line on stdin to start.

Started by test_tcp.py: ``python swarm_process.py '{"origin": 1, ...}'``.
"""

import asyncio
import json
import sys
import time


def load():
    import torch
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    inputs, targets = load_digits(return_X_y=True)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    inputs = torch.tensor(inputs / 16.0, dtype=torch.float32)[order]
    targets = torch.tensor(targets)[order]
    return (inputs[:900], targets[:900]), (inputs[900:], targets[900:])


def build(lr=0.05, key=1):
    """The run that every process builds for itself: base model, header and objective."""
    import torch

    from covector import Objective, SeedPool
    from covector.federated.swarm_header import SwarmHeader

    torch.manual_seed(0)
    objective = Objective(torch.nn.Linear(64, 10), torch.nn.functional.cross_entropy)
    return objective, SwarmHeader.of(objective.params, SeedPool(key=1, size=4096), lr, key=key)


def batch(train, origin, iteration, sample, size=450):
    """The batch of one sample of one worker, a function of its arguments."""
    import torch

    generator = torch.Generator().manual_seed(((origin + sample) * 100003 + iteration) % 2**31)
    index = torch.randint(0, len(train[1]), (size,), generator=generator)
    return train[0][index], train[1][index]


def accuracy(objective, test):
    return (objective.outputs(test).argmax(1) == test[1]).float().mean().item()


def say(**fields):
    print(json.dumps(fields), flush=True)


async def main(config):
    from covector import trees
    from covector.federated.swarm import Peer
    from covector.federated.swarm_membership import Timing
    from covector.federated.swarm_worker import Worker
    from covector.federated.tcp_run import run_peer

    train, test = load()
    objective, header = build()
    founders = {int(o): n for o, n in config["founders"].items()} if config.get("founders") else None
    timing = Timing(report=0.5, silence=20.0)
    peer = Peer(header, config["origin"], config["samples"], founders, config["iterations"], timing)
    worker = Worker(peer, objective)
    tls = contexts(config["tls"]) if config.get("tls") else (None, None)

    def batches(iteration):
        time.sleep(config.get("pace", 0.0))
        return [batch(train, peer.origin, iteration, sample) for sample in range(peer.samples)]

    def closed(iteration):
        say(iteration=iteration, digest=trees.digest(objective.params), members=len(peer.members))

    say(ready=True)
    peers = json.loads(sys.stdin.readline())
    report = await run_peer(
        worker,
        batches,
        peers=[tuple(address) for address in peers],
        port=config["port"],
        server_tls=tls[0],
        client_tls=tls[1],
        leave_after=config.get("leave_after"),
        on_iteration=closed,
    )
    say(
        done=True,
        digest=trees.digest(objective.params),
        ledger=peer.replica.ledger.digest(),
        accuracy=accuracy(objective, test),
        sent=report.sent,
        received=report.received,
        refused=report.refused,
        contributions=len(report.losses),
        iterations=report.iterations,
        diverged=peer.diverged,
    )


def contexts(certificate):
    """Mutual TLS with one self-signed certificate that both sides show and trust."""
    import ssl

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    for context in (server, client):
        context.load_cert_chain(certificate["cert"], certificate["key"])
        context.load_verify_locations(certificate["cert"])
        context.verify_mode = ssl.CERT_REQUIRED
    return server, client


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
