"""The ClientApp: holds the data, measures slopes, sends a byte for each."""

from covector.federated import KSeedClient
from covector.federated.flower import client_app
from digits_seeds.task import base_model, batches_of


def make_client(context):
    config = context.node_config
    return KSeedClient(base_model(), batches_of(int(config["partition-id"]), int(config["num-partitions"])))


app = client_app(make_client)
