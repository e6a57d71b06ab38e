"""Weights as others save theirs: however they lie in memory, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_fixture import SEQ_LEN, VOCAB
from transformers import AutoConfig, AutoModelForCausalLM

from codestage.attention import reach_of
from codestage.errors import UserError
from codestage.study.models import parameters, train_flops_per_token
from codestage.study.schema import ModelSpec
from codestage.train.attention import seen_in
from codestage.train.model import build_model
from codestage.train.pretrained import fetch_pretrained, pretrained_shape


def saved(folder: Path, model_type: str, **settings: object) -> ModelSpec:
    config = AutoConfig.for_model(
        model_type,
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        **settings,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    return ModelSpec(path="model")


def shape_of(spec: ModelSpec, folder: Path):
    return pretrained_shape(spec, folder, vocabulary=VOCAB, marks=(0, 0, 1), seq_len=SEQ_LEN)


def test_weights_that_lie_column_by_column_are_written(tmp_path, monkeypatch):
    """As those of a GPT-2 in a .gguf do."""
    spec = saved(tmp_path, "gpt2")
    given = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    read = AutoModelForCausalLM.from_pretrained

    def by_columns(*place, **more):
        model = read(*place, **more)
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.data = weight.data.T.contiguous().T
        return model

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", by_columns)
    fetch_pretrained(spec, tmp_path, shape_of(spec, tmp_path), tmp_path / "begun")
    held = load_file(tmp_path / "begun" / "model.safetensors")
    for name, weight in given.named_parameters():
        assert torch.equal(held[name], weight), name


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("gemma2", {"final_logit_softcapping": 30.0, "num_key_value_heads": 2, "head_dim": 4}),
        ("cohere", {"logit_scale": 0.0625, "num_key_value_heads": 2}),
        ("granite", {"logits_scaling": 8.0, "num_key_value_heads": 2}),
    ],
)
def test_a_model_that_changes_its_logits_after_the_head_is_refused(tmp_path, model_type, settings):
    spec = saved(tmp_path, model_type, intermediate_size=32, **settings)
    key, value = next(iter(settings.items()))
    with pytest.raises(UserError, match=f"model: {key} {value}: a {model_type} changes its logits"):
        shape_of(spec, tmp_path)


def test_a_model_that_could_change_its_logits_but_does_not_is_taken(tmp_path):
    spec = saved(tmp_path, "granite", intermediate_size=32, num_key_value_heads=2, logits_scaling=1.0)
    fetch_pretrained(spec, tmp_path, shape_of(spec, tmp_path), tmp_path / "begun")
    assert (tmp_path / "begun" / "model.safetensors").exists()


WINDOWED = {
    "mistral": {},
    "phi3": {},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"], "head_dim": 4},
    "olmo3": {"layer_types": ["sliding_attention", "full_attention"]},
}


@torch.no_grad()
@pytest.mark.parametrize("model_type", WINDOWED)
def test_layers_that_look_back_a_window_do_so_in_training_in_each_document(tmp_path, model_type):
    """Beside the model's own attention over each document alone; documents are longer than the window."""
    settings = {
        "sliding_window": 5,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
        **WINDOWED[model_type],
    }
    spec = saved(tmp_path, model_type, **settings, max_position_embeddings=64, pad_token_id=0)
    wide = pretrained_shape(spec, tmp_path, vocabulary=VOCAB, marks=(0, 0, 1), seq_len=32)
    ours = build_model(wide, 32, seed=3).eval()
    for name, weight in ours.named_parameters():
        if weight.ndim == 2 and "embed" not in name:
            weight.mul_(8)  # so that attention chooses
    own = AutoModelForCausalLM.from_config(ours.config, attn_implementation="eager").eval()
    own.load_state_dict(ours.state_dict())
    lengths = [20, 12]
    tokens = torch.randint(3, VOCAB, (1, 32), generator=torch.Generator().manual_seed(1))
    documents = torch.tensor([[d for d, n in enumerate(lengths) for _ in range(n)]])
    positions = torch.cat([torch.arange(n) for n in lengths])[None]

    def hidden(reach):
        told = {"attention_mask": seen_in(documents, reach), "position_ids": positions}
        return ours.base_model(tokens, **told, use_cache=False).last_hidden_state

    wanted = [
        own.base_model(part, use_cache=False).last_hidden_state for part in tokens.split(lengths, 1)
    ]
    torch.testing.assert_close(hidden(reach_of(ours.config)), torch.cat(wanted, 1), rtol=1e-3, atol=1e-3)
    assert (hidden(type(reach_of(ours.config))()) - torch.cat(wanted, 1)).abs().max() > 0.05, (
        "windows matter here"
    )


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        (
            "gpt_oss",
            {"num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 2},
        ),
        ("gemma2", {"attn_logit_softcapping": 50.0, "final_logit_softcapping": None}),
    ],
)
def test_attention_that_holds_more_than_products_is_refused(tmp_path, model_type, settings):
    more = {"num_key_value_heads": 2, "intermediate_size": 32, "head_dim": 4, "pad_token_id": 0}
    spec = saved(tmp_path, model_type, **more, **settings)
    with pytest.raises(
        UserError, match=f"model: a {model_type} attends in a way that codestage's training does not"
    ):
        fetch_pretrained(spec, tmp_path, shape_of(spec, tmp_path), tmp_path / "begun")


def test_layers_that_see_in_chunks_are_refused(tmp_path):
    more = {"num_key_value_heads": 2, "intermediate_size": 32, "head_dim": 4, "pad_token_id": 0}
    spec = saved(tmp_path, "qwen3", **more)
    config = tmp_path / "model" / "config.json"
    told = json.loads(config.read_text())
    told |= {"layer_types": ["chunked_attention", "full_attention"]}
    config.write_text(json.dumps(told))
    with pytest.raises(
        UserError, match="layers of chunked_attention: documents in one row would see each other"
    ):
        shape_of(spec, tmp_path)


def test_flops_count_the_heads_width_and_the_experts_that_are_asked(tmp_path):
    heads = {"num_key_value_heads": 2, "intermediate_size": 32, "head_dim": 8, "pad_token_id": 0}
    dense = shape_of(saved(tmp_path / "dense", "qwen3", **heads), tmp_path / "dense")
    d, wide, kv, f, layers = 16, 32, 16, 32, 2
    each = 2 * d * wide + 2 * d * kv + 3 * d * f + 2 * d + 2 * 8  # products, norms
    products = layers * each + d + VOCAB * d
    assert train_flops_per_token(dense, 10) == 6 * products + 6 * layers * 10 * wide
    experts = heads | {"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
    mixed = shape_of(saved(tmp_path / "mixed", "qwen3_moe", **experts), tmp_path / "mixed")
    one = 3 * d * 8
    each = 2 * d * wide + 2 * d * kv + one + 4 * d + 2 * d + 2 * 8  # one expert of four, and who chooses
    assert train_flops_per_token(mixed, 0) == 6 * (layers * each + d + VOCAB * d)
    assert parameters(mixed, embeddings=False) == layers * (each + 3 * one) + d
