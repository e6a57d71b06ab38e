"""A toy stage for the tests of training: random rows in memory, one source a plain text, one masked."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from codestage.data.batches import Batches
from codestage.data.mixture import MixturePlan, RowCounts
from codestage.data.tokenizer import OWN
from codestage.study.expand import StagePlan
from codestage.study.models import ModelShape
from codestage.study.schedule import Phase
from codestage.study.schema import LRSpec, OptimizerSpec
from codestage.train.loop import Runtime, Segment, train_segment
from codestage.train.model import ModelPool

VOCAB, SEQ_LEN, ROWS = 60, 16, 4
SHAPE = ModelShape("llama", 16, 2, 4, 2, 32, VOCAB, True, "float32")


def shard(seed, *, masked=False, rows=40):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, VOCAB, (rows, SEQ_LEN + 1)).astype(np.uint16)
    tokens[rng.random(tokens.shape) < 0.15] = 0  # documents begin anywhere
    tokens[:, 0] = 0
    mask = None
    if masked:
        mask = (rng.integers(0, 2, tokens.shape) | 2 * (tokens == 0)).astype(np.uint8)
    return SimpleNamespace(
        tokens=tokens,
        mask=mask,
        rows=rows,
        seq_len=SEQ_LEN,
        counts=RowCounts(rows, SEQ_LEN),
        marks=OWN,
    )


SHARDS = {"prose": shard(1), "chat": shard(2, masked=True)}


def stage(tokens=650, *, lr=1e-2, option="text", **changes):
    half = {"prose": tokens - tokens // 3, "chat": tokens // 3}
    plan = {
        "name": "pretrain",
        "kind": "pretrain",
        "option": option,
        "tokens": tokens,
        "phases": (Phase(tokens, half),),
        "order": "even",
        "seq_len": SEQ_LEN,
        "batch_tokens": SEQ_LEN * ROWS,
        "micro_batch_tokens": SEQ_LEN * ROWS,
        "lower_micro_batch": False,
        "optimizer": OptimizerSpec(lr=lr),
        "adapter": None,
        "lr": LRSpec(schedule="wsd", warmup_tokens=128, decay="0.3"),
    }
    return StagePlan(**(plan | changes))


def batches(plan, seed=0):
    counts = {name: s.counts for name, s in SHARDS.items()}
    return Batches(MixturePlan(plan.phases, plan.order, counts, seed=seed), SHARDS, rows_per_batch=ROWS)


def train(out: Path, *, plan=None, start=0, stop=None, init=None, shape=SHAPE, seed=5, **runtime):
    """Train a segment of the toy stage; its checkpoint is in `out/checkpoint`."""
    plan = plan or stage()
    held = batches(plan)
    segment = Segment(shape, plan, start, held.n_batches if stop is None else stop, init, seed)
    steps = []
    pool = runtime.pop("pool", None) or ModelPool(compiled=False)
    train_segment(segment, held, out=out, pool=pool, runtime=Runtime(**runtime), on_step=steps.append)
    return steps


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a checkpoint, to the byte."""
    return {f.name: f.read_bytes() for f in sorted(folder.iterdir())}
