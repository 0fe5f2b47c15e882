"""The Trainer with an estimator: with Backprop it is the plain Trainer, with ZerothOrder it trains, saves and resumes."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from covector import Backprop, LowRankDirections, SeedPool, SketchPool, ZerothOrder
from covector.errors import CompositionError, MismatchError, UnsupportedError
from covector.integrations.transformers import EstimatorMixin, EstimatorTrainer
from covector.training import CarrierSGD
from covector.trees import clone, digest, flatten


def arguments(out, **options):
    defaults = {
        "max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1, "report_to": [],
        "disable_tqdm": True, "save_strategy": "no", "use_cpu": True, "seed": 3, "dataloader_pin_memory": False,
    }  # fmt: skip
    return TrainingArguments(str(out), **{**defaults, **options})


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def parameters(trainer):
    return dict(trainer.model.named_parameters())


OPTIONS = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "odd accumulation": {"gradient_accumulation_steps": 3, "num_train_epochs": 2, "max_steps": -1},
    "smoothed": {"label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2},
    "sgd": {"optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "cosine"},
    "bf16": {"bf16": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_backprop_is_the_plain_trainer_bit_for_bit(make_llama, words, tmp_path, name):
    options = OPTIONS[name]
    plain = Trainer(make_llama(dropout=0.1), arguments(tmp_path, **options), train_dataset=words)
    plain.train()
    ours = EstimatorTrainer(make_llama(dropout=0.1), arguments(tmp_path, **options), train_dataset=words)
    ours.train()
    assert losses(ours) == losses(plain)
    assert len(losses(plain)) >= 6
    norms = [[e["grad_norm"] for e in t.state.log_history if "grad_norm" in e] for t in (ours, plain)]
    assert norms[0] == norms[1]
    assert digest(parameters(ours)) == digest(parameters(plain))


def test_a_loss_without_token_counts_is_divided_like_the_trainers(words, tmp_path):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = torch.nn.Embedding(32, 32)

        def forward(self, input_ids, labels):
            logits = self.table(input_ids[:, :-1])
            return {"loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())}

    options = {"gradient_accumulation_steps": 2}
    plain = Trainer(Net(), arguments(tmp_path, **options), train_dataset=words)
    plain.train()
    ours = EstimatorTrainer(Net(), arguments(tmp_path, **options), train_dataset=words)
    ours.train()
    assert losses(ours) == losses(plain)
    assert digest(parameters(ours)) == digest(parameters(plain))


DIRECTIONS = {
    "rademacher": "rademacher",
    "seeds": SeedPool(1, 64),
    "sketch": SketchPool(1, 64),
    "lowrank": LowRankDirections(),
}


@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("carrier", [True, False])
def test_zeroth_order_steps_are_those_of_sgd_on_its_estimates(make_llama, words, tmp_path, directions, carrier):
    options = {"optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 1e-3, "lr_scheduler_type": "constant"}
    make = lambda: ZerothOrder(directions=DIRECTIONS[directions], seed=5)  # noqa: E731
    trainer = EstimatorTrainer(
        make_llama(),
        arguments(tmp_path, max_steps=3, **options),
        train_dataset=words,
        estimator=make(),
        carrier=carrier,
    )
    batches = [trainer._prepare_inputs(batch) for batch in _batches(trainer, 3)]
    trainer.train()

    from covector import Objective

    expected, estimator = Objective(make_llama().train()), make()
    for batch in batches:
        estimate = estimator(expected, dict(batch))
        dense = estimate.gradient.dense(expected.params)
        with torch.no_grad():
            for name, p in expected.params.items():
                p.sub_(dense[name], alpha=1e-3)
    for name, p in parameters(trainer).items():
        assert torch.allclose(p, expected.params[name], atol=1e-4), name


def _batches(trainer, count):
    """The batches that the trainer is going to see: its loader, from the same seed."""
    from transformers import set_seed

    set_seed(trainer.args.seed)
    loader = iter(trainer.get_train_dataloader())
    found = [next(loader) for _ in range(count)]
    set_seed(trainer.args.seed)
    return found


@pytest.mark.parametrize("carrier", [True, False])
def test_mezo_in_the_trainer_lowers_the_loss(make_llama, words, tmp_path, carrier):
    options = {"max_steps": 60, "max_grad_norm": 0.0, "learning_rate": 1e-2, "optim": "sgd", "logging_steps": 30}
    trainer = EstimatorTrainer(
        make_llama(), arguments(tmp_path, **options), train_dataset=words, eval_dataset=words,
        estimator=ZerothOrder(seed=1), carrier=carrier,
    )  # fmt: skip
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 0.03
    has_grad = [p.grad is not None for p in parameters(trainer).values()]
    assert not any(has_grad)


def test_the_carrier_writes_no_grad(make_llama, words, tmp_path):
    class Watching(EstimatorTrainer):
        seen = ()

        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            self.seen = [*self.seen, any(p.grad is not None for p in self.model.parameters())]
            return loss

    for carrier in (True, False):
        trainer = Watching(
            make_llama(),
            arguments(tmp_path, max_steps=2),
            train_dataset=words,
            estimator=ZerothOrder(),
            carrier=carrier,
        )
        trainer.train()
        assert trainer.seen == [not carrier] * 2


@pytest.mark.parametrize("carrier", [True, False])
@pytest.mark.parametrize("estimator", ["zeroth", "backprop"])
def test_a_resumed_trainer_ends_with_the_same_bits(make_llama, words, tmp_path, carrier, estimator):
    make = (lambda: ZerothOrder(queries=2, seed=4)) if estimator == "zeroth" else Backprop
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4, "gradient_accumulation_steps": 2}

    def trainer():
        return EstimatorTrainer(
            make_llama(dropout=0.1),
            arguments(tmp_path, **options),
            train_dataset=words,
            estimator=make(),
            carrier=carrier,
        )

    straight = trainer()
    straight.train()
    torch.manual_seed(77)
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed.state.global_step == 8
    assert losses(resumed) == losses(straight)
    assert digest(parameters(resumed)) == digest(parameters(straight))
    again = trainer()
    again.train(resume_from_checkpoint=True)  # the newest is the end
    assert digest(parameters(again)) == digest(parameters(straight))


def test_another_estimator_or_a_plain_checkpoint_is_refused(make_llama, words, tmp_path):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    EstimatorTrainer(make_llama(), arguments(tmp_path / "a", **options), train_dataset=words).train()
    Trainer(make_llama(), arguments(tmp_path / "b", **options), train_dataset=words).train()
    for folder, message in (
        ("a", "Backprop in the checkpoint but ZerothOrder"),
        ("b", "not written by an EstimatorTrainer"),
    ):
        trainer = EstimatorTrainer(
            make_llama(), arguments(tmp_path / folder, **options), train_dataset=words, estimator=ZerothOrder()
        )
        with pytest.raises(MismatchError, match=message):
            trainer.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("carrier", [True, False])
def test_max_grad_norm_bounds_the_step_and_is_logged(make_llama, words, tmp_path, carrier):
    options = {
        "max_steps": 1,
        "max_grad_norm": 0.5,
        "learning_rate": 1.0,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
    }
    trainer = EstimatorTrainer(
        make_llama(), arguments(tmp_path, **options), train_dataset=words, estimator=ZerothOrder(), carrier=carrier
    )
    before = flatten(clone(parameters(trainer)))
    trainer.train()
    assert (flatten(parameters(trainer)) - before).norm().item() == pytest.approx(0.5, rel=1e-3)
    assert next(e["grad_norm"] for e in trainer.state.log_history if "grad_norm" in e) > 1.0


def test_weight_decay_and_schedule_reach_the_carrier(make_llama, words, tmp_path):
    class Zero(ZerothOrder):
        def estimate(self, objective, batch):
            from dataclasses import replace

            found = super().estimate(objective, batch)
            return replace(found, gradient=found.gradient.zeroed())

    options = {
        "max_steps": 2,
        "weight_decay": 0.5,
        "learning_rate": 0.1,
        "lr_scheduler_type": "linear",
        "max_grad_norm": 0,
    }
    trainer = EstimatorTrainer(
        make_llama(), arguments(tmp_path, **options), train_dataset=words, estimator=Zero(), carrier=True
    )
    before = clone(parameters(trainer))
    trainer.train()
    after = parameters(trainer)
    factor = (1 - 0.1 * 0.5) * (1 - 0.05 * 0.5)
    assert torch.allclose(after["lm_head.weight"], before["lm_head.weight"] * factor)
    assert torch.equal(after["model.norm.weight"], before["model.norm.weight"])


def test_dropout_is_a_choice(make_llama, words, tmp_path):
    modes = []

    class Watching(EstimatorTrainer):
        def compute_loss(self, model, inputs, **kwargs):
            modes.append(model.training)
            return super().compute_loss(model, inputs, **kwargs)

    for dropout in (True, False):
        Watching(
            make_llama(),
            arguments(tmp_path, max_steps=1),
            train_dataset=words,
            estimator=ZerothOrder(),
            dropout=dropout,
        ).train()
    assert modes == [True, True, False, False]


def test_optimizers_are_taken_as_they_come(make_llama, words, tmp_path):
    for make in (lambda p: torch.optim.Adagrad(p.values()), lambda p: CarrierSGD(p, lr=1e-3)):
        model = make_llama()
        optimizer = make(dict(model.named_parameters()))
        before = digest(dict(model.named_parameters()))
        EstimatorTrainer(
            model,
            arguments(tmp_path, max_steps=1),
            train_dataset=words,
            estimator=ZerothOrder(),
            optimizers=(optimizer, None),
        ).train()
        assert digest(dict(model.named_parameters())) != before


def test_the_mixin_fits_other_trainers(make_llama, words, tmp_path):
    class Doubling(Trainer):
        def compute_loss(self, *args, **kwargs):
            return 2 * super().compute_loss(*args, **kwargs)

    class Mine(EstimatorMixin, Doubling):
        pass

    both = [
        Mine(make_llama(), arguments(tmp_path), train_dataset=words),
        Doubling(make_llama(), arguments(tmp_path), train_dataset=words),
    ]
    for trainer in both:
        trainer.train()
    assert losses(both[0]) == losses(both[1])
    assert digest(parameters(both[0])) == digest(parameters(both[1]))


def test_peft_models_train_their_adapters_only(make_llama, words, tmp_path):
    from peft import LoraConfig, get_peft_model

    def lora():
        model = make_llama()
        torch.manual_seed(1)
        return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))

    plain = Trainer(lora(), arguments(tmp_path), train_dataset=words)
    plain.train()
    ours = EstimatorTrainer(lora(), arguments(tmp_path), train_dataset=words)
    ours.train()
    assert digest(parameters(ours)) == digest(parameters(plain))

    for carrier in (True, False):
        trainer = EstimatorTrainer(
            lora(), arguments(tmp_path, learning_rate=1e-2, max_grad_norm=0, max_steps=40), train_dataset=words,
            eval_dataset=words, estimator=ZerothOrder(queries=2), carrier=carrier,
        )  # fmt: skip
        before, loss = clone(parameters(trainer)), trainer.evaluate()["eval_loss"]
        trainer.train()
        changed = {name for name, p in parameters(trainer).items() if not torch.equal(p, before[name])}
        assert changed == {name for name in before if "lora_" in name}
        assert trainer.evaluate()["eval_loss"] < loss


def test_what_cannot_work_is_refused_at_once(make_llama, words, tmp_path, monkeypatch):
    for name, value in {"BACKEND": "no", "MODE": "default"}.items():  # the arguments leave these in the environment
        monkeypatch.setenv(f"ACCELERATE_DYNAMO_{name}", value)
    model = make_llama()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(CompositionError, match="carrier=True"):
        EstimatorTrainer(model, arguments(tmp_path), train_dataset=words, carrier=True, optimizers=(sgd, None))
    with pytest.raises(UnsupportedError, match="torch_compile"):
        EstimatorTrainer(model, arguments(tmp_path, torch_compile=True), train_dataset=words)
