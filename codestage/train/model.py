"""Models: Transformers causal language models, with attention and loss made for packed rows."""

import json
from collections.abc import Callable, Hashable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from codestage.study.models import ModelShape
from codestage.study.seeds import child

PACKED = "codestage_packed"
"""Name under which `packed_attention` is known to Transformers."""

Forward = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as plain products with a boolean mask `[batch, 1, seq, seq]`; softmax in float32.

    On CPU the backward pass of `scaled_dot_product_attention` in bf16 took 47 % of a small model's step
    in a profile; benchmarks/train_speed.py compares whole loops.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query @ key.transpose(-1, -2)).float() * scale
    weights = scores.masked_fill(~attention_mask, float("-inf")).softmax(-1)
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(PACKED, packed_attention)


def build_model(shape: ModelShape, seq_len: int, seed: int) -> PreTrainedModel:
    """A freshly initialised model in float32; the global random state is left as it was."""
    config = _config(shape, seq_len)
    config._attn_implementation = PACKED
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(child(seed, "init"))
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.train()


def _config(shape: ModelShape, seq_len: int) -> PretrainedConfig:
    """The family's own configuration, without dropout: a small model sees no document twice."""
    if shape.config:
        settings = json.loads(shape.config)
        return AutoConfig.for_model(**settings)
    begin, end, pad = shape.marks
    common: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": pad,
    }
    if shape.family == "gpt2":
        return GPT2Config(
            n_embd=shape.hidden_size,
            n_inner=shape.intermediate_size,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_positions=seq_len,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            **common,
        )
    common |= {
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": seq_len,
    }
    if shape.family == "neox":
        return GPTNeoXConfig(**common)
    common["num_key_value_heads"] = shape.kv_heads
    if shape.family == "mistral":
        return MistralConfig(sliding_window=None, **common)
    if shape.family == "llama":
        return LlamaConfig(**common)
    family = {"qwen": Qwen3Config, "gemma": GemmaConfig}[shape.family]
    return family(head_dim=shape.hidden_size // shape.heads, **common)


def document_mask(documents: Tensor) -> Tensor:
    """`[batch, seq]` document numbers -> `[batch, 1, seq, seq]`: True where one may look."""
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return ((documents[:, None, :] == documents[:, :, None]) & causal)[:, None]


def make_forward(model: PreTrainedModel, *, compiled: bool) -> Forward:
    """`(tokens, documents, positions, labels)`, all `[batch, seq]` -> (nats summed, nats a row).

    Labels of -100 take no loss. Logits are only made here: in one piece, or, where they would be more than
    `LOGITS_AT_ONCE`, in pieces that are gone before the next is made.
    """

    base, head = model.base_model, model.get_output_embeddings()

    def forward(
        tokens: Tensor, documents: Tensor, positions: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        hidden = base(
            input_ids=tokens,
            attention_mask=document_mask(documents),
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        parts = -(-labels.numel() * head.weight.shape[0] // LOGITS_AT_ONCE)
        if parts == 1 or getattr(head, "bias", None) is not None:
            logits = head(hidden).float()
            nats = F.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none"
            )
            rows = nats.view(labels.shape).sum(1)
            return rows.sum(), rows.detach()
        total, each = PiecewiseNats.apply(hidden.flatten(0, 1), head.weight, labels.flatten(), parts)
        return total, each.view(labels.shape).sum(1)

    return torch.compile(forward, dynamic=False) if compiled else forward


LOGITS_AT_ONCE = 1 << 25
"""Logits in memory at a time, in float32: 134 MB."""


class PiecewiseNats(torch.autograd.Function):
    """Cross-entropy of a head without bias: memory does not grow with vocabulary x batch.

    The gradients are made with the loss, a piece of the rows at a time, since the logits that they need
    are at hand then (as in Wijmans et al. 2024, 2411.09009, and Hsu et al. 2024, 2410.10989); that of the head is
    summed in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, parts: int
    ) -> tuple[Tensor, Tensor]:
        """`hidden` `[n, h]`, `weight` `[vocab, h]`, `labels` `[n]` -> (nats summed, nats `[n]`)."""
        nats, hidden_grad, weight_grad = [], [], torch.zeros_like(weight, dtype=torch.float32)
        for rows, wanted in zip(hidden.chunk(parts), labels.chunk(parts), strict=True):
            logits = (rows @ weight.T).float()
            predicted = wanted >= 0
            index = wanted.clamp(min=0)[:, None]
            log_z = logits.logsumexp(-1, keepdim=True)
            nats.append(torch.where(predicted, (log_z - logits.gather(1, index))[:, 0], 0.0))
            slope = (logits - log_z).exp()
            slope = slope.scatter_add(1, index, torch.full_like(log_z, -1.0)) * predicted[:, None]
            slope = slope.to(rows.dtype)
            hidden_grad.append(slope @ weight)
            weight_grad += slope.T @ rows
        ctx.save_for_backward(torch.cat(hidden_grad), weight_grad.to(weight.dtype))
        each = torch.cat(nats)
        ctx.mark_non_differentiable(each)
        return each.sum(), each

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The stored gradients, scaled by the sum's own."""
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * grads[0], weight_grad * grads[0], None, None


class ModelPool:
    """Built and compiled models by shape: arms that share a shape share one compiled graph.

    A worker keeps one pool; weights are loaded into the pooled model for each piece of work. `change` is
    applied to a model when it is built; `key` tells models that are changed differently apart.
    """

    def __init__(self, *, compiled: bool) -> None:
        self.compiled = compiled
        self._held: dict[tuple[ModelShape, int, Hashable], tuple[PreTrainedModel, Forward]] = {}

    def get(
        self,
        shape: ModelShape,
        seq_len: int,
        key: Hashable = None,
        change: Callable[[PreTrainedModel], None] = lambda model: None,
    ) -> tuple[PreTrainedModel, Forward]:
        """The model in its training precision, and its forward pass."""
        place = (shape, seq_len, key)
        if place not in self._held:
            model = build_model(shape, seq_len, seed=0)
            if shape.precision == "bf16":
                model = model.bfloat16()
            change(model)
            if shape.recompute:
                # renamed in the course of Transformers 5
                enable: Any = getattr(model, "activation_checkpointing_enable", None)
                (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
            self._held[place] = (model, make_forward(model, compiled=self.compiled))
        return self._held[place]
