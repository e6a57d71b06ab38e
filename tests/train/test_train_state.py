"""What stages hand on to each other: weights that know the positions of the longest rows."""

import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file
from train_fixture import SEQ_LEN, SHAPE, batches, stage
from transformers import AutoModelForCausalLM

import codestage.pangu  # noqa: F401
from codestage.study.schema import AdapterSpec
from codestage.train.loop import Runtime, Segment, train_segment
from codestage.train.model import ModelPool

LONGEST = 2 * SEQ_LEN


def train(out, plan, size, init=None):
    """The toy stage, of a model that knows twice as many positions as its rows have."""
    held = batches(plan)
    segment = Segment(size, plan, 0, held.n_batches, init, seed=5, positions=LONGEST)
    train_segment(segment, held, out=out, pool=ModelPool(compiled=False), runtime=Runtime())
    return out / "checkpoint"


@pytest.mark.parametrize("adapter", [None, AdapterSpec(rank=2)], ids=["full", "adapter"])
@pytest.mark.parametrize("family", ["gpt2", "pangu", "llama"])
def test_a_stage_of_shorter_rows_trains_a_model_of_the_longest(tmp_path, family, adapter):
    if adapter:
        pytest.importorskip("peft", reason="PEFT is not installed")
    size = replace(SHAPE, family=family)
    first = train(tmp_path / "a", stage(200), size)
    last = train(tmp_path / "b", stage(200, name="tune", adapter=adapter), size, first)
    for folder in (first, last):
        told = json.loads((folder / "config.json").read_text())
        assert told["max_position_embeddings" if family == "llama" else "n_positions"] == LONGEST
    tables = [w for name, w in load_file(last / "model.safetensors").items() if "wpe" in name]
    assert [len(table) for table in tables] == [LONGEST] * (family != "llama")
    assert AutoModelForCausalLM.from_pretrained(last).config.max_position_embeddings == LONGEST
