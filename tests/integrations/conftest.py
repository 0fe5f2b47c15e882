import pytest
import torch


class Words(torch.utils.data.Dataset):
    """Sequences with a simple law: each token is the one before plus a step of the sequence's own."""

    def __init__(self, count=32, length=8, vocabulary=32):
        generator = torch.Generator().manual_seed(0)
        start = torch.randint(vocabulary, (count, 1), generator=generator)
        stride = torch.randint(1, 4, (count, 1), generator=generator)
        self.ids = (start + stride * torch.arange(length)) % vocabulary

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "labels": self.ids[i]}


@pytest.fixture
def words():
    return Words()


@pytest.fixture
def make_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(dropout=0.0):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=32, attention_dropout=dropout, pad_token_id=0,
        )  # fmt: skip
        return LlamaForCausalLM(config)

    return make
