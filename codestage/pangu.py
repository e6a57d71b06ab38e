"""PanGu-alpha: a GPT with a query layer on top (Zeng et al. 2021, 2104.12369, section 3).

The last layer asks with an embedding of the position to be predicted in place of the hidden state. Here
because Transformers has no such model; importing this file makes it known there, and an export carries it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, GPT2Config, GPT2LMHeadModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gpt2.modeling_gpt2 import (
    GPT2MLP,
    GPT2Model,
    GPT2PreTrainedModel,
    eager_attention_forward,
)


class PanguConfig(GPT2Config):
    """GPT-2's settings; the last of its layers is the query layer."""

    model_type = "pangu_alpha"


class QueryLayer(GradientCheckpointingLayer):
    """A layer whose queries are embeddings of positions; keys, values and residual are the hidden states."""

    def __init__(self, config: PanguConfig, layer_idx: int) -> None:
        super().__init__()
        size, self.heads, self.layer_idx = config.n_embd, config.n_head, layer_idx
        self.config = config
        self.is_causal = True
        self.ln_1 = nn.LayerNorm(size, eps=config.layer_norm_epsilon)
        self.q_proj, self.k_proj = nn.Linear(size, size), nn.Linear(size, size)
        self.v_proj, self.o_proj = nn.Linear(size, size), nn.Linear(size, size)
        self.ln_2 = nn.LayerNorm(size, eps=config.layer_norm_epsilon)
        self.mlp = GPT2MLP(config.n_inner or 4 * size, config)

    def forward(
        self, hidden: Tensor, asked: Tensor, mask: Any = None, cache: Any = None, **more: Any
    ) -> Tensor:
        """`hidden` and `asked` `[batch, seq, h]`, embeddings of the positions asked for -> `[batch, seq, h]`."""
        normed = self.ln_1(hidden)
        key, value = self._heads(self.k_proj(normed)), self._heads(self.v_proj(normed))
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        query = self._heads(self.q_proj(asked))
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        found, _ = attend(self, query, key, value, mask, scaling=query.shape[-1] ** -0.5, **more)
        hidden = hidden + self.o_proj(found.flatten(-2))
        return hidden + self.mlp(self.ln_2(hidden))

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class PanguModel(GPT2Model):
    """GPT-2 with a query layer in place of its last layer."""

    config_class = PanguConfig

    def __init__(self, config: PanguConfig) -> None:
        super().__init__(config)
        del self.h[-1]
        self.wqe = nn.Embedding(config.n_positions, config.n_embd)
        self.query = QueryLayer(config, config.n_layer - 1)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **more: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """As GPT-2's."""
        more = {name: more[name] for name in more.keys() & {"dropout"}}
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        states = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(seen, seen + states.shape[1], device=states.device)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=states,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        cache = past_key_values if use_cache else None
        hidden = self.drop(states + self.wpe(position_ids))
        for block in self.h:
            hidden = block(hidden, cache, mask, use_cache=use_cache, **more)
        hidden = self.query(self.ln_f(hidden), self.wqe(position_ids), mask, cache, **more)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden, past_key_values=cache)


class PanguForCausalLM(GPT2LMHeadModel):
    """The query layer's output through a head that is tied to the embeddings."""

    config_class = PanguConfig

    def __init__(self, config: PanguConfig) -> None:
        GPT2PreTrainedModel.__init__(self, config)  # not GPT-2's own, which would build a GPT-2
        self.transformer = PanguModel(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()


AUTO_MAP = {"AutoConfig": "pangu.PanguConfig", "AutoModelForCausalLM": "pangu.PanguForCausalLM"}
"""What the configuration says of a folder that carries this file."""
AutoConfig.register("pangu_alpha", PanguConfig, exist_ok=True)
AutoModelForCausalLM.register(PanguConfig, PanguForCausalLM, exist_ok=True)
