"""Training speed on one core: codestage's loop, a plain Transformers loop, and the matrix products alone.

The quickstart's model on packed rows of random tokens, by turns in one run. The plain loop is what a user
writes: Transformers' model with its own attention (sdpa) in bf16 by autocast, AdamW, no document masks.
The limit is the time that the step's matrix products take by themselves, in the same sizes and precision.

    python benchmarks/train_speed.py [--steps 60]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from transformers import LlamaForCausalLM

from codestage.data.batches import Batches
from codestage.data.mixture import MixturePlan, RowCounts
from codestage.data.tokenizer import OWN
from codestage.study.expand import StagePlan
from codestage.study.models import ModelShape
from codestage.study.schedule import Phase
from codestage.study.schema import LRSpec, OptimizerSpec
from codestage.train.loop import Runtime, Segment, train_segment
from codestage.train.model import ModelPool, build_model

SEQ_LEN, ROWS, VOCAB = 128, 16, 1024
SHAPE = ModelShape("llama", 128, 2, 4, 4, 384, VOCAB, True, "bf16")


def batches(steps: int) -> Batches:
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, VOCAB, (steps * ROWS, SEQ_LEN + 1)).astype(np.uint16)
    tokens[rng.random(tokens.shape) < 1 / 40] = 0
    rows = RowCounts(len(tokens), SEQ_LEN)
    shard = SimpleNamespace(
        tokens=tokens, mask=None, rows=len(tokens), seq_len=SEQ_LEN, counts=rows, marks=OWN
    )
    total = steps * ROWS * SEQ_LEN
    plan = MixturePlan([Phase(total, {"text": total})], "even", {"text": rows}, seed=0)
    return Batches(plan, {"text": shard}, rows_per_batch=ROWS)  # type: ignore[dict-item]


def ours(steps: int, pool: ModelPool) -> float:
    """Seconds a step, the median."""
    held = batches(steps)
    total = held.total_tokens
    stage = StagePlan(
        name="pretrain",
        kind="pretrain",
        option="text",
        tokens=total,
        phases=(Phase(total, {"text": total}),),
        order="even",
        seq_len=SEQ_LEN,
        batch_tokens=SEQ_LEN * ROWS,
        micro_batch_tokens=SEQ_LEN * ROWS,
        lower_micro_batch=False,
        optimizer=OptimizerSpec(),
        adapter=None,
        lr=LRSpec(),
    )
    times = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        train_segment(
            Segment(SHAPE, stage, 0, held.n_batches, None, 0),
            held,
            out=Path(folder),
            pool=pool,
            runtime=Runtime(),
            on_step=lambda log: times.append(time.perf_counter()),
        )
    return statistics.median(np.diff(times[5:]))


def plain(steps: int) -> float:
    """Seconds a step of a plain loop."""
    config = build_model(SHAPE, SEQ_LEN, 0).config
    config._attn_implementation = "sdpa"
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    held = batches(steps)
    times = [time.perf_counter()]
    for i in range(held.n_batches):
        ids = torch.from_numpy(held[i].tokens.astype(np.int64))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append(time.perf_counter())
    return statistics.median(np.diff(times[5:]))


def products() -> float:
    """Seconds of a step's matrix products alone: forward, and twice as many backward."""
    n, d, f, layers = ROWS * SEQ_LEN, SHAPE.hidden_size, SHAPE.intermediate_size, SHAPE.layers
    sizes = [(n, d, d)] * 4 * layers + [(n, d, f)] * 2 * layers + [(n, f, d)] * layers + [(n, d, VOCAB)]
    made = [(torch.randn(a, b).bfloat16(), torch.randn(b, c).bfloat16()) for a, b, c in sizes]
    times = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(3):
            for x, y in made:
                x @ y
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    pool = ModelPool(compiled=True)
    ours(10, pool)  # compiles
    eager = ModelPool(compiled=False)
    rounds = [(ours(steps, pool), plain(steps), products(), ours(steps, eager)) for _ in range(3)]
    a, b, c, d = (statistics.median(column) for column in zip(*rounds, strict=True))
    tokens = ROWS * SEQ_LEN
    result = {
        "tokens_per_second": tokens / a,
        "plain_tokens_per_second": tokens / b,
        "products_tokens_per_second": tokens / c,
        "times_plain": statistics.median(y / x for x, y, _, _ in rounds),
        "times_eager": statistics.median(e / x for x, _, _, e in rounds),
        "share_of_limit": statistics.median(z / x for x, _, z, _ in rounds),
    }
    print(f"codestage            {tokens / a:9,.0f} tokens/s on one core")
    print(
        f"plain Transformers   {tokens / b:9,.0f} tokens/s; codestage is {result['times_plain']:.2f} times as fast"
    )
    print(
        f"products alone       {tokens / c:9,.0f} tokens/s; codestage reaches {result['share_of_limit']:.0%} of it"
    )
    print(
        f"no compiler          {tokens / d:9,.0f} tokens/s; with one it is {result['times_eager']:.2f} times as fast"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
