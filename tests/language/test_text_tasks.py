import pytest
import torch
import torch.nn.functional as F

from covector.errors import ArgumentError
from covector.language import CausalTask, CompletionTask, Task, VerbalizerTask, task_for

TEXTS = [{"text": "this film is not bad"}, {"text": "a b"}, {"text": "one two three four five six seven a b c"}]
PAIRS = [
    {"prompt": "one two", "completion": "three"},
    {"prompt": "a b c d e", "completion": "f g h"},
    {"prompt": "this film", "completion": "is great"},
]


def own_losses(model, rows, first=1):
    """Sum of the next-token losses of each row alone, and their number, from full logits."""
    sums, counts = [], []
    for row, start in zip(rows, [first] * len(rows) if isinstance(first, int) else first, strict=True):
        ids = torch.tensor([row])
        loss = F.cross_entropy(model(ids).logits[0, start - 1 : -1], ids[0, start:], reduction="sum")
        sums.append(loss)
        counts.append(len(row) - start)
    return torch.stack(sums), torch.tensor(counts)


def test_packing_loses_no_token_and_ends_every_text(tokenizer):
    items = CausalTask(tokenizer, max_length=8).encode(TEXTS)
    assert [len(item.ids) for item in items] == [8, 8, 4]
    joined = [token for item in items for token in item.ids]
    assert tokenizer.decode(joined) == " ".join(f"{e['text']} [EOS]" for e in TEXTS)


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
def test_causal_loss_is_the_token_mean_of_the_full_model(tokenizer, model, pack, side):
    task = CausalTask(tokenizer, max_length=8, pack=pack, padding=side)
    rows = [item.ids for item in task.encode(TEXTS)]
    with torch.no_grad():
        loss = task.objective(model)(task.collate(TEXTS))
        sums, counts = own_losses(model, rows)
        scores = task.evaluate(model, TEXTS, batch_size=2)
    torch.testing.assert_close(loss, sums.sum() / counts.sum(), rtol=1e-4, atol=1e-5)
    assert scores.loss == pytest.approx(loss.item(), rel=1e-4)
    torch.testing.assert_close(scores.per_example_loss.float(), sums / counts, rtol=1e-4, atol=1e-5)
    assert scores.weights.tolist() == counts.tolist()


def test_texts_without_packing_are_cut_and_single_tokens_left_out(tokenizer):
    task = CausalTask(tokenizer, max_length=4, pack=False)
    items = task.encode([*TEXTS, {"text": "a"}])
    assert [tokenizer.decode(item.ids) for item in items] == ["this film is not", "a b", "one two three four"]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_completion_loss_counts_the_completion_alone(tokenizer, model, chat, side):
    task = CompletionTask(tokenizer, chat=chat, padding=side)
    rows, starts = [], []
    for pair in PAIRS:
        prompt = f"user says {pair['prompt']} bot says" if chat else pair["prompt"]
        starts.append(len(prompt.split()))
        rows.append(tokenizer(f"{prompt} {pair['completion']} [EOS]").input_ids)
    with torch.no_grad():
        sums, counts = own_losses(model, rows, starts)
        loss = task.objective(model)(task.collate(PAIRS))
        scores = task.evaluate(model, PAIRS, batch_size=2)
    torch.testing.assert_close(loss, sums.sum() / counts.sum(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores.per_example_loss.float(), sums / counts, rtol=1e-4, atol=1e-5)
    assert scores.loss == pytest.approx(loss.item(), rel=1e-4)


def test_a_long_prompt_loses_its_end_and_the_completion_stays(tokenizer):
    (item,) = CompletionTask(tokenizer, max_length=9, chat=True).encode(PAIRS[1:2])
    assert tokenizer.decode(item.ids) == "user says a bot says f g h [EOS]"
    (item,) = CompletionTask(tokenizer, max_length=6).encode(PAIRS[1:2])
    assert tokenizer.decode(item.ids) == "a b f g h [EOS]"


def test_a_completion_too_long_loses_its_end_and_end_token(tokenizer):
    (item,) = CompletionTask(tokenizer, max_length=6, chat=True).encode(PAIRS[1:2])
    assert tokenizer.decode(item.ids) == "user says bot says f g"


def test_without_end_the_completion_is_all(tokenizer):
    (item,) = CompletionTask(tokenizer, end=False).encode(PAIRS[:1])
    assert tokenizer.decode(item.ids) == "one two three"
    assert item.labels == [-100, -100, item.ids[2]]


@pytest.mark.parametrize(("make", "examples"), [(CausalTask, TEXTS), (CompletionTask, PAIRS)])
def test_training_learns_the_examples_and_the_model_repeats_them(tokenizer, model, make, examples):
    task = make(tokenizer)
    objective, batches = task.objective(model), task.batches(examples, batch_size=3, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = task.evaluate(model, examples)
    for _ in range(60):
        optimizer.zero_grad()
        objective(next(batches)).backward()
        optimizer.step()
    after = task.evaluate(model, examples)
    assert after.value < 2 < before.value
    assert after.metric == "perplexity"
    assert after.accuracy > before.accuracy
    if make is CompletionTask:
        assert [row["predicted"] for row in task.predictions(model, PAIRS)] == [p["completion"] for p in PAIRS]


def test_causal_predictions_continue_the_first_half(tokenizer, model):
    rows = CausalTask(tokenizer).predictions(model, TEXTS[:2])
    assert [(row["prompt"], row["expected"]) for row in rows] == [("this film is", " not bad"), ("a", " b")]
    assert all(isinstance(row["predicted"], str) for row in rows)


def test_completion_is_right_when_every_token_is_the_likeliest(tokenizer, model):
    task = CompletionTask(tokenizer)
    (item,) = task.encode(PAIRS[1:2])
    with torch.no_grad():
        said = model(torch.tensor([item.ids])).logits[0].argmax(1).tolist()
    expected = float(said[4:-1] == item.ids[5:])
    assert task.evaluate(model, PAIRS[1:2]).accuracy == expected


@pytest.mark.parametrize(("make", "examples"), [(CausalTask, TEXTS), (CompletionTask, PAIRS)])
def test_empty_data_is_scored_and_the_protocol_met(tokenizer, model, make, examples):
    task = make(tokenizer)
    assert isinstance(task, Task)
    assert task.evaluate(model, []).n == 0
    assert task.evaluate(model, examples).n > 0


@pytest.mark.parametrize(
    ("example", "kind"),
    [(TEXTS[0], CausalTask), (PAIRS[0], CompletionTask), ({"text": "a", "label": 0}, VerbalizerTask)],
)
def test_the_shape_of_examples_chooses_the_task(tokenizer, example, kind):
    task = task_for([example], tokenizer, max_length=32)
    assert type(task) is kind
    assert task.max_length == 32


def test_what_the_tokenizer_lacks_is_named(tokenizer):
    bare = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]")
    with pytest.raises(ArgumentError, match="no chat template"):
        CompletionTask(bare, chat=True, end=False)
    with pytest.raises(ArgumentError, match="no end token"):
        CompletionTask(bare)
    with pytest.raises(ArgumentError, match="no end token"):
        CausalTask(bare)
    with pytest.raises(ArgumentError, match="pad_token"):
        CausalTask(type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="[EOS]"))
