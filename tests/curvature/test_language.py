"""Models that are called by keyword and compute their own loss, as those of transformers do."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from covector.curvature import GaussNewton, Hessian, gram, per_example_norms
from covector.errors import UnsupportedError
from covector.objective import Objective

DOUBLE = torch.float64


class Model(nn.Module):
    """Next-token prediction; the last position of each sequence has no target."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(7, 5), nn.Linear(5, 5), nn.Linear(5, 7)

    def forward(self, input_ids, labels):
        logits = self.head(self.mix(self.embed(input_ids)).tanh().cumsum(1))
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(logits=logits, loss=loss)


def setting():
    torch.manual_seed(0)
    module, ids = Model().to(DOUBLE), torch.randint(0, 7, (4, 5))
    return module, {"input_ids": ids, "labels": ids}


def by_hand(module):
    """The same as a pair whose loss is of the outputs."""

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = module

        def forward(self, ids):
            return self.own(ids, ids).logits

    loss = lambda z, ids: F.cross_entropy(z[:, :-1].flatten(0, 1), ids[:, 1:].flatten())  # noqa: E731
    return Objective(Logits(), loss)


@pytest.mark.parametrize("backend", ["auto", "functional"])
def test_the_loss_of_the_outputs_is_taken_by_their_logits(backend):
    module, batch = setting()
    objective, pair = Objective(module), (batch["input_ids"], batch["input_ids"])
    for kind in (GaussNewton, Hessian):
        found = kind(objective, batch, backend=backend).dense()
        torch.testing.assert_close(found, kind(by_hand(module), pair).dense(), rtol=1e-9, atol=1e-12)


def test_mappings_have_grams_and_norms():
    module, batch = setting()
    objective = Objective(module)
    spectrum = torch.linalg.eigvalsh(gram(objective, batch, "gauss_newton"))
    expected = torch.linalg.eigvalsh(GaussNewton(objective, batch).dense())
    torch.testing.assert_close(spectrum[-30:], expected[-30:], rtol=1e-8, atol=1e-11)
    norms = []
    for i in range(4):
        own = objective({name: part[i : i + 1] for name, part in batch.items()})
        slopes = torch.autograd.grad(own, list(objective.params.values()))
        norms.append(torch.stack([g.norm() for g in slopes]).norm())
    torch.testing.assert_close(per_example_norms(objective, batch), torch.stack(norms))


def test_outputs_without_logits_are_refused_by_their_type():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x):
            return [self.layer(x), x]

    objective = Objective(Pair(), lambda z, t: z[0].square().mean())
    batch = (torch.ones(3, 2), torch.ones(3))
    assert Hessian(objective, batch).dense().shape == (3, 3)
    with pytest.raises(UnsupportedError, match="list"):
        GaussNewton(objective, batch) @ torch.ones(3)
