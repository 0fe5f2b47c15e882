import pytest
import torch
import transformers

from covector.errors import ArgumentError, UnsupportedError
from covector.language.encoding import IGNORED
from covector.language.heads import TokenHead, VerbalizerHead, is_plain, last_positions

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_LIKE = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.3}
ARCHITECTURES = {
    "Llama": LLAMA_LIKE,
    "Mistral": LLAMA_LIKE,
    "Qwen2": LLAMA_LIKE,
    "Phi": {**SIZES, "intermediate_size": 48},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "GPTJ": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "GPTNeoX": {**SIZES, "intermediate_size": 48},
    "OPT": {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "Bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "Gemma2": {**LLAMA_LIKE, "head_dim": 8, "final_logit_softcapping": 2.0},
    "Cohere": {**LLAMA_LIKE, "logit_scale": 0.25},
    "Granite": {**LLAMA_LIKE, "logits_scaling": 3.0},
}
SHORT_CUT = {"Llama", "Mistral", "Qwen2", "Phi", "GPT2", "GPTJ", "GPTNeoX", "Bloom", "Mamba"}
LENGTHS = (7, 3, 5)
TOKENS = [5, 9, 21]


def build(name):
    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=40, pad_token_id=0, bos_token_id=1, eos_token_id=2, **ARCHITECTURES[name]
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    output = model.get_output_embeddings()
    if output.bias is not None:
        torch.nn.init.normal_(output.bias)
    return model


def texts():
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(3, 40, (length,), generator=generator) for length in LENGTHS]


def padded(rows, side, value=0):
    width = max(map(len, rows))
    out = torch.full((len(rows), width), value)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        out[i, place], mask[i, place] = row, 1
    return out, mask


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_verbalizer_logits_are_the_full_models_on_each_text_alone(name, side):
    model = build(name)
    with torch.no_grad():
        alone = torch.stack([model(row[None]).logits[0, -1, TOKENS] for row in texts()])
        logits = VerbalizerHead(model, TOKENS, side)(*padded(texts(), side))
    torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_short_cut_is_taken_where_logits_are_linear_and_only_there(name):
    assert is_plain(build(name)) == (name in SHORT_CUT)


@pytest.mark.parametrize("side", ["right", "left"])
def test_short_cut_and_own_forward_agree(side, model):
    batch = padded(texts(), side)
    head = VerbalizerHead(model, TOKENS, side)
    with torch.no_grad():
        fast = head(*batch)
        head.plain = False
        torch.testing.assert_close(fast, head(*batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["Llama", "Gemma2"])
def test_token_head_selects_the_labeled_positions_of_the_full_logits(name, side):
    model = build(name)
    ids, mask = padded(texts(), side)
    labels, _ = padded([row.where(torch.arange(len(row)) > 1, IGNORED) for row in texts()], side, IGNORED)
    with torch.no_grad():
        chosen = TokenHead(model, side)(ids, mask, labels)
        alone = torch.cat([model(row[None]).logits[0, 1:-1] for row in texts()])
    torch.testing.assert_close(chosen, alone, rtol=1e-4, atol=1e-5)


def test_what_stands_in_right_padding_does_not_matter(model):
    ids, mask = padded(texts(), "right")
    noise = ids.where(mask == 1, 17)
    head = VerbalizerHead(model, TOKENS)
    torch.testing.assert_close(head(ids, mask), head(noise, mask), rtol=0, atol=0)


@pytest.mark.parametrize("fixture", ["model", "untied_model"])
def test_parameter_names_are_the_models_own_behind_a_prefix(fixture, request):
    model = request.getfixturevalue(fixture)
    head = VerbalizerHead(model, TOKENS)
    names = [name.removeprefix("model.") for name, _ in head.named_parameters()]
    assert names == [name for name, _ in model.named_parameters()]
    assert list(head.state_dict()) == ["model." + name for name in model.state_dict()]


@pytest.mark.parametrize("fixture", ["model", "untied_model"])
def test_gradients_are_those_of_the_full_logits(fixture, request):
    model = request.getfixturevalue(fixture)
    ids, mask = padded(texts(), "left")
    VerbalizerHead(model, TOKENS, "left")(ids, mask).square().sum().backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    model(ids, attention_mask=mask, position_ids=positions).logits[:, -1, TOKENS].square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(fast[name], p.grad, rtol=1e-4, atol=1e-5)


def test_verbalizer_logits_are_float32_in_a_bfloat16_model(model):
    logits = VerbalizerHead(model.bfloat16(), TOKENS)(*padded(texts(), "right"))
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_probing_the_model_leaves_mode_hooks_and_generator_alone(model):
    model.train()
    before = torch.get_rng_state()
    VerbalizerHead(model, TOKENS)
    assert model.training
    assert not model.base_model._forward_hooks
    assert torch.equal(torch.get_rng_state(), before)


def test_lora_adapters_train_and_merge_to_the_same_logits(model):
    import peft

    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    head = VerbalizerHead(adapted, TOKENS)
    trained = [name for name, p in head.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)
    batch = padded(texts(), "right")
    logits = head(*batch).detach()
    merged = VerbalizerHead(adapted.merge_and_unload(), TOKENS)
    torch.testing.assert_close(logits, merged(*batch).detach(), rtol=1e-4, atol=1e-5)


def test_prompt_learning_adapters_are_refused(model):
    import peft

    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(UnsupportedError, match="LoRA"):
        VerbalizerHead(peft.get_peft_model(model, config), TOKENS)


def test_a_model_without_output_embeddings_is_refused(model):
    with pytest.raises(UnsupportedError, match="LlamaModel"):
        VerbalizerHead(model.model, TOKENS)


def test_an_unknown_side_is_refused(model):
    with pytest.raises(ArgumentError, match="padding='middle'"):
        VerbalizerHead(model, TOKENS, "middle")


def test_last_position_of_an_unpadded_row_is_its_end():
    assert last_positions(torch.ones((2, 6), dtype=torch.int64)).tolist() == [5, 5]
