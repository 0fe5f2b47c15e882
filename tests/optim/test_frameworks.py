"""Every exported optimizer works where a torch optimizer is expected: Trainer, Lightning, accelerate, compile, DDP."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from covector import optim
from covector.distributed import launch
from covector.errors import ArgumentError
from covector.optim import Optimizer

# they step by the loss, which a loop that calls step() without a closure keeps to itself
BY_LOSS = {"AEGD", "AEPG", "SANIA"}
# they evaluate the model themselves, for products with the Hessian or a gradient at another point
BY_CLOSURE = {"AdGD", "OASIS"}
EXPORTED = {
    name: value
    for name in optim.__all__
    if inspect.isclass(value := getattr(optim, name)) and issubclass(value, Optimizer) and value is not Optimizer
}
CLASSES = {name: value for name, value in EXPORTED.items() if name not in BY_LOSS | BY_CLOSURE}
every = pytest.mark.parametrize("name", CLASSES)
BATCH, FEATURES = 8, 6


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 1))


def data() -> torch.utils.data.TensorDataset:
    x = torch.randn(4 * BATCH, FEATURES, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True).sin())


def batches() -> list[list[Tensor]]:
    return list(torch.utils.data.DataLoader(data(), BATCH))


def values(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def plain(name: str, schedule: bool = False) -> Tensor:
    """Parameters after a pass in a loop written out."""
    model = network()
    optimizer = CLASSES[name](model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for x, y in batches():
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        if schedule:
            scheduler.step()
    return values(model)


@pytest.mark.parametrize("name", sorted(BY_LOSS | BY_CLOSURE))
def test_one_that_needs_the_loss_or_a_closure_says_so(name: str) -> None:
    model = network()
    optimizer = EXPORTED[name](model.parameters())
    nn.functional.mse_loss(model(batches()[0][0]), batches()[0][1]).backward()
    with pytest.raises(ArgumentError, match=r"(loss|closure)=None.*step\(closure\)"):
        optimizer.step()


class WithLoss(nn.Module):
    """What the Trainer calls: keywords in, a loss out."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs = self.net(x)
        return {"loss": nn.functional.mse_loss(outputs, labels), "logits": outputs}


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return len(data())

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x, y = data()[index]
        return {"x": x, "labels": y}


@every
def test_the_trainer_steps_it_and_its_schedule(name: str, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *given: Any) -> torch.utils.data.Sampler[int]:
            return torch.utils.data.SequentialSampler(Rows())

    model = WithLoss()
    optimizer = CLASSES[name](model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    arguments = TrainingArguments(
        str(tmp_path), max_steps=4, per_device_train_batch_size=BATCH, max_grad_norm=0.0, save_strategy="steps",
        save_steps=2, report_to=[], disable_tqdm=True, use_cpu=True, logging_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    InOrder(model, arguments, train_dataset=Rows(), optimizers=(optimizer, scheduler)).train()
    torch.testing.assert_close(values(model.net), plain(name, schedule=True))

    resumed = WithLoss()
    optimizer = CLASSES[name](resumed.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    trainer = InOrder(resumed, arguments, train_dataset=Rows(), optimizers=(optimizer, scheduler))
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    torch.testing.assert_close(values(resumed.net), values(model.net))


@every
def test_lightning_steps_what_configure_optimizers_returns(name: str, tmp_path: Path) -> None:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: list[Tensor]) -> Tensor:
            return nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = CLASSES[name](self.net.parameters())
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(data(), BATCH))
    torch.testing.assert_close(values(module.net), plain(name, schedule=True))


@every
def test_accelerate_prepares_it_and_saves_and_loads_its_state(name: str, tmp_path: Path) -> None:
    from accelerate import Accelerator

    def train(accelerator: Any, model: Any, optimizer: Any, part: list[list[Tensor]]) -> None:
        for x, y in part:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.mse_loss(model(x), y))
            optimizer.step()

    accelerator = Accelerator(cpu=True)
    model = network()
    model, optimizer = accelerator.prepare(model, CLASSES[name](model.parameters()))
    train(accelerator, model, optimizer, batches()[:2])
    accelerator.save_state(str(tmp_path / "state"))
    train(accelerator, model, optimizer, batches()[2:])
    straight = values(model)
    torch.testing.assert_close(straight, plain(name))
    accelerator.load_state(str(tmp_path / "state"))
    train(accelerator, model, optimizer, batches()[2:])
    torch.testing.assert_close(values(model), straight)


# tracing a step takes seconds: one elementwise rule, one in another basis, one that maps matrices
TRACED = [name for name in ("AdamW", "SOAP", "Muon") if name in CLASSES]
INSIDE = [pytest.param(name, True, id=f"{name}, step inside") for name in TRACED]
AROUND = [pytest.param(name, False, id=f"{name}, model only") for name in CLASSES]


@pytest.mark.parametrize(("name", "whole"), [*INSIDE, *AROUND])
def test_a_compiled_training_step_is_the_plain_one(name: str, whole: bool) -> None:
    torch.compiler.reset()
    model = network()
    optimizer = CLASSES[name](model.parameters())
    compiled = torch.compile(model, backend="eager")

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss((model if whole else compiled)(x), y).backward()
        optimizer.step()

    function = torch.compile(step, backend="eager") if whole else step
    for x, y in batches():
        function(x, y)
    torch.testing.assert_close(values(model), plain(name), rtol=1e-4, atol=1e-5)


@pytest.mark.processes
def test_two_ranks_keep_the_same_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)  # new processes look where this one does
    one, other = launch(importlib.import_module("ranks").digests, 2)
    assert list(one) == list(CLASSES)
    assert one == other


@pytest.mark.processes
def test_sharded_parameters_step_as_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    one, other = launch(importlib.import_module("ranks").sharded, 2)
    assert one == other
    assert set(EXPORTED) - BY_CLOSURE < set(one)
    assert {name: error for name, error in one.items() if not error < 1e-6} == {}


@pytest.mark.processes
def test_states_of_elementwise_rules_are_sharded_and_those_of_matrices_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    count = 8 * FEATURES
    assert launch(importlib.import_module("ranks").shares, 2) == [{"AdamW": [count // 2] * 2, "Muon": [count]}] * 2
