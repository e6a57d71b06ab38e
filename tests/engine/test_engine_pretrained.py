"""Studies on a model that is trained already: its weights are where training begins."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file
from tokenizer_fixture import foreign
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from codestage.engine.model_steps import model_shape, model_step
from codestage.engine.plan import plan
from codestage.engine.run import run
from codestage.engine.store import Store
from codestage.engine.work import Workshop
from codestage.errors import RunError, UserError
from codestage.study.load import load_study
from codestage.train.pretrained import fetch_pretrained

MODEL = (
    "model: {family: llama, hidden_size: 32, layers: 1, heads: 2, precision: float32, compile: false}"
)
TOKENIZER = "{train: bpe, vocab_size: 384}"
HEAD, TAIL = TINY.split("  pretrain:\n")
TUNE = (
    HEAD + "  tune:\n" + TAIL.split("  tune:\n")[1].replace("controls: [token-matched, additive]\n", "")
)


def pretrained(folder: Path, model_type: str = "qwen2", positions: int = 256) -> Path:
    """A tiny model with its tokenizer, saved as others save theirs."""
    tokenizer = AutoTokenizer.from_pretrained(foreign(folder))
    config = AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer) + 8,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        attention_dropout=0.1,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def study(folder: Path, text: str = TUNE) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(
        text.replace(MODEL, "model: {path: model, precision: float32, compile: false}")
        .replace(TOKENIZER, "{path: model, chat_template: true}")
        .replace("seeds: 2", "seeds: 1")
        .replace("seq_len: 64", "seq_len: 256")
    )
    return path


@pytest.mark.slow
def test_tuning_begins_at_the_pretrained_weights_and_both_arms_share_them(tmp_path):
    model = pretrained(tmp_path)
    path = study(tmp_path)
    planned = plan(path)
    assert planned["runs"] == 2
    out = tmp_path / "out"
    run(path, out, workers=2, on_event=lambda event: None)
    (begun,) = (out / "store" / "model").glob("*")
    given = AutoModelForCausalLM.from_pretrained(model)
    held = load_file(begun / "model.safetensors")
    for name, weight in given.named_parameters():
        assert torch.equal(held[name], weight), name
    trained = sorted((out / "store" / "train").glob("*"))
    assert len(trained) == 2
    for folder in trained:
        assert json.loads((folder / "step.json").read_text())["inputs"]["model"] == begun.name
        tuned = AutoModelForCausalLM.from_pretrained(folder)
        assert tuned.config.model_type == "qwen2"
        moved = [(weight - held[name]).abs().max().item() for name, weight in tuned.named_parameters()]
        assert 0 < max(moved) < 0.1  # a few steps from where it began
    told = json.loads((out / "results" / "study.json").read_text())["model"]
    assert (told["family"], told["pretrained"]) == ("qwen2", "model")
    assert told["parameters"] == sum(p.numel() for p in given.parameters())


def test_what_does_not_fit_is_told_with_its_line(tmp_path):
    pretrained(tmp_path, positions=32)
    with pytest.raises(UserError, match=r"tiny.yaml:2: model: takes rows of 32 tokens at most"):
        plan(study(tmp_path))
    path = study(tmp_path)
    path.write_text(path.read_text().replace("{path: model, chat_template: true}", TOKENIZER))
    with pytest.raises(UserError, match=r"tiny.yaml:3: a pretrained model has its own tokenizer"):
        load_study(path)
    path = study(tmp_path)
    path.write_text(path.read_text().replace("{path: model, precision", "{path: nowhere, precision"))
    with pytest.raises(UserError, match=r"tiny.yaml:2: nowhere: no such folder"):
        plan(path)


def test_dropout_is_off_and_the_parameters_are_counted(tmp_path):
    model = pretrained(tmp_path)
    path = study(tmp_path)
    shape = model_shape(load_study(path), path)
    assert json.loads(shape.config)["attention_dropout"] == 0.0
    given = AutoModelForCausalLM.from_pretrained(model)
    table = given.get_input_embeddings().weight.numel()
    total = sum(p.numel() for p in given.parameters())
    assert shape.counted == (total, total - table)


def test_a_model_grows_to_its_tokenizer_only_if_asked(tmp_path):
    folder = pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    known = len(AutoTokenizer.from_pretrained(folder)) - 5
    model.resize_token_embeddings(known)
    model.save_pretrained(folder)
    path = study(tmp_path)
    with pytest.raises(UserError, match=r"tiny.yaml:2: model: the tokenizer has .* grow: true"):
        plan(path)
    path.write_text(
        path.read_text().replace("path: model, precision", "path: model, grow: true, precision")
    )
    asked = load_study(path)
    shape = model_shape(asked, path)
    assert shape.vocab_size == known + 5
    fetch_pretrained(asked.model, tmp_path, shape, tmp_path / "begun")
    grown = AutoModelForCausalLM.from_pretrained(tmp_path / "begun")
    assert shape.counted[0] == sum(p.numel() for p in grown.parameters())
    before, after = model.get_input_embeddings().weight, grown.get_input_embeddings().weight
    assert torch.equal(after[:known], before)
    torch.testing.assert_close(after[known:], before.mean(0).expand(5, -1))
    ids = torch.tensor([[3, 4, 5]])
    torch.testing.assert_close(grown(ids).logits[..., :known], model(ids).logits)


def test_weights_that_could_not_be_committed_are_fetched_anew(tmp_path, monkeypatch):
    pretrained(tmp_path)
    path = study(tmp_path)
    made = load_study(path)
    one = model_step(made, path, model_shape(made, path))
    shop = Workshop(Store(tmp_path / "out"), lambda: False, lambda body: None, compiled=False)

    def full(*_):
        raise RunError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "commit", full)
        with pytest.raises(RunError):
            shop.do(one)
    shop.do(one)
    assert shop.store.has(one)
