"""Adapters: they begin as no change, train alone, merge into plain weights, and survive a stop."""

import pytest
import torch
from safetensors.torch import load_file
from train_fixture import SEQ_LEN, SHAPE, batches, content, stage, train
from transformers import AutoModelForCausalLM

from codestage.study.schema import AdapterSpec
from codestage.train.adapter import ADAPTER, BASE, add_adapters, merged
from codestage.train.attention import document_bias
from codestage.train.loop import Interrupted
from codestage.train.loss import PackedLoss
from codestage.train.model import build_model

pytest.importorskip("peft", reason="PEFT is not installed")
KINDS = [AdapterSpec(rank=2), AdapterSpec(kind="dora", rank=3, alpha=5)]


def read(folder, name="model"):
    return load_file(folder / "checkpoint" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A checkpoint that adapters go on from: its stage is another one."""
    out = tmp_path_factory.mktemp("begun")
    train(out, plan=stage(name="before"), stop=5)
    return out / "checkpoint"


@pytest.mark.parametrize("spec", KINDS, ids=lambda s: s.kind)
def test_they_begin_as_no_change_and_leave_all_but_the_linear_layers(tmp_path, begun, spec):
    full = train(tmp_path / "full", init=begun, stop=1)
    steps = train(tmp_path / "adapted", plan=stage(adapter=spec), init=begun)
    assert steps[0].loss == pytest.approx(full[0].loss, rel=1e-5)
    before, after = load_file(begun / "model.safetensors"), read(tmp_path / "adapted")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "_proj" in name}


@pytest.mark.parametrize("spec", KINDS, ids=lambda s: s.kind)
def test_merged_weights_compute_what_the_adapted_model_computed(tmp_path, begun, spec):
    train(tmp_path, plan=stage(adapter=spec), init=begun)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    tensors = read(tmp_path, "optimizer")
    adapted = build_model(SHAPE, SEQ_LEN, seed=0)
    add_adapters(adapted, spec, seed=0)
    given = load_file(begun / "model.safetensors")
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            key = name.replace(".base_layer.", ".")
            parameter.copy_(tensors[f"{ADAPTER}.{name}"] if "lora" in name else given[key])
    for key, base in tensors.items():
        if key.startswith(f"{BASE}."):
            assert torch.equal(base, given[key.removeprefix(f"{BASE}.")])
    batch = batches(stage())[0]
    parts = [torch.from_numpy(x) for x in (batch.tokens, batch.documents, batch.positions, batch.labels)]
    parts[1] = document_bias(parts[1])
    parts = [parts[0].long(), parts[1], parts[2].long(), parts[3].long()]
    unmerged, _ = PackedLoss(adapted)(*parts)
    bare = build_model(SHAPE, SEQ_LEN, seed=0)
    bare.load_state_dict(plain.state_dict())
    whole, _ = PackedLoss(bare)(*parts)
    assert float(whole.detach()) == pytest.approx(float(unmerged.detach()), rel=1e-5)


@pytest.mark.parametrize("spec", KINDS, ids=lambda s: s.kind)
def test_stopped_or_cut_in_two_they_end_with_the_same_bits(tmp_path, begun, spec):
    plan = stage(adapter=spec)
    train(tmp_path / "whole", plan=plan, init=begun)
    left = iter(range(100))
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", plan=plan, init=begun, should_stop=lambda: next(left) >= 3)
    train(tmp_path / "stopped", plan=plan, init=begun)
    assert content(tmp_path / "stopped" / "checkpoint") == content(tmp_path / "whole" / "checkpoint")
    train(tmp_path / "first", plan=plan, init=begun, stop=4)
    train(tmp_path / "rest", plan=plan, start=4, init=tmp_path / "first" / "checkpoint")
    for name, weight in read(tmp_path / "whole").items():
        assert torch.equal(read(tmp_path / "rest")[name], weight), name


def test_merging_is_pefts_own():
    from peft import LoraConfig, get_peft_model

    for spec in KINDS:
        base = {n: p.detach().clone() for n, p in build_model(SHAPE, SEQ_LEN, seed=3).named_parameters()}
        config = LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha or 2 * spec.rank,
            target_modules="all-linear",
            use_dora=spec.kind == "dora",
        )
        theirs = get_peft_model(build_model(SHAPE, SEQ_LEN, seed=3), config)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        adapters = {
            n.removeprefix("base_model.model."): p.detach().clone()
            for n, p in theirs.named_parameters()
            if p.requires_grad
        }
        ours = merged(SHAPE, SEQ_LEN, spec, base, adapters)
        for name, weight in theirs.merge_and_unload().named_parameters():
            assert torch.allclose(ours[name], weight, atol=1e-6), name
