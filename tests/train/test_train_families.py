"""Every family: counted right, trained on packed rows, saved, loaded, tuned and scored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from train_fixture import SEQ_LEN, SHAPE, batches, content, stage, train
from transformers import AutoModelForCausalLM

from codestage.data.tokenizer import train_tokenizer
from codestage.evaluate.backend import Backend
from codestage.study.models import parameters, shape
from codestage.study.schema import FAMILIES, GPT, ModelSpec
from codestage.train.attention import document_bias, document_blocks
from codestage.train.loss import PackedLoss
from codestage.train.model import build_model


def of(family):
    return replace(SHAPE, family=family, kv_heads=4 if family in GPT else 2)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_built_model(family, tied):
    made = replace(of(family), tied=tied)
    model = build_model(made, SEQ_LEN, seed=0)
    assert parameters(made, positions=SEQ_LEN) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_are_scored_as_each_document_alone(family):
    model = build_model(of(family), SEQ_LEN, seed=1)
    batch = batches(stage())[0]
    _, rows = PackedLoss(model)(
        torch.from_numpy(batch.tokens).long(),
        document_bias(torch.from_numpy(batch.documents)),
        torch.from_numpy(batch.positions).long(),
        torch.from_numpy(batch.labels).long(),
    )
    config = type(model.config)(**(model.config.to_dict() | {"attn_implementation": "eager"}))
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(model.state_dict())
    expected = np.zeros(len(batch.tokens))
    for r in range(len(batch.tokens)):
        for d in set(batch.documents[r].tolist()) - {-1}:
            at = batch.documents[r] == d
            with torch.no_grad():
                logits = plain.eval()(torch.from_numpy(batch.tokens[r][at]).long()[None]).logits[0]
            labels = torch.from_numpy(batch.labels[r][at]).long()
            nats = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
            expected[r] += float(nats)
    assert rows.numpy() == pytest.approx(expected, rel=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_gpu_attends_with_is_what_a_processor_does(family):
    """FlexAttention has no backward pass here: the forward pass alone."""
    made = of(family)
    here, there = (build_model(made, SEQ_LEN, 1, torch.device(kind)) for kind in ("cpu", "cuda"))
    batch = batches(stage())[0]
    documents = torch.from_numpy(batch.documents)
    told = {"position_ids": torch.from_numpy(batch.positions).long(), "use_cache": False}
    tokens = torch.from_numpy(batch.tokens).long()
    wanted = here.base_model(tokens, attention_mask=document_bias(documents), **told)
    found = there.base_model(tokens, attention_mask=document_blocks(documents), **told)
    real = documents >= 0
    torch.testing.assert_close(
        found.last_hidden_state[real], wanted.last_hidden_state[real], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_saves_loads_tunes_and_is_scored(tmp_path, family):
    made = of(family)
    steps = train(tmp_path / "a", shape=made, plan=stage(4000, lr=3e-3))
    assert np.mean([s.loss for s in steps[-8:]]) < steps[0].loss
    tuned = stage(600, name="tune", kind="tune")
    train(tmp_path / "b", shape=made, plan=tuned, init=tmp_path / "a" / "checkpoint")
    train(tmp_path / "again", shape=made, plan=tuned, init=tmp_path / "a" / "checkpoint")
    assert content(tmp_path / "b" / "checkpoint") == content(tmp_path / "again" / "checkpoint")
    tokenizer = train_tokenizer({"t": ["ab ba " * 40]}, vocab_size=300, characters=240, out=tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "b" / "checkpoint", dtype=torch.float32)
    assert model.config.model_type == {"qwen": "qwen3", "neox": "gpt_neox", "pangu": "pangu_alpha"}.get(
        family, family
    )
    small = {i: chr(i + 31) for i in range(2, 60)}  # ids that the model knows
    context, choices = small[3] + small[4], [small[5], small[6] + small[7]]
    assert max(tokenizer.encode(context + "".join(choices)).ids) < 60
    scores = Backend(model, tokenizer).loglikelihoods([(context, choices)])[0]
    for choice, score in zip(choices, scores, strict=True):
        ids, after = tokenizer.encode(context).ids, tokenizer.encode(choice).ids
        with torch.no_grad():
            logprobs = model(torch.tensor([[0, *ids, *after]])).logits[0].log_softmax(-1)
        wanted = logprobs[len(ids) : len(ids) + len(after)].gather(1, torch.tensor(after)[:, None])
        assert score.nats == pytest.approx(float(wanted.sum()), abs=1e-3)
    prompts = [context, small[8], context + small[9] + small[10]]
    written = Backend(model, tokenizer, rows=2).generate(prompts, max_new_tokens=4)
    for prompt, text in zip(prompts, written, strict=True):
        ids = torch.tensor([[0, *tokenizer.encode(prompt).ids]])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=4, pad_token_id=1
        )
        said = whole[0, ids.shape[1] :].tolist()
        said = said[: said.index(0)] if 0 in said else said
        assert text.text == tokenizer.decode(said, skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_of_every_family_are_near_what_they_say(family):
    for size in (400_000, 2_000_000, 125_000_000, 7_000_000_000):
        made = shape(ModelSpec(family=family, size=str(size)), 32000)
        assert 0.7 < parameters(made, embeddings=False) / size < 1.3
