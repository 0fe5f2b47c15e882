"""Small modules around a causal language model that compute only the logits a loss reads.

A vocabulary has tens of thousands of rows and a text dozens of positions; a classification reads two logits
of them. Each head runs the model without its output layer and multiplies only what is needed. Parameters
stay the model's own: ``head.named_parameters()`` are ``model.named_parameters()`` with ``"model."`` in front.

A model may do more to its logits than one linear map (scale, cap, or move them). The short cut is taken only
where :func:`is_plain` finds that it reproduces the model's own logits; else the model's own forward runs.
"""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from covector.errors import ArgumentError, UnsupportedError
from covector.language.encoding import IGNORED, Padding

__all__ = ["PREFIX", "TokenHead", "VerbalizerHead", "is_plain", "last_positions"]

PREFIX = "model."
_PROBE = 8
_AGREES: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()  # a probe a model is enough
_SOFT_CAP = re.compile(r"logit.*soft_?cap|^soft_?cap")


class _Head(nn.Module):
    """What both heads share: the model, and its hidden states for either side of padding."""

    def __init__(self, model: nn.Module, padding: Padding) -> None:
        super().__init__()
        if padding not in ("right", "left"):
            raise ArgumentError("padding", padding, "'right' or 'left'")
        self.model = model
        self.padding = padding
        self.plain = is_plain(_causal(model))

    @property
    def causal(self) -> Any:
        """The model itself; under PEFT adapters, the model that they changed in place."""
        return _causal(self.model)

    def context(self, runner: nn.Module, attention_mask: Tensor) -> dict[str, Any]:
        """The arguments that make padding invisible to ``runner``.

        Behind causal attention nothing reads padding on the right, so no mask is passed and attention takes
        its fastest kernel. Padding on the left must be masked, and positions count from the first token.
        """
        if self.padding == "right":
            return {"use_cache": False}
        options: dict[str, Any] = {"use_cache": False, "attention_mask": attention_mask}
        if "position_ids" in inspect.signature(runner.forward).parameters:
            options["position_ids"] = (attention_mask.cumsum(1) - 1).clamp(min=0)
        return options

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states before the output layer: ``[B, L, H]``."""
        base = self.causal.base_model
        options = self.context(base, attention_mask)
        states: Tensor = base(input_ids=input_ids, **options).last_hidden_state
        return states

    def own_logits(self, input_ids: Tensor, attention_mask: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits of the model's own forward: ``[B, L, V]``, or the columns ``keep`` of them."""
        causal = self.causal
        options = self.context(causal, attention_mask)
        if keep is not None and "logits_to_keep" in inspect.signature(causal.forward).parameters:
            kept: Tensor = causal(input_ids=input_ids, logits_to_keep=keep, **options).logits
            return kept
        logits: Tensor = causal(input_ids=input_ids, **options).logits
        return logits if keep is None else logits[:, keep]


class VerbalizerHead(_Head):
    """Logits of a few tokens at the last position of each text.

    They are computed in float32 whatever the model's dtype: the loss depends on small differences of
    logits that bfloat16 would round away.

    Args:
        model: a Hugging Face causal language model, or a PEFT model around one.
        token_ids: the tokens, one a class.
        padding: the side on which batches are padded.

    >>> from covector.language import tiny_model
    >>> model, tokenizer = tiny_model("it was great terrible")
    >>> ids = torch.tensor([tokenizer("it was").input_ids])
    >>> logits = VerbalizerHead(model, tokenizer("great terrible").input_ids)(ids, torch.ones_like(ids))
    >>> torch.allclose(logits, model(ids).logits[:, -1, 6:8], atol=1e-5)
    True
    """

    token_ids: Tensor

    def __init__(self, model: nn.Module, token_ids: Sequence[int], padding: Padding = "right") -> None:
        super().__init__(model, padding)
        device = next(model.parameters()).device
        self.register_buffer("token_ids", torch.tensor(list(token_ids), device=device), persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits ``[B, n]`` of texts ``[B, L]``; ``labels`` are for the loss and not used here."""
        device = self.token_ids.device
        input_ids, attention_mask = input_ids.to(device), attention_mask.to(device)
        last = last_positions(attention_mask)
        if not self.plain:
            columns, place = torch.unique(last, return_inverse=True)
            logits = self.own_logits(input_ids, attention_mask, columns)
            final = logits.gather(1, place[:, None, None].expand(-1, 1, logits.shape[2])).squeeze(1)
            return final[:, self.token_ids].float()
        states = self.hidden(input_ids, attention_mask)
        final = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
        output = self.causal.get_output_embeddings()
        bias = None if output.bias is None else output.bias[self.token_ids].float()
        # a lookup, not an index: what evaluates perturbed parameters then perturbs these rows alone
        rows = F.embedding(self.token_ids, output.weight)
        return F.linear(final.float(), rows.float(), bias)


class TokenHead(_Head):
    """Logits that predict the next token, at the positions that have a label.

    Args:
        model: a Hugging Face causal language model, or a PEFT model around one.
        padding: the side on which batches are padded.
        select: ``True`` computes logits only where the next position has a label and gives ``[T, V]``;
            ``False`` computes all and gives ``[B, L - 1, V]``, for text without padding (and for ``vmap``,
            where the number of labels may not decide a shape).

    >>> from covector.language import tiny_model
    >>> model, tokenizer = tiny_model("it was great")
    >>> ids = torch.tensor([tokenizer("it was great").input_ids])
    >>> labels = torch.tensor([[-100, -100, 6]])  # only the last word is predicted
    >>> TokenHead(model)(ids, torch.ones_like(ids), labels).shape
    torch.Size([1, 7])
    """

    def __init__(self, model: nn.Module, padding: Padding = "right", select: bool = True) -> None:
        super().__init__(model, padding)
        self.select = select

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """Logits in the model's dtype; see ``select``."""
        device: torch.device = self.causal.get_input_embeddings().weight.device
        input_ids, attention_mask = input_ids.to(device), attention_mask.to(device)
        wanted = labels[:, 1:].to(device) != IGNORED
        if not self.plain:
            every = self.own_logits(input_ids, attention_mask)[:, :-1]
            return every[wanted] if self.select else every
        states = self.hidden(input_ids, attention_mask)[:, :-1]
        logits: Tensor = self.causal.get_output_embeddings()(states[wanted] if self.select else states)
        return logits


def last_positions(attention_mask: Tensor) -> Tensor:
    """Column of the last real token of each row ``[B]``, for padding on either side.

    >>> last_positions(torch.tensor([[1, 1, 0], [0, 1, 1]])).tolist()
    [1, 2]
    """
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (attention_mask * columns).argmax(1)


def is_plain(model: Any) -> bool:
    """Whether the model's logits are exactly its output embedding applied to its last hidden state.

    Measured, not guessed from the architecture's name: one forward of a few tokens, in which the hidden
    states are caught on their way. A soft cap is nearly linear at small logits, so its setting decides.

    Args:
        model: a causal language model as transformers builds it.
    """
    output = model.get_output_embeddings()
    if type(output) is not nn.Linear or model.base_model is model or _caps(model.config):
        return False
    if model not in _AGREES:
        _AGREES[model] = _agrees(model, output)
    return _AGREES[model]


@torch.no_grad()
def _agrees(model: Any, output: nn.Linear) -> bool:
    """Whether one forward of the model and its output layer on the states seen there give the same logits."""
    caught: list[Any] = []
    handle = model.base_model.register_forward_hook(lambda _module, _inputs, result: caught.append(result))
    try:
        device = output.weight.device
        with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
            tokens = torch.arange(min(_PROBE, output.out_features), device=device)[None]
            logits = model(input_ids=tokens, use_cache=False).logits.float()
    finally:
        handle.remove()
    states = getattr(caught[-1], "last_hidden_state", None) if caught else None
    if states is None:
        return False
    expected = output(states.to(output.weight.dtype)).float()
    tolerance = max(1e-4, 2 * torch.finfo(output.weight.dtype).eps) * expected.abs().max()
    # a model that outputs zeros everywhere says nothing about what it does to its logits
    return bool(tolerance > 0) and bool((logits - expected).abs().max() <= tolerance)


def _caps(config: Any) -> bool:
    return any(_SOFT_CAP.search(key) and value for key, value in config.get_text_config().to_dict().items())


def _causal(model: Any) -> Any:
    if not hasattr(model, "peft_config"):
        causal = model
    elif any(config.is_prompt_learning for config in model.peft_config.values()):
        raise UnsupportedError("prompt-learning PEFT methods are not supported; use LoRA or the full model")
    else:
        causal = model.get_base_model()
    if not hasattr(causal, "get_output_embeddings") or causal.get_output_embeddings() is None:
        raise UnsupportedError(f"{type(causal).__name__} has no output embeddings; expected a causal language model")
    return causal
