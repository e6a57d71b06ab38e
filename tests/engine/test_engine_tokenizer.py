"""A study with a tokenizer from outside and its chat template, end to end."""

import json

import pytest
from conftest import TINY
from safetensors.numpy import load_file
from tokenizer_fixture import foreign
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from codestage.cli import app
from codestage.engine.plan import plan
from codestage.engine.run import run
from codestage.errors import UserError

OWN = "{train: bpe, vocab_size: 384}"


@pytest.mark.slow
def test_a_study_takes_a_tokenizer_and_tunes_and_evaluates_in_its_chat_template(tmp_path):
    foreign(tmp_path, begin=True)
    study = tmp_path / "tiny.yaml"
    study.write_text(
        TINY.replace(OWN, "{path: saved, chat_template: true}")
        .replace("seeds: 2", "seeds: 1")
        .replace("controls: [token-matched, additive]", "")
        .replace("seq_len: 64", "seq_len: 256")
    )
    assert plan(study)["runs"] == 4
    out = tmp_path / "out"
    run(study, out, workers=2, on_event=lambda event: None)
    told = CliRunner().invoke(
        app, ["export", str(out), "--run", "text/uniform#0", "--to", str(tmp_path / "model")]
    )
    assert told.exit_code == 0, told.output
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.config.bos_token_id == tokenizer.convert_tokens_to_ids("<s>")
    steps = [json.loads(p.read_text()) for p in (out / "store" / "evaluate").glob("*/step.json")]
    assert sorted(bool(s["config"].get("chat_template")) for s in steps) == [False] * 2 + [True] * 4
    (weights,) = (tmp_path / "model").glob("*.safetensors")
    assert load_file(weights)


def test_a_tokenizer_that_is_not_there_is_told_with_its_line(tmp_path):
    study = tmp_path / "tiny.yaml"
    study.write_text(TINY.replace(OWN, "{path: nowhere}"))
    with pytest.raises(UserError, match=r"tiny.yaml:3: nowhere: no such folder or file"):
        plan(study)
