import pytest
import torch
from torch import nn
from torch.nn import functional as F

from covector import Objective
from covector.errors import ArgumentError, CompositionError, MismatchError, UnsupportedError


class Mapped(nn.Module):
    """Takes keyword arguments and returns an object with .loss, as Hugging Face models do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, inputs, labels):
        logits = self.layer(inputs)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)), (torch.randn(6, 3), torch.randint(0, 2, (6,)))


def test_pair_batches_give_the_loss_of_outputs_and_targets(pair):
    module, batch = pair
    assert torch.equal(Objective(module, F.cross_entropy)(batch), F.cross_entropy(module(batch[0]), batch[1]))


def test_mapping_batches_use_the_loss_of_the_outputs():
    torch.manual_seed(0)
    module, batch = Mapped(), {"inputs": torch.randn(5, 3), "labels": torch.tensor([0, 1, 0, 1, 1])}
    assert torch.equal(Objective(module)(batch), module(**batch)["loss"])
    custom = Objective(module, lambda outputs, batch: F.cross_entropy(outputs["logits"], batch["labels"]))
    assert torch.equal(custom(batch), module(**batch)["loss"])


def test_other_parameters_do_not_touch_the_live_ones(pair):
    module, batch = pair
    objective = Objective(module, F.cross_entropy)
    before = objective(batch)
    moved = {name: p.detach() + 1.0 for name, p in objective.params.items()}
    assert objective(batch, moved) != before
    assert torch.equal(objective(batch), before)


def test_per_example_losses_average_to_the_loss_and_equal_single_batches(pair):
    module, batch = pair
    objective = Objective(module, F.cross_entropy)
    losses = objective.per_example(batch)
    singles = torch.stack([objective((batch[0][i : i + 1], batch[1][i : i + 1])) for i in range(6)])
    assert torch.allclose(losses, singles, atol=1e-6)
    assert torch.allclose(losses.mean(), objective(batch), atol=1e-6)


def test_per_example_splits_mappings():
    torch.manual_seed(0)
    batch = {"inputs": torch.randn(5, 3), "labels": torch.tensor([0, 1, 0, 1, 1])}
    objective = Objective(Mapped())
    assert torch.allclose(objective.per_example(batch).mean(), objective(batch), atol=1e-6)
    assert objective.size(batch) == 5


def test_trainable_selects_by_name_or_predicate_and_skips_frozen(pair):
    module, _ = pair
    module[0].weight.requires_grad_(False)
    assert list(Objective(module, F.cross_entropy).params) == ["0.bias", "2.weight", "2.bias"]
    assert list(Objective(module, F.cross_entropy, ["2.bias"]).params) == ["2.bias"]
    assert list(Objective(module, F.cross_entropy, lambda name: "weight" in name).params) == ["0.weight", "2.weight"]


def test_a_prefix_is_stripped_and_put_back(pair):
    module, batch = pair
    wrapped = nn.ModuleDict({"model": module})
    wrapped.forward = lambda x: module(x)
    objective = Objective(wrapped, F.cross_entropy, prefix="model.")
    assert next(iter(objective.params)) == "0.weight"
    same = {name: p.detach().clone() for name, p in objective.params.items()}
    assert torch.equal(objective(batch, same), objective(batch))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m, b: Objective(m, F.cross_entropy, ["nope"]), ArgumentError, "nope"),
        (lambda m, b: Objective(m.requires_grad_(False), F.cross_entropy), ArgumentError, "requires_grad"),
        (lambda m, b: Objective(m.to(torch.complex64), F.cross_entropy), UnsupportedError, "complex64"),
        (lambda m, b: Objective(m)(b), ArgumentError, "loss"),
        (lambda m, b: Objective(m, F.cross_entropy)(b[0]), ArgumentError, "batch="),
        (lambda m, b: Objective(m, F.cross_entropy)(b, {"zzz": torch.zeros(1)}), MismatchError, "zzz"),
        (
            lambda m, b: Objective.from_function(lambda p, b: p["x"].sum(), {"x": torch.ones(1)}).outputs(b),
            CompositionError,
            "function",
        ),
    ],
)
def test_wrong_use_is_refused_by_name(pair, make, error, message):
    with pytest.raises(error, match=message):
        make(*pair)


def test_tied_parameters_appear_once():
    embedding, head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    assert list(Objective(nn.Sequential(embedding, head), F.cross_entropy).params) == ["0.weight"]
