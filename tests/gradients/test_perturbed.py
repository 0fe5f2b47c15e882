"""Perturbed evaluation against the oracle: the same module with its parameters overwritten."""

import copy

import pytest
import torch
from torch import nn

from covector import Dense, LowRankDirections, Perturbed, Seeded, Sketch
from covector.gradients import perturbed as perturbed_module

SCALE = 2.0**-4


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, 8)
        self.head = nn.Linear(8, 40, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.embedding(tokens))


class Transposed(nn.Module):
    """Uses a parameter through views and attribute access, as GPT-2's Conv1D and hand-written layers do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight) + x @ self.weight.T.t() + (x @ self.weight.transpose(0, 1).t())


def modules():
    torch.manual_seed(0)
    return {
        "mlp": (nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(5, 6)),
        "cnn": (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2)),
            torch.randn(2, 3, 6, 6),
        ),
        "lstm": (nn.LSTM(4, 5, batch_first=True), torch.randn(2, 3, 4)),
        "transformer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 5, 8)),
        "tied": (Tied(), torch.randint(0, 40, (2, 3))),
        "transposed": (Transposed(), torch.randn(5, 6)),
    }


def directions(params):
    torch.manual_seed(1)
    return {
        "dense": Dense({name: torch.randn_like(p) for name, p in params.items()}),
        "seeded": Seeded([3, 4], [1.0, -0.5]),
        "sketch": Sketch(7, torch.randn(16)),
        "lowrank": LowRankDirections(rank=2).sample(5, 0, params),
    }


def overwritten(module, direction):
    twin = copy.deepcopy(module)
    direction.add_to_(dict(twin.named_parameters()), SCALE)
    return twin


def first(outputs):
    return outputs[0] if isinstance(outputs, tuple) else outputs


@pytest.mark.parametrize("kind", ["dense", "seeded", "sketch", "lowrank"])
@pytest.mark.parametrize("name", list(modules()))
def test_perturbed_evaluation_equals_an_overwritten_module(name, kind):
    module, inputs = modules()[name]
    module.eval()
    params = dict(module.named_parameters())
    before = {key: p.detach().clone() for key, p in params.items()}
    direction = directions(params)[kind]
    with torch.no_grad():
        expected = first(overwritten(module, direction)(inputs))
        with Perturbed(params, direction, SCALE):
            seen = first(module(inputs))
        plain = first(module(inputs))
    assert torch.allclose(seen, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain, expected, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(p, before[key]) for key, p in params.items())


def test_large_matrices_are_worked_off_in_blocks_of_rows(monkeypatch):
    monkeypatch.setattr(perturbed_module, "_BLOCK_BYTES", 4 * 8 * 7)
    module, tokens = modules()["tied"]
    params = dict(module.named_parameters())
    direction = directions(params)["seeded"]
    with torch.no_grad():
        expected = overwritten(module, direction)(tokens)
        with Perturbed(params, direction, SCALE):
            assert torch.allclose(module(tokens), expected, rtol=1e-5, atol=1e-6)


def test_only_the_named_parameters_are_perturbed():
    module, inputs = modules()["mlp"]
    some = {"0.weight": module[0].weight}
    direction = Seeded([3], [1.0])
    twin = copy.deepcopy(module)
    direction.add_to_({"0.weight": twin[0].weight}, SCALE)
    with torch.no_grad(), Perturbed(some, direction, SCALE):
        seen = module(inputs)
    assert torch.equal(seen, twin(inputs))
