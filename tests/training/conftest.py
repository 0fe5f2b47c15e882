import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from covector import Objective


@pytest.fixture
def make_problem():
    """A small classifier with dropout and batch normalization, and a seeded shuffling loader of 7 batches a pass."""

    def make(dropout=0.0, norm=False, generator=True, workers=0):
        torch.manual_seed(0)
        layers = [nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Tanh(), nn.Dropout(dropout)]
        objective = Objective(nn.Sequential(*layers, nn.Linear(8, 3)), F.cross_entropy)
        inputs = torch.randn(56, 4)
        data = TensorDataset(inputs, (inputs @ torch.randn(4, 3)).argmax(1))
        own = torch.Generator().manual_seed(5) if generator else None
        return objective, DataLoader(data, batch_size=8, shuffle=True, generator=own, num_workers=workers)

    return make


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    monkeypatch.setattr("covector.training.loop.on_terminal", lambda: False)
