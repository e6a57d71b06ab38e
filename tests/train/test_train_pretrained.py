"""Weights as others save theirs: however they lie in memory, and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_fixture import SEQ_LEN, VOCAB
from transformers import AutoConfig, AutoModelForCausalLM

from codestage.errors import UserError
from codestage.study.schema import ModelSpec
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
