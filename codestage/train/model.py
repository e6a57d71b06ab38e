"""Models: Transformers causal language models, with attention made for packed rows."""

import json
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn
from transformers import (
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

from codestage.pangu import PanguConfig
from codestage.study.models import ModelShape
from codestage.study.seeds import child
from codestage.train.attention import attention_for
from codestage.train.loss import PackedLoss

WIDE = 256
"""Hidden size from which layers are compiled one by one on a processor: all are one graph then, made in a fourth of the
time for six to eight of them and in a seventeenth for thirty, and 1.4 % slower at most; narrower layers are over too
soon to be called by themselves (benchmarks/train_compile.py)."""
SHAPES_AT_ONCE = 64
"""Shapes of micro-batches, held-out ones apart, for which a worker keeps compiled graphs."""
Forward = Callable[..., Any]
"""See `PackedLoss.forward`."""


def build_model(
    shape: ModelShape, seq_len: int, seed: int, device: torch.device | None = None
) -> PreTrainedModel:
    """A freshly initialised model in float32, on CPU, with the attention that serves `device`.

    The global random state is left as it was.
    """
    config = _config(shape, seq_len)
    config._attn_implementation = attention_for(device or torch.device("cpu"))
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
    if shape.family in ("gpt2", "pangu"):
        return (GPT2Config if shape.family == "gpt2" else PanguConfig)(
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


def recompute_activations(model: PreTrainedModel) -> None:
    """Have activations computed again for the gradients, layer by layer."""
    # renamed in the course of Transformers 5
    enable: Any = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The layers, which are alike."""
    lists = (m for m in model.base_model.modules() if isinstance(m, nn.ModuleList))
    return max(lists, key=len)


class ModelPool:
    """Built and compiled models by shape: arms that share a shape share one compiled graph.

    A worker keeps one pool; weights are loaded into the pooled model for each piece of work. `change` is
    applied to a model when it is built; `key` tells models that are changed differently apart.
    """

    def __init__(self, *, compiled: bool, device: torch.device | None = None) -> None:
        self.compiled, self.device = compiled, device or torch.device("cpu")
        if compiled:  # beyond the usual eight a worker would go on without a compiler, to other bits
            torch._dynamo.config.recompile_limit = SHAPES_AT_ONCE
        self._held: dict[tuple[ModelShape, int, Hashable], tuple[PreTrainedModel, Forward]] = {}

    def get(
        self,
        shape: ModelShape,
        seq_len: int,
        key: Hashable = None,
        change: Callable[[PreTrainedModel], None] = lambda model: None,
    ) -> tuple[PreTrainedModel, Forward]:
        """The model in its training precision on the pool's device, and its forward pass."""
        place = (shape, seq_len, key)
        if place not in self._held:
            model = build_model(shape, seq_len, 0, self.device)
            if shape.precision == "bf16":
                for parameter in model.parameters():  # not the buffers: rotary angles need float32
                    parameter.data = parameter.data.bfloat16()
            change(model)
            if shape.recompute:
                recompute_activations(model)
            compiled = self.compiled and shape.compile
            if compiled:
                by_layer = self.device.type == "cpu" and shape.hidden_size >= WIDE
                for part in layers_of(model) if by_layer else [model.base_model]:
                    part.compile(dynamic=False)
            self._held[place] = (model, PackedLoss(model, compiled=compiled).to(self.device))
        return self._held[place]
