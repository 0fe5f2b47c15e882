"""The 135M model: zero-shot scoring through its head, and a save that loads to the same bits."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from covector.language import CompletionTask, VerbalizerTask, generate, load_model, save_model

pytestmark = pytest.mark.model

REVIEWS = [
    ("A joy from beginning to end, funny, warm and beautifully acted.", 1),
    ("I wanted my money back after twenty minutes of this boring mess.", 0),
    ("The best camera I have ever owned, sharp pictures and easy to use.", 1),
    ("It broke after two days and nobody answered my letters.", 0),
    ("An extraordinary performance, I loved every minute.", 1),
    ("Dull, predictable and badly written.", 0),
    ("Wonderful food and friendly people, we will come again.", 1),
    ("The worst service I have seen, rude and slow.", 0),
]
EXAMPLES = [{"text": text, "label": label} for text, label in REVIEWS]


@pytest.fixture(scope="module")
def loaded():
    return load_model()


def test_zero_shot_scores_are_the_full_models_and_rank_good_above_bad(loaded):
    model, tokenizer = loaded
    task = VerbalizerTask(tokenizer)
    scores = task.evaluate(model, EXAMPLES, batch_size=8)
    tokens = [tokenizer(word).input_ids[0] for word in (" terrible", " great")]
    great = []
    with torch.no_grad():
        for (text, label), loss in zip(REVIEWS, scores.per_example_loss.tolist(), strict=True):
            ids = tokenizer(f"{text} It was", return_tensors="pt").input_ids
            full = model(ids).logits[0, -1, tokens].log_softmax(0)
            assert loss == pytest.approx(-full[label].item(), abs=1e-3)
            great.append((full[1].item(), label))
    assert min(score for score, label in great if label) > max(score for score, label in great if not label)


def test_padding_on_either_side_gives_the_same_losses(loaded):
    model, tokenizer = loaded
    sides = [VerbalizerTask(tokenizer, padding=side).evaluate(model, EXAMPLES) for side in ("right", "left")]
    torch.testing.assert_close(sides[0].per_example_loss, sides[1].per_example_loss, rtol=0, atol=1e-3)


def test_a_long_text_keeps_the_end_of_the_template(loaded):
    _, tokenizer = loaded
    task = VerbalizerTask(tokenizer, max_length=16)
    ids = task.collate([{"text": "naïve 日本語 " * 40, "label": 0}])["input_ids"]
    assert ids.shape[1] in (14, 15, 16)
    assert tokenizer.decode(ids[0]).endswith(" It was")


def test_chat_completions_end_where_a_turn_ends(loaded):
    model, tokenizer = loaded
    task = CompletionTask(tokenizer, chat=True)
    pair = {"prompt": "What is the capital of France?", "completion": "Paris."}
    (item,) = task.encode([pair])
    assert tokenizer.decode([i for i in item.labels if i >= 0]) == "Paris.<|im_end|>"
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": pair["prompt"]}], add_generation_prompt=True, tokenize=False
    )
    assert tokenizer.decode(item.ids) == rendered + "Paris.<|im_end|>"
    (said,) = generate(model, tokenizer, [rendered], max_new_tokens=8)
    assert "Paris" in said


def test_a_saved_model_loads_to_the_same_bits(loaded, tmp_path):
    model, tokenizer = loaded
    folder = save_model(model, tokenizer, tmp_path / "model")
    again = AutoModelForCausalLM.from_pretrained(folder)
    state, restored = model.state_dict(), again.state_dict()
    assert list(state) == list(restored)
    assert all(torch.equal(state[name], restored[name]) for name in state)
    assert again.lm_head.weight is again.model.embed_tokens.weight
