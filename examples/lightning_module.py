"""Any estimator in Lightning: the same module trained by backpropagation and by forward passes only.

python examples/lightning_module.py --epochs 5
"""

from __future__ import annotations

import argparse

import lightning
import torch
from torch import nn

from covector import Backprop, ZerothOrder, data
from covector.integrations.lightning import EstimatorModule


class Digits(lightning.LightningModule):
    """An ordinary Lightning module."""

    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def test_step(self, batch, batch_idx):
        images, labels = batch
        self.log("accuracy", (self.net(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class EstimatedDigits(EstimatorModule, Digits):
    """The same with an estimator: this line is all that changes."""


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", default="runs/lightning")
    given = parser.parse_args(arguments)
    digits = data.load("digits")
    accuracy = {}
    for name, estimator, lr in [
        ("backprop", Backprop(), 5e-3),
        ("zeroth order", ZerothOrder(queries=16, seed=1), 5e-3),
    ]:
        torch.manual_seed(0)
        module = EstimatedDigits(lr, estimator=estimator)
        trainer = lightning.Trainer(
            max_epochs=given.epochs, accelerator="cpu", default_root_dir=given.out, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
        )  # fmt: skip
        trainer.fit(module, digits.loader("train", batch_size=32, shuffle=True))
        accuracy[name] = trainer.test(module, digits.loader("test"), verbose=False)[0]["accuracy"]
        print(f"{name:13s} test accuracy {accuracy[name]:.3f} after {given.epochs} epochs")
    return accuracy


if __name__ == "__main__":
    main()
