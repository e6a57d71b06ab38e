"""Loss on held-out rows: of every source, at the times asked for, on rows that nothing is trained on."""

import pyarrow.parquet as pq
import pytest
import torch
from conftest import TINY
from transformers import AutoModelForCausalLM

from codestage.data.batches import IGNORE, Batches
from codestage.data.mixture import MixturePlan
from codestage.engine.data_steps import data_steps, shards
from codestage.engine.graph import SegmentPayload
from codestage.engine.run import plan_training, run
from codestage.engine.store import Store
from codestage.engine.work import segment_batches
from codestage.study.load import load_study
from codestage.study.schedule import Phase
from codestage.train.attention import document_mask

STUDY = (
    TINY.replace("controls: [token-matched, additive]", "validation: {tokens: 300, times: 3}")
    .replace("seeds: 2", "seeds: 1")
    .replace("documents: 400", "documents: 900")
    .replace("form: code_chat, documents: 200", "form: code_chat, documents: 900")
)


@pytest.mark.slow
def test_held_out_loss_is_measured_of_every_source_and_is_transformers_own(tmp_path):
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(STUDY)
    run(path, out, workers=2, on_event=lambda event: None)
    study, store = load_study(path), Store(out)
    data = data_steps(study, path)
    table = pq.read_table(out / "results" / "validation.parquet").to_pylist()
    sources = {"prose": "text", "programs": "code", "chat": "text", "code_chat": "code"}
    seen = {(r["arm"], r["stage"], r["source"]) for r in table}
    assert {(s, sources[s]) for _, _, s in seen} == set(sources.items())
    assert {r["domain"] for r in table} == {"text", "code"}
    for key in seen:
        times = [r["tokens"] for r in table if (r["arm"], r["stage"], r["source"]) == key]
        assert len(times) == 3
        assert times == sorted(times)
    work = plan_training(study, path, data, store)["text/uniform#0"][1]
    last = work.segments[-1]
    model = AutoModelForCausalLM.from_pretrained(store.read("train", last.hash))
    for name, shard in shards(data, store, 64, study.validation).items():
        rest = shard.held_out()
        assert rest.rows == 5  # 300 tokens in rows of 64
        tokens = rest.counts.tokens
        plan = MixturePlan([Phase(tokens, {name: tokens})], "even", {name: rest.counts}, seed=0)
        batch = Batches(plan, {name: rest}, rows_per_batch=rest.rows)[0]
        labels = torch.from_numpy(batch.labels).long()
        with torch.no_grad():
            logits = model(
                input_ids=torch.from_numpy(batch.tokens).long(),
                attention_mask=document_mask(torch.from_numpy(batch.documents)),
                position_ids=torch.from_numpy(batch.positions).long(),
            ).logits
        nats = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE
        )
        told = [
            r["loss"]
            for r in table
            if (r["arm"], r["stage"], r["source"]) == ("text/uniform", "tune", name)
        ][-1]
        assert told == pytest.approx(float(nats), rel=1e-4)


@pytest.mark.slow
def test_no_batch_holds_a_row_that_is_held_out(tmp_path):
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(STUDY)
    study, store = load_study(path), Store(out)
    from codestage.engine.mix import inspect

    inspect(path, out=out)
    data = data_steps(study, path)
    held = {
        tuple(row)
        for shard in shards(data, store, 64, study.validation).values()
        for row in shard.held_out().tokens[:, :-1].tolist()
    }
    for stages in plan_training(study, path, data, store).values():
        for work in stages:
            payload = work.segments[-1].payload
            assert isinstance(payload, SegmentPayload)
            batches = segment_batches(work.segments[-1], store)
            for number in range(batches.n_batches):
                batch = batches[number]
                whole = (batch.documents >= 0).all(axis=1)
                assert not {tuple(row) for row in batch.tokens[whole].tolist()} & held
