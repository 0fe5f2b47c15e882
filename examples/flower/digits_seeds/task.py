"""What server and clients both need to know: the base model, the run and the data."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from covector import Objective, SketchPool
from covector.federated import RunHeader

TRAIN, BATCH = 1400, 32


def digits():
    """(inputs, targets) of all 1797 images, in an order that is the same everywhere."""
    inputs, targets = load_digits(return_X_y=True)
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    return torch.tensor(inputs / 16.0, dtype=torch.float32)[order], torch.tensor(targets)[order]


def base_model():
    """theta_0: every node builds it for itself; a large model would be loaded from a file each node has."""
    torch.manual_seed(0)
    return Objective(nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)), nn.functional.cross_entropy)


def run_header(objective, config):
    """The run: it depends on nothing but the base model and the run's configuration."""
    pool = SketchPool(key=1, size=1024)
    return RunHeader.kseed(
        objective.params, pool, lr=float(config["lr"]), local_steps=int(config["local-steps"]), key=7
    )


def batches_of(partition, partitions):
    """The batches of one client's own part of the training images."""
    inputs, targets = digits()
    mine = torch.arange(partition, TRAIN, partitions)
    return [(inputs[part], targets[part]) for part in mine.split(BATCH)]


def test_accuracy(objective):
    inputs, targets = digits()
    return (objective.outputs((inputs[TRAIN:], None)).argmax(1) == targets[TRAIN:]).float().mean().item()
