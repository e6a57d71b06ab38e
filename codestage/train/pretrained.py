"""Models that are trained already: what they are, and their weights as a checkpoint to begin from."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from codestage.attention import PRODUCTS, other_layers, reach_of
from codestage.data.own_code import unreadable
from codestage.data.place import place_of
from codestage.errors import UserError
from codestage.study.models import ModelShape
from codestage.study.schema import ModelSpec
from codestage.train import checkpoint
from codestage.train.attention import seen_in
from codestage.train.state import CURVE

NOT_SHAPE = (
    "_name_or_path",
    "auto_map",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "quantization_config",
)
"""Settings of a configuration that say nothing of what is computed here."""
AFTER_HEAD = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}
"""Settings of what some models do to their logits after the head, at the value that does nothing."""
MODEL_FILES = ("*.safetensors", "config.json")


def pretrained_shape(
    spec: ModelSpec, folder: Path, *, vocabulary: int, marks: tuple[int, int, int], seq_len: int
) -> ModelShape:
    """The shape of the model that `spec` names; `vocabulary` is the tokenizer's size.

    Raises:
        UserError: no such model, or tokenizer or row length do not fit it.
    """
    place, more = place_of(spec, folder)
    try:
        config: Any = AutoConfig.from_pretrained(place, trust_remote_code=False, **more)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # readers of foreign files raise anything
        raise unreadable(_told(spec), error) from None
    for key, nothing in AFTER_HEAD.items():
        if (value := getattr(config, key, None)) not in (None, nothing):
            raise UserError(
                f"{_told(spec)}: {key} {value}: a {config.model_type} changes its logits after the head, which "
                "codestage does not do; take another model"
            )
    if kinds := other_layers(config):
        raise UserError(
            f"{_told(spec)}: a {config.model_type} with layers of {', '.join(sorted(kinds))}: documents in one row would "
            "see each other; take a model whose layers are all full or sliding attention"
        )
    if vocabulary > config.vocab_size:
        if not spec.grow:
            raise UserError(
                f"{_told(spec)}: the tokenizer has {vocabulary:,} tokens, the model {config.vocab_size:,}; take the "
                "model's own tokenizer, or grow the model to it in all arms alike with grow: true"
            )
        config.vocab_size = vocabulary
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    longest = getattr(config, "max_position_embeddings", seq_len)
    if seq_len > longest:
        raise UserError(
            f"{_told(spec)}: takes rows of {longest:,} tokens at most; lower seq_len {seq_len:,}"
        )
    table = model.get_input_embeddings().weight.numel()
    head = model.get_output_embeddings().weight.numel()
    tied = bool(config.tie_word_embeddings)
    total = sum(p.numel() for p in model.parameters())
    body = total - table - (0 if tied else head)
    heads = int(config.num_attention_heads)
    return ModelShape(
        family=str(config.model_type),
        hidden_size=int(config.hidden_size),
        layers=int(config.num_hidden_layers),
        heads=heads,
        kv_heads=int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads),
        intermediate_size=int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size),
        vocab_size=int(config.vocab_size),
        tied=tied,
        precision=spec.precision,
        recompute=spec.recompute,
        compile=spec.compile,
        marks=marks,
        config=_settings(config, marks),
        counted=(total, body),
        active=_active(model, config, body),
        attends=heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads),
    )


def _active(model: Any, config: Any, body: int) -> int:
    """Of `body` parameters without embeddings, those that one token meets: some of the experts, all of the rest."""
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    there = next((n for name in names if (n := getattr(config, name, None))), None)
    asked = getattr(config, "num_experts_per_tok", None)
    return body if not (experts and there and asked) else body - experts + experts * asked // there


def _settings(config: Any, marks: tuple[int, int, int]) -> str:
    """What is computed, as JSON: without dropout, which a resumed run could not repeat."""
    settings = {k: v for k, v in config.to_dict().items() if k not in NOT_SHAPE}
    for name, value in settings.items():
        if isinstance(value, float) and ("drop" in name):
            settings[name] = 0.0
    begin, end, pad = marks
    settings |= {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}
    return json.dumps(settings, sort_keys=True)


def fetch_pretrained(spec: ModelSpec, folder: Path, shape: ModelShape, out: Path) -> None:
    """Write the weights that `spec` names as a checkpoint before its first batch, in float32.

    Raises:
        UserError: the weights cannot be read.
    """
    place, more = place_of(spec, folder)
    safe = {} if "gguf_file" in more else {"use_safetensors": True}
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, trust_remote_code=False, **safe, **more
        )
    except Exception as error:
        raise unreadable(_told(spec), error) from None
    _check_head(model, spec)
    _check_documents(model, spec)
    _grow(model, shape.vocab_size)
    begun = checkpoint.Checkpoint(
        weights={n: _copy(p) for n, p in model.named_parameters()},
        optimizer={},
        curve=CURVE.empty_table(),
        config=_settings_of_checkpoint(shape),
        state=checkpoint.State(stage="", batch=0, tokens=0, seed=0),
    )
    checkpoint.save(begun, out)


def _copy(weight: Tensor) -> Tensor:
    """A copy as safetensors writes it: what comes from a .gguf may lie in memory column by column."""
    return weight.detach().clone(memory_format=torch.contiguous_format)


@torch.no_grad()
def _grow(model: Any, vocabulary: int) -> None:
    """Give the model `vocabulary` embeddings; new ones are the mean of the old, and so are the head's."""
    before = model.config.vocab_size
    if vocabulary <= before:
        return
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    for table in {
        id(t): t for t in (model.get_input_embeddings(), model.get_output_embeddings())
    }.values():
        table.weight[before:] = table.weight[:before].mean(0)
        if getattr(table, "bias", None) is not None:
            table.bias[before:] = table.bias[:before].mean()


@torch.no_grad()
def _check_head(model: Any, spec: ModelSpec) -> None:
    """Training and evaluation put the head on the last hidden state; some models do more than that."""
    tokens = torch.arange(1, 9)[None]
    whole = model.eval()(tokens).logits
    ours = model.get_output_embeddings()(model.base_model(tokens).last_hidden_state)
    if not torch.allclose(whole, ours, atol=1e-4):
        raise UserError(
            f"{_told(spec)}: a {model.config.model_type} changes its logits after the head, which codestage "
            "does not do; take another model"
        )


@torch.no_grad()
def _check_documents(model: Any, spec: ModelSpec) -> None:
    """In one row with others, under codestage's attention, a document must be what the model itself makes of it alone.

    A model's own code may attend in its own way, so that documents see each other; and its attention may hold more
    than products do, such as sinks.
    """
    tokens, positions = torch.arange(1, 9)[None], torch.arange(4).repeat(2)[None]
    alone = model.base_model(tokens[:, 4:], use_cache=False).last_hidden_state
    seen = seen_in(torch.tensor([[0] * 4 + [1] * 4]), reach_of(model.config))
    model.set_attn_implementation(PRODUCTS)
    model.config._attn_implementation = PRODUCTS
    told = {"attention_mask": seen, "position_ids": positions, "use_cache": False}
    try:
        ours = model.base_model(tokens, **told).last_hidden_state[:, 4:]
        same = torch.allclose(ours, alone, rtol=1e-3, atol=1e-3)
    except (TypeError, ValueError, RuntimeError):  # takes no such mask
        same = False
    if not same:
        raise UserError(
            f"{_told(spec)}: a {model.config.model_type} attends in a way that codestage's training does not (documents in "
            "one row would see each other, or scores have sinks or caps); take another model"
        )


def _settings_of_checkpoint(shape: ModelShape) -> str:
    config: Any = AutoConfig.for_model(**json.loads(shape.config))
    return str(config.to_json_string())


def _told(spec: ModelSpec) -> str:
    return str(spec.hub.id if spec.hub else spec.path)
