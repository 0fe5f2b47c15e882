import pytest
import torch

from covector.errors import ArgumentError
from covector.language import load_model, save_model, tiny_model


def test_the_words_are_the_vocabulary_and_each_is_one_token():
    model, tokenizer = tiny_model("one two two\nthree")
    assert tokenizer.convert_ids_to_tokens(tokenizer("three one four").input_ids) == ["three", "one", "[UNK]"]
    assert len(tokenizer) == model.config.vocab_size == 7
    assert model.get_input_embeddings().num_embeddings == 7


def test_the_seed_decides_the_weights_and_the_generator_is_left_alone():
    state = torch.get_rng_state()
    first, again, other = (tiny_model("a b", seed=seed)[0].lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_are_tied_on_request(tied):
    model, _ = tiny_model("a b", tied=tied)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied


def test_a_chat_can_be_rendered():
    _, tokenizer = tiny_model("user: assistant: hello")
    turn = [{"role": "user", "content": "hello"}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert text == "user: hello [EOS] assistant:"
    assert tokenizer.unk_token_id not in tokenizer(text).input_ids


def test_it_is_saved_and_loaded_as_a_large_one(tmp_path):
    model, tokenizer = tiny_model("a b c")
    loaded, words = load_model(save_model(model, tokenizer, tmp_path / "tiny"))
    ids = torch.tensor([words("a b c").input_ids])
    assert torch.equal(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("options", "name"), [({"width": 12}, "width"), ({"width": 0}, "width"), ({"layers": 0}, "layers")]
)
def test_impossible_sizes_are_refused(options, name):
    with pytest.raises(ArgumentError, match=name):
        tiny_model("a", **options)
