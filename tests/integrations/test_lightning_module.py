"""Lightning with an estimator: with Backprop it is plain Lightning, with ZerothOrder it trains, saves and resumes."""

import warnings

import lightning
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from covector import Backprop, ZerothOrder
from covector.errors import CompositionError, MismatchError, UnsupportedError
from covector.integrations.lightning import EstimatorModule
from covector.training import CarrierSGD
from covector.trees import clone, digest, flatten


class Net(lightning.LightningModule):
    def __init__(self, dropout=0.0, optimizer="adamw", lr=1e-2):
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        layers = [torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(8, 3)]
        self.net = torch.nn.Sequential(*layers)
        self.seen = []

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        loss = F.cross_entropy(self.net(inputs), targets)
        self.log("train_loss", loss)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.seen.append(outputs["loss"].item())

    def configure_optimizers(self):
        named, lr = dict(self.named_parameters()), self.hparams.lr
        made = {
            "adamw": lambda: torch.optim.AdamW(named.values(), lr=lr),
            "sgd": lambda: torch.optim.SGD(named.values(), lr=lr),
            "carrier": lambda: CarrierSGD(named, lr=lr),
        }[self.hparams.optimizer]()
        return {"optimizer": made, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(made, 0.9)}


class Estimated(EstimatorModule, Net):
    pass


def batches():
    torch.manual_seed(1)
    inputs = torch.randn(48, 4)
    data = TensorDataset(inputs, (inputs @ torch.randn(4, 3)).argmax(1))
    return DataLoader(data, batch_size=8)


def fit(module, out, ckpt_path=None, **options):
    defaults = {
        "max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "default_root_dir": out,
        "enable_model_summary": False, "enable_checkpointing": False,
    }  # fmt: skip
    trainer = lightning.Trainer(**{**defaults, **options})
    torch.manual_seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, batches(), ckpt_path=ckpt_path)
    return trainer


OPTIONS = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 2},
    "clipped": {"gradient_clip_val": 0.05},
    "clipped by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "bf16": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_backprop_is_plain_lightning_bit_for_bit(tmp_path, name):
    plain, ours = Net(dropout=0.2), Estimated(dropout=0.2)
    fit(plain, tmp_path, **OPTIONS[name])
    trainer = fit(ours, tmp_path, **OPTIONS[name])
    factor = OPTIONS[name].get("accumulate_grad_batches", 1)
    assert ours.seen == plain.seen
    assert trainer.callback_metrics["train_loss"].item() == pytest.approx(ours.seen[-1] * factor)
    assert digest(dict(ours.named_parameters())) == digest(dict(plain.named_parameters()))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "carrier"])
def test_mezo_in_lightning_lowers_the_loss(tmp_path, optimizer):
    module = Estimated(optimizer=optimizer, lr=0.05, estimator=ZerothOrder(queries=4, seed=1))
    fit(module, tmp_path, max_epochs=10)
    assert sum(module.seen[-6:]) < 0.9 * sum(module.seen[:6])


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_the_carrier_takes_the_steps_of_sgd(tmp_path, accumulate, clip):
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": clip}
    modules = [Estimated(optimizer=name, estimator=ZerothOrder(seed=3)) for name in ("sgd", "carrier")]
    for module in modules:
        fit(module, tmp_path, **options)
    assert modules[0].seen == pytest.approx(modules[1].seen, abs=1e-5)
    dense, carried = (flatten(dict(module.named_parameters())) for module in modules)
    assert torch.allclose(dense, carried, atol=1e-5)
    assert not torch.equal(carried, flatten(dict(Net().named_parameters())))


def test_the_carrier_writes_no_grad(tmp_path):
    class Watching(Estimated):
        def on_before_optimizer_step(self, optimizer):
            self.grads = [p.grad for p in self.parameters()]

    module = Watching(optimizer="carrier", estimator=ZerothOrder())
    fit(module, tmp_path, limit_train_batches=2)
    assert module.grads == [None] * 4


@pytest.mark.parametrize("optimizer", ["adamw", "carrier"])
def test_a_resumed_fit_ends_with_the_same_bits(tmp_path, optimizer):
    make = lambda: Estimated(optimizer=optimizer, estimator=ZerothOrder(seed=5))  # noqa: E731
    straight, first, second = make(), make(), make()
    fit(straight, tmp_path, max_epochs=4)
    fit(first, tmp_path, max_epochs=2).save_checkpoint(tmp_path / "half.ckpt")
    fit(second, tmp_path, max_epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert first.seen + second.seen == straight.seen
    assert digest(dict(second.named_parameters())) == digest(dict(straight.named_parameters()))
    loaded = Estimated.load_from_checkpoint(tmp_path / "half.ckpt", estimator=ZerothOrder(seed=5))
    assert loaded.estimator.step == 12
    with pytest.raises(MismatchError, match="ZerothOrder in the checkpoint but Backprop now"):
        fit(Estimated(optimizer=optimizer, estimator=Backprop()), tmp_path, ckpt_path=tmp_path / "half.ckpt")


def test_hyperparameters_do_not_take_the_estimator(tmp_path):
    assert set(Estimated(estimator=ZerothOrder()).hparams) == {"dropout", "optimizer", "lr"}


def test_a_step_that_returns_a_dictionary_keeps_its_extras(tmp_path):
    class Dict(Net):
        def training_step(self, batch):
            loss = super().training_step(batch, 0)
            return {"loss": loss, "size": len(batch[0])}

        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.seen.append((outputs["loss"].item(), outputs["size"]))

    class Mine(EstimatorModule, Dict):
        pass

    plain, ours = Dict(), Mine()
    fit(plain, tmp_path, max_epochs=1)
    fit(ours, tmp_path, max_epochs=1)
    assert ours.seen == plain.seen


def test_what_cannot_work_is_refused_before_the_first_step(tmp_path):
    class Manual(Estimated):
        automatic_optimization = False

    class Two(Estimated):
        def configure_optimizers(self):
            return [torch.optim.SGD([p], lr=0.1) for p in self.parameters()][:2], []

    module = Manual()
    before = clone(dict(module.named_parameters()))
    with pytest.raises(CompositionError, match="automatic optimization and one optimizer"):
        fit(module, tmp_path)
    assert digest(before) == digest(dict(module.named_parameters()))
    options = {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}
    with pytest.raises(CompositionError, match="clipped by its norm"):
        fit(Estimated(optimizer="carrier", estimator=ZerothOrder()), tmp_path, **options)
    fake = Estimated()
    fake._trainer = type("Trainer", (), {"optimizers": [0], "world_size": 2})()
    with pytest.raises(UnsupportedError, match="devices=2"):
        fake.on_fit_start()
