"""Optimizers, means of weights, micro-batches, and the loss in pieces."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from train_fixture import ROWS, SEQ_LEN, SHAPE, content, stage, train

from codestage.errors import RunError
from codestage.study.schema import OptimizerSpec
from codestage.train import loss as losses
from codestage.train.loop import Interrupted
from codestage.train.loss import PiecewiseNats
from codestage.train.model import build_model
from codestage.train.optim import Optimizers, tables_of

MUON = OptimizerSpec(name="muon", lr=1e-2, ema=0.9)


def weights(folder):
    return load_file(folder / "checkpoint" / "model.safetensors")


def test_muon_moves_the_inner_matrices_and_adamw_the_rest():
    model = build_model(SHAPE, SEQ_LEN, seed=0)
    tables = tables_of(model)
    assert tables == {"model.embed_tokens.weight"}  # the head is tied to it
    held = {n: p.detach().clone() for n, p in model.named_parameters()}
    before = {n: w.clone() for n, w in held.items()}
    optimizers = Optimizers(held, OptimizerSpec(name="muon", lr=1e-2), tables)
    torch.manual_seed(0)
    for weight in held.values():
        weight.grad = torch.randn_like(weight)
    reference = {n: torch.nn.Parameter(w.clone()) for n, w in before.items()}
    for n, weight in reference.items():
        weight.grad = held[n].grad.clone()
    inner = [n for n, w in before.items() if w.ndim == 2 and n not in tables]
    muon = torch.optim.Muon(
        [reference[n] for n in inner], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    muon.step()
    optimizers.step(1e-2)
    for name in inner:
        assert torch.equal(held[name].detach(), reference[name].detach()), name
    for name in before.keys() - set(inner):
        moved = (held[name].detach() - before[name]).abs()
        assert torch.allclose(moved, torch.full_like(moved, 1e-2), atol=2e-3), name  # AdamW's first step
    kinds = {key.partition(".")[0] for key in optimizers.state()}
    assert kinds == {"step", "exp_avg", "exp_avg_sq", "momentum_buffer"}


def test_stopped_anywhere_muon_and_the_mean_end_with_the_same_bits(tmp_path):
    plan = stage(optimizer=MUON)
    train(tmp_path / "whole", plan=plan)
    for stop_at in (1, 4):
        out, left = tmp_path / str(stop_at), iter(range(100))
        with pytest.raises(Interrupted):
            train(out, plan=plan, should_stop=lambda left=left, at=stop_at: next(left) >= at)
        train(out, plan=plan)
        assert content(out / "checkpoint") == content(tmp_path / "whole" / "checkpoint")


def test_a_stage_ends_with_the_mean_of_its_weights(tmp_path):
    decay, plan = 0.8, stage(optimizer=OptimizerSpec(lr=1e-2, ema=0.8))
    bare = replace(plan, optimizer=OptimizerSpec(lr=1e-2))
    mean = None
    steps = train(tmp_path / "mean", plan=plan)
    fresh = {n: p.detach() for n, p in build_model(SHAPE, SEQ_LEN, 5).named_parameters()}
    mean = {n: w.clone() for n, w in fresh.items()}
    for stop in range(1, len(steps) + 1):
        train(tmp_path / f"bare{stop}", plan=bare, stop=stop)
        for name, weight in weights(tmp_path / f"bare{stop}").items():
            mean[name] = decay * mean[name] + (1 - decay) * weight
    for name, weight in weights(tmp_path / "mean").items():
        assert torch.allclose(weight, mean[name], atol=1e-6), name


def test_a_piece_of_a_stage_ends_with_its_weights_and_keeps_the_mean(tmp_path):
    plan = stage(optimizer=OptimizerSpec(lr=1e-2, ema=0.8))
    train(tmp_path / "whole", plan=plan)
    train(tmp_path / "first", plan=plan, stop=4)
    train(tmp_path / "rest", plan=plan, start=4, init=tmp_path / "first" / "checkpoint")
    assert weights(tmp_path / "rest").keys() == weights(tmp_path / "whole").keys()
    for name, weight in weights(tmp_path / "rest").items():
        assert torch.equal(weight, weights(tmp_path / "whole")[name]), name


@pytest.mark.parametrize("rows", [1, 2])
def test_micro_batches_give_the_same_steps_up_to_rounding(tmp_path, rows):
    whole = train(tmp_path / "whole")
    parts = train(tmp_path / "parts", plan=stage(micro_batch_tokens=rows * SEQ_LEN))
    assert rows < ROWS
    assert [log.tokens for log in parts] == [log.tokens for log in whole]
    assert [log.loss for log in parts] == pytest.approx([log.loss for log in whole], rel=1e-4)
    for name, weight in weights(tmp_path / "parts").items():
        assert torch.allclose(weight, weights(tmp_path / "whole")[name], atol=2e-4), name


@pytest.mark.parametrize("rows_at_once", [1, 5, 29, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_in_pieces_is_the_loss(rows_at_once, dtype):
    torch.manual_seed(rows_at_once)
    hidden = torch.randn(29, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(50, 8, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 50, (29,))
    labels[::4] = -100
    total, each = PiecewiseNats.apply(hidden, weight, labels, rows_at_once)
    (total / 7).backward()
    grads = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    wanted = F.cross_entropy((hidden @ weight.T).float(), labels, ignore_index=-100, reduction="none")
    (wanted.sum() / 7).backward()
    loose = {"atol": 1e-5} if dtype == torch.float32 else {"atol": 0.06, "rtol": 0.02}
    assert torch.allclose(each, wanted.detach(), atol=1e-4)
    assert torch.allclose(total, wanted.sum(), rtol=1e-5)
    assert torch.allclose(grads[0], hidden.grad, **loose)
    assert torch.allclose(grads[1], weight.grad, **loose)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.numel())
        return out


def test_memory_does_not_grow_with_vocabulary_times_batch(monkeypatch, tmp_path):
    """A step on a vocabulary much larger than all else makes no tensor of vocabulary x batch."""
    shape = replace(SHAPE, vocab_size=5000)
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 5000)
    monkeypatch.setattr(losses, "ROWS_AT_ONCE", 8)
    with Largest() as largest:
        pieces = train(tmp_path / "pieces", shape=shape, stop=2)
    assert largest.elements <= 5000 * 16  # the table itself; eight rows of logits are half of it
    monkeypatch.undo()
    with Largest() as largest:
        whole = train(tmp_path / "whole", shape=shape, stop=2)
    assert largest.elements >= 5000 * SEQ_LEN * ROWS
    assert [log.loss for log in pieces] == pytest.approx([log.loss for log in whole], rel=1e-5)


def test_a_spike_stops_where_it_stands_even_after_an_interruption(tmp_path):
    """Every loss above the mean of fifty counts as a spike here; the first of them is found by hand."""
    plan = stage(tokens=64 * 80, optimizer=OptimizerSpec(lr=1e-2))
    losses = [log.loss for log in train(tmp_path / "calm", plan=plan)]
    first = next(i for i in range(50, 80) if losses[i] > sum(losses[i - 50 : i]) / 50 + 1e-6)
    nervous = replace(plan, optimizer=OptimizerSpec(lr=1e-2, spike=1e-6))
    with pytest.raises(RunError, match=rf"the loss spikes: stage 'pretrain' \(text\), batch {first},"):
        train(tmp_path / "whole", plan=nervous)
    left = iter(range(100))
    with pytest.raises(Interrupted):
        train(tmp_path / "cut", plan=nervous, should_stop=lambda: next(left) >= first - 2)
    with pytest.raises(RunError, match=f"batch {first},"):
        train(tmp_path / "cut", plan=nervous)
    # of the arm that goes on from a shared beginning too, though it is another segment
    train(tmp_path / "trunk", plan=nervous, stop=first - 2)
    shared = {"plan": nervous, "start": first - 2, "init": tmp_path / "trunk" / "checkpoint"}
    with pytest.raises(Interrupted):
        train(tmp_path / "arm", **shared, should_stop=lambda: True)
    for place in ("branch", "arm"):
        with pytest.raises(RunError, match=f"batch {first},"):
            train(tmp_path / place, **shared)
    easy = replace(plan, optimizer=OptimizerSpec(lr=1e-2, spike=50.0))
    assert [log.loss for log in train(tmp_path / "easy", plan=easy)] == losses
