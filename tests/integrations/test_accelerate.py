"""What accelerate prepares goes into the loop as it is."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from covector import Backprop, Objective, ZerothOrder, train
from covector.training import CarrierSGD
from covector.trees import digest


def parts(optimizer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    inputs = torch.randn(32, 4)
    data = TensorDataset(inputs, (inputs @ torch.randn(4, 3)).argmax(1))
    loader = DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1))
    return model, optimizer(dict(model.named_parameters())), loader


@pytest.mark.parametrize("estimator", [Backprop, ZerothOrder])
@pytest.mark.parametrize(
    "optimizer",
    [lambda p: torch.optim.AdamW(p.values(), lr=1e-2), lambda p: CarrierSGD(p, lr=1e-2)],
    ids=["adamw", "carrier"],
)
def test_prepared_parts_train_like_the_plain_ones_and_resume(tmp_path, estimator, optimizer):
    model, made, loader = parts(optimizer)
    plain = train(Objective(model, F.cross_entropy), loader, optimizer=made, estimator=estimator(), steps=10)
    expected = digest(dict(model.named_parameters()))

    for steps in (6, 10):
        model, made, loader = Accelerator(cpu=True).prepare(*parts(optimizer))
        objective = Objective(model, F.cross_entropy)
        history = train(objective, loader, optimizer=made, estimator=estimator(), steps=steps, out=tmp_path)
    assert history.losses == pytest.approx(plain.losses, abs=1e-6)
    assert history.steps == 10
    assert digest(dict(model.named_parameters())) == expected
