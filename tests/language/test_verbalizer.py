import math

import pytest
import torch
import torch.nn.functional as F

from covector.errors import ArgumentError
from covector.estimators import Backprop, ZerothOrder
from covector.language import Task, VerbalizerTask


@pytest.fixture
def task(tokenizer):
    return VerbalizerTask(tokenizer)


def own_loss(model, task, examples):
    """The loss from the full vocabulary's logits of each text alone."""
    losses = []
    for example in examples:
        ids = task.tokenizer(task.encoder.render(example["text"]), return_tensors="pt").input_ids
        pair = model(ids).logits[0, -1, task.tokenizer.convert_tokens_to_ids(["terrible", "great"])]
        losses.append(F.cross_entropy(pair, torch.tensor(example["label"])))
    return torch.stack(losses)


def test_batches_hold_texts_in_the_template_and_classes(task, labeled):
    batch = task.collate(labeled[:2])
    assert task.tokenizer.batch_decode(batch["input_ids"]) == [
        "this film is not bad at all It was",
        "dull It was" + " [PAD]" * 6,
    ]
    assert batch["attention_mask"].sum(1).tolist() == [9, 3]
    assert batch["labels"].tolist() == [1, 0]


def test_objective_is_the_mean_loss_of_the_full_model(task, model, labeled):
    with torch.no_grad():
        loss = task.objective(model)(task.collate(labeled))
        torch.testing.assert_close(loss, own_loss(model, task, labeled).mean())


def test_padding_on_either_side_gives_the_same_loss(tokenizer, model, labeled):
    losses = []
    for side in ("right", "left"):
        task = VerbalizerTask(tokenizer, padding=side)
        losses.append(task.objective(model)(task.collate(labeled)))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fixture", ["model", "untied_model"])
def test_objective_names_parameters_as_the_model_does(task, fixture, request):
    model = request.getfixturevalue(fixture)
    params = task.objective(model).params
    assert list(params) == [name for name, _ in model.named_parameters()]
    assert all(params[name] is parameter for name, parameter in model.named_parameters())


def test_objective_trains_what_is_asked_for(task, model):
    name = "model.layers.1.mlp.up_proj.weight"
    assert list(task.objective(model, trainable=[name]).params) == [name]
    norms = task.objective(model, trainable=lambda n: "layernorm" in n).params
    assert len(norms) == 4


def test_loss_at_other_parameters_reaches_the_tied_output_rows(task, model, labeled):
    batch = task.collate(labeled)
    params = {name: p.detach() + 0.1 for name, p in model.named_parameters()}
    elsewhere = task.objective(model)(batch, params)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(params[name])
        here = own_loss(model, task, labeled).mean()
    torch.testing.assert_close(elsewhere, here)


def test_per_example_losses_are_those_of_each_text_alone(task, model, labeled):
    losses = task.objective(model).per_example(task.collate(labeled))
    torch.testing.assert_close(losses, own_loss(model, task, labeled), rtol=1e-4, atol=1e-5)


def test_zeroth_order_slope_is_the_directional_derivative(task, model, labeled):
    batch, objective = task.collate(labeled), task.objective(model)
    exact = Backprop()(objective, batch).gradient
    estimate = ZerothOrder(eps=2.0**-12, seed=3)(objective, batch).gradient
    (slope,) = estimate.coefficients.tolist()
    assert slope == pytest.approx(estimate.dot(exact) / slope, rel=0.02)


def test_forward_mode_works_with_eager_attention(task, model, labeled):
    model.set_attn_implementation("eager")
    batch, objective = task.collate(labeled), task.objective(model)
    params = {name: p.detach() for name, p in objective.params.items()}
    tangent = {name: torch.ones_like(p) for name, p in params.items()}
    _, slope = torch.func.jvp(lambda p: objective(batch, p), (params,), (tangent,))
    gradient = Backprop()(objective, batch).gradient.dense(params)
    assert slope.item() == pytest.approx(sum(float(g.sum()) for g in gradient.values()), rel=1e-3, abs=1e-4)


def test_training_separates_the_classes(task, model, labeled):
    objective = task.objective(model)
    batches = task.batches(labeled, batch_size=4, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        objective(next(batches)).backward()
        optimizer.step()
    scores = task.evaluate(model, labeled)
    assert scores.accuracy == 1.0
    assert scores.loss < 0.1


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_scores_are_in_the_order_of_the_examples(task, model, labeled, batch_size):
    scores = task.evaluate(model, labeled, batch_size)
    with torch.no_grad():
        expected = own_loss(model, task, labeled)
    torch.testing.assert_close(scores.per_example_loss.float(), expected, rtol=1e-4, atol=1e-5)
    assert scores.per_example_correct.tolist() == (expected < math.log(2)).double().tolist()
    assert (scores.n, scores.metric) == (4, "accuracy")


def test_evaluation_keeps_every_modules_mode(task, model, labeled):
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    task.evaluate(model, labeled)
    assert [module.training for module in model.modules()] == modes


def test_predictions_are_those_of_evaluation_mode(task, model, labeled):
    expected = task.predictions(model, labeled)
    model.config.attention_dropout = 0.5
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    model.train()
    batch = task.collate(labeled)
    assert not torch.equal(task.objective(model)(batch), task.objective(model)(batch))
    assert task.predictions(model, labeled) == expected
    assert model.training


def test_scoring_other_parameters_leaves_the_model_alone(task, model, labeled):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    params = {name: p * 1.5 for name, p in before.items()}
    moved = task.evaluate(model, labeled, params=params)
    assert moved.loss != task.evaluate(model, labeled).loss
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    model.load_state_dict(params, strict=False)
    model.tie_weights()
    assert moved.loss == pytest.approx(task.evaluate(model, labeled).loss)


def test_a_frozen_model_is_scored(task, model, labeled):
    loss = task.evaluate(model, labeled).loss
    assert task.evaluate(model.requires_grad_(False), labeled).loss == loss


def test_a_client_without_examples_is_scored_and_takes_no_step(task, model):
    scores = task.evaluate(model, [])
    assert scores.n == 0
    assert math.isnan(scores.accuracy)
    with pytest.raises(ArgumentError, match="takes no step"):
        task.batches([], batch_size=4, seed=0)


def test_predictions_name_the_likelier_label(tokenizer, model, labeled):
    named = [{**example, "label": ["bad", "good"][example["label"]]} for example in labeled]
    task = VerbalizerTask(tokenizer, labels=("bad", "good"))
    scores = task.evaluate(model, named)
    rows = task.predictions(model, named, batch_size=3)
    assert [row["predicted"] == row["label"] for row in rows] == scores.per_example_correct.bool().tolist()
    for row, loss in zip(rows, scores.per_example_loss.tolist(), strict=True):
        assert -math.log(row["probabilities"][row["label"]]) == pytest.approx(loss, rel=1e-4)


def test_more_classes_than_two(tokenizer, model):
    task = VerbalizerTask(tokenizer, verbalizers=(" terrible", " fine", " great"))
    batch = task.collate([{"text": "a", "label": 2}])
    assert task.objective(model).outputs(batch).shape == (1, 3)


def test_a_begin_token_is_used_and_an_end_token_is_not(begin_end_tokenizer):
    batch = VerbalizerTask(begin_end_tokenizer).collate([{"text": "a b", "label": 0}])
    assert begin_end_tokenizer.decode(batch["input_ids"][0]) == "[BOS] a b It was"


def test_the_tasks_protocol_is_met(task):
    assert isinstance(task, Task)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"verbalizers": (" great",)}, "at least two"),
        ({"verbalizers": (" not bad", " great")}, r"' not bad'.*makes 2: \['not', 'bad'\]"),
        ({"verbalizers": ("ful", " great")}, "'ful'.*merges into"),
        ({"verbalizers": (" great", "  great")}, "different from that of ' great'"),
        ({"verbalizers": (" superb", " great")}, "' superb'.*this tokenizer knows"),
        ({"labels": ("good", "good")}, "2 different values"),
        ({"labels": ("a", "b", "c")}, "2 different values"),
        ({"template": "It was"}, "template"),
        ({"max_length": 2}, "max_length=2"),
        ({"padding": "both"}, "padding='both'"),
    ],
)
def test_what_cannot_work_is_refused_by_name(tokenizer, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        VerbalizerTask(tokenizer, **arguments)


@pytest.mark.parametrize("label", [2, "good", None, -1])
def test_a_label_without_a_verbalizer_is_refused(task, label):
    with pytest.raises(ArgumentError, match=r"label=.*one of 0, 1"):
        task.collate([{"text": "a", "label": label}])
