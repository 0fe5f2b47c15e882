"""MeZO in the Trainer of transformers: a language model learns sentiment by forward passes only.

python examples/mezo_in_trainer.py                      a 135M model on rated sentences, 200 steps
python examples/mezo_in_trainer.py --model tiny         a random model on made-up tokens, seconds
"""

from __future__ import annotations

import argparse

import torch
from transformers import DataCollatorForSeq2Seq, LlamaConfig, LlamaForCausalLM, TrainingArguments

from covector import ZerothOrder, data
from covector.integrations.transformers import EstimatorTrainer
from covector.language import DEFAULT_MODEL, load_model


def mezo(model, train_set, eval_set, collator, steps, lr, out):
    """The five lines."""
    args = TrainingArguments(
        out, max_steps=steps, learning_rate=lr, max_grad_norm=0.0, lr_scheduler_type="constant",
        per_device_train_batch_size=16, logging_steps=10, save_strategy="no", report_to=[], use_cpu=True,
    )  # fmt: skip
    estimator = ZerothOrder(seed=1)
    trainer = EstimatorTrainer(
        model, args, collator, train_set, eval_set, estimator=estimator, carrier=True, dropout=False
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    size = sum(p.numel() for p in model.parameters())
    print(f"{steps} steps, {size:,} parameters, no .grad: loss {before:.4f} -> {after:.4f}")
    return before, after


def rated_sentences(tokenizer, split, count):
    """ "<sentence> It was great|terrible", the loss on the last word."""
    items = []
    for example in data.load("sentiment").split(split)[:count]:
        prompt = tokenizer(example["text"] + " It was")["input_ids"]
        answer = tokenizer(" great" if example["label"] else " terrible")["input_ids"]
        items.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return items


def tiny():
    """A random model, and sequences in which each token is the one before plus a fixed stride."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, pad_token_id=0,
    )  # fmt: skip
    ids = (torch.arange(64)[:, None] + 3 * torch.arange(8)) % 32
    return LlamaForCausalLM(config), [{"input_ids": row, "labels": row} for row in ids]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a model's name or folder, or 'tiny'")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--out", default="runs/mezo")
    given = parser.parse_args(arguments)
    if given.model == "tiny":
        model, items = tiny()
        return mezo(model, items, items, None, given.steps, given.lr or 1e-2, given.out)
    model, tokenizer = load_model(given.model)
    train_set, eval_set = rated_sentences(tokenizer, "train", None), rated_sentences(tokenizer, "validation", 100)
    collator = DataCollatorForSeq2Seq(tokenizer)
    return mezo(model, train_set, eval_set, collator, given.steps, given.lr or 2e-6, given.out)


if __name__ == "__main__":
    main()
