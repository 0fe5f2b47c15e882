import pytest
import torch

from covector.errors import ArgumentError
from covector.language import generate

PROMPTS = ["this film is", "a", "one two three four five"]


def greedy(model, tokenizer, prompt, steps):
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    start = ids.shape[1]
    for _ in range(steps):
        following = model(ids).logits[0, -1].argmax()
        if following == tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, following.view(1, 1)], 1)
    return tokenizer.decode(ids[0, start:], skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_batch_says_what_each_prompt_alone_says(model, tokenizer, batch_size):
    with torch.no_grad():
        alone = [greedy(model, tokenizer, prompt, 5) for prompt in PROMPTS]
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=5, batch_size=batch_size) == alone


def test_sampling_is_reproducible_and_leaves_the_generator_alone(model, tokenizer):
    state = torch.get_rng_state()
    first = generate(model, tokenizer, PROMPTS, temperature=1.0, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert first == generate(model, tokenizer, PROMPTS, temperature=1.0, seed=1)
    assert first != generate(model, tokenizer, PROMPTS, temperature=1.0, seed=2)


def test_the_mode_is_kept(model, tokenizer):
    model.train()
    generate(model, tokenizer, PROMPTS[:1], max_new_tokens=1)
    assert model.training


def test_nothing_is_said_to_nothing(model, tokenizer):
    assert generate(model, tokenizer, []) == []


@pytest.mark.parametrize(
    ("arguments", "name"),
    [({"prompts": [""]}, "prompts"), ({"max_new_tokens": 0}, "max_new_tokens"), ({"temperature": -1}, "temperature")],
)
def test_impossible_arguments_are_refused(model, tokenizer, arguments, name):
    with pytest.raises(ArgumentError, match=name):
        generate(model, tokenizer, **{"prompts": PROMPTS, **arguments})
