"""The loop: against an independent one, in pieces, interrupted, damaged, diverging."""

import shutil
import time

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from train_fixture import SEQ_LEN, SHAPE, batches, content, stage, train
from transformers import AutoModelForCausalLM

from codestage.errors import RunError
from codestage.study.lr import lr_at
from codestage.train import checkpoint
from codestage.train.attention import document_bias
from codestage.train.loop import Interrupted
from codestage.train.model import ModelPool, build_model
from codestage.train.partials import Partials


def reference_weights(plan, seed):
    """The same stage trained by a plain loop over Transformers' model."""
    model = build_model(SHAPE, SEQ_LEN, seed)
    held, spec = batches(plan), plan.optimizer
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(spec.beta1, spec.beta2), eps=spec.eps)
    for i in range(held.n_batches):
        batch = held[i]
        out = model.model(
            torch.from_numpy(batch.tokens).long(),
            attention_mask=document_bias(torch.from_numpy(batch.documents)),
            position_ids=torch.from_numpy(batch.positions).long(),
            use_cache=False,
        )
        logits = model.lm_head(out.last_hidden_state).flatten(0, 1)
        labels = torch.from_numpy(batch.labels).long().flatten()
        loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.clip)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(plan.lr, spec.lr, held.tokens_before(i), held.total_tokens)
        optimizer.step()
    return dict(model.named_parameters())


def test_weights_are_those_of_a_plain_loop(tmp_path):
    plan = stage()
    train(tmp_path, plan=plan)
    ours = load_file(tmp_path / "checkpoint" / "model.safetensors")
    for name, weight in reference_weights(plan, seed=5).items():
        torch.testing.assert_close(ours[name], weight.detach(), rtol=1e-3, atol=1e-5)


def test_transformers_loads_the_checkpoint(tmp_path):
    train(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32)
    ours = load_file(tmp_path / "checkpoint" / "model.safetensors")
    for name, weight in model.named_parameters():
        assert torch.equal(weight, ours[name])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_stage_in_pieces_is_the_stage_in_one(tmp_path, precision):
    """Sharing a trunk changes no bit of what follows."""
    shape = SHAPE.__class__(**{**SHAPE.__dict__, "precision": precision})
    train(tmp_path / "one", shape=shape)
    train(tmp_path / "a", stop=4, shape=shape)
    train(tmp_path / "b", start=4, stop=7, init=tmp_path / "a" / "checkpoint", shape=shape)
    train(tmp_path / "c", start=7, init=tmp_path / "b" / "checkpoint", shape=shape)
    whole, last = content(tmp_path / "one" / "checkpoint"), content(tmp_path / "c" / "checkpoint")
    for name in ("model.safetensors", "optimizer.safetensors", "config.json"):
        assert whole[name] == last[name]
    parts = [pq.read_table(tmp_path / x / "checkpoint" / "curve.parquet").to_pylist() for x in "abc"]
    assert [row for part in parts for row in part] == pq.read_table(
        tmp_path / "one" / "checkpoint" / "curve.parquet"
    ).to_pylist()


def test_stopping_after_every_batch_ends_with_the_same_bits(tmp_path):
    train(tmp_path / "straight")
    stops = 0
    pool = ModelPool(compiled=False)
    while not (tmp_path / "stopped" / "checkpoint").exists():
        try:
            train(tmp_path / "stopped", should_stop=lambda: True, pool=pool)
        except Interrupted:
            stops += 1
    assert stops >= 10
    assert content(tmp_path / "stopped" / "checkpoint") == content(tmp_path / "straight" / "checkpoint")


def test_a_new_stage_takes_the_weights_and_not_the_optimizer(tmp_path):
    train(tmp_path / "a")
    tune = stage(200, name="tune", kind="tune", lr=1e-30)
    train(tmp_path / "b", plan=tune, init=tmp_path / "a" / "checkpoint")
    before = load_file(tmp_path / "a" / "checkpoint" / "model.safetensors")
    after = load_file(tmp_path / "b" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    steps = load_file(tmp_path / "b" / "checkpoint" / "optimizer.safetensors")
    assert {float(v) for k, v in steps.items() if k.startswith("step.")} == {4.0}


def test_the_curve_tells_tokens_and_loss_of_each_source(tmp_path):
    steps = train(tmp_path)
    rows = pq.read_table(tmp_path / "checkpoint" / "curve.parquet").to_pylist()
    assert [row["batch"] for row in rows] == list(range(1, len(steps) + 1))
    assert rows[-1]["tokens"] == stage().tokens
    for row in rows:
        nats, predicted = dict(row["source_nats"]), dict(row["source_predicted"])
        assert sum(nats.values()) / sum(predicted.values()) == pytest.approx(row["loss"], rel=1e-5)


def test_a_damaged_partial_checkpoint_is_reported_and_done_again(tmp_path):
    train(tmp_path / "straight")
    count = iter(range(100))
    with pytest.raises(Interrupted):
        train(tmp_path / "hurt", should_stop=lambda: next(count) == 5)
    weights = tmp_path / "hurt" / "partial" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\x00" * 8)
    told = []
    train(tmp_path / "hurt", report=told.append)
    assert "damaged" in told[0]
    assert content(tmp_path / "hurt" / "checkpoint") == content(tmp_path / "straight" / "checkpoint")


def test_killed_between_the_two_moves_the_checkpoint_before_is_found(tmp_path):
    train(tmp_path / "straight")
    left = iter(range(100))
    with pytest.raises(Interrupted):
        train(tmp_path / "x", should_stop=lambda: next(left) == 5)
    folder = tmp_path / "x" / "partial"
    folder.rename(checkpoint.before(folder))
    steps = train(tmp_path / "x")
    assert steps[0].batch == 7  # and not 1
    assert content(tmp_path / "x" / "checkpoint") == content(tmp_path / "straight" / "checkpoint")


def test_a_damaged_checkpoint_to_begin_from_is_refused(tmp_path):
    train(tmp_path / "a", stop=4)
    (tmp_path / "a" / "checkpoint" / "optimizer.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match=r"optimizer\.safetensors: damaged"):
        train(tmp_path / "b", start=4, init=tmp_path / "a" / "checkpoint")


def test_a_loss_that_leaves_all_bounds_says_where_and_what_to_lower(tmp_path):
    with pytest.raises(
        RunError, match=r"'pretrain' \(text\), batch \d+.*Lower the stage's optimizer.lr"
    ):
        train(tmp_path, plan=stage(lr=1e30))


def test_a_disk_that_cannot_be_written_is_told_and_keeps_what_was_there(tmp_path, monkeypatch):
    train(tmp_path)
    before = content(tmp_path / "checkpoint")
    saved = checkpoint.load(tmp_path / "checkpoint")

    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.pq, "write_table", full)
    with pytest.raises(RunError, match="No space left on device"):
        checkpoint.save(saved, tmp_path / "checkpoint")
    assert content(tmp_path / "checkpoint") == before
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_interrupted_work_does_not_leak_into_another_segment(tmp_path):
    count = iter(range(100))
    with pytest.raises(Interrupted):
        train(tmp_path / "x", should_stop=lambda: next(count) == 3)
    shutil.rmtree(tmp_path / "x" / "partial")
    train(tmp_path / "x")
    train(tmp_path / "y")
    assert content(tmp_path / "x" / "checkpoint") == content(tmp_path / "y" / "checkpoint")


def test_training_never_waits_for_the_last_save_to_begin_the_next(tmp_path, monkeypatch):
    write, begin, begun = checkpoint.save, Partials.save, []

    def slow(whole, folder):
        time.sleep(0.2)
        write(whole, folder)

    def save(self, whole):
        assert not self.writing
        begun.append(whole.state.batch)
        begin(self, whole)

    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(Partials, "save", save)
    train(tmp_path, checkpoint_seconds=0.0)
    assert begun
