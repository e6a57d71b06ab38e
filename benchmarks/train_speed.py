"""Training speed on one core, by turns in one run: codestage's loop and other loops over the same model.

Everyone trains the same Llama on packed rows of random tokens, one core, AdamW, clipping at 1:

- bare: the model compiled, random tokens that are in memory already, nothing read, logged or saved; in the
  better of two ways (codestage's own precision and attention, or autocast with PyTorch's)
- no compiler: codestage's loop without torch.compile
- nanogpt: the loop of that kind: rows from a memory-mapped file, autocast to bf16, compiled, fused AdamW
- trainer: Hugging Face's Trainer as it comes; trainer+: with bf16 and torch.compile

MFU is the model's FLOPs (6 a parameter of a product, and attention) over the speed of one large bf16 product.

    python benchmarks/train_speed.py [--sizes 1M 6M 27M] [--rounds 3] [--limit-only]
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from codestage.data.batches import Batches
from codestage.data.mixture import MixturePlan, RowCounts
from codestage.data.tokenizer import OWN
from codestage.study.expand import StagePlan
from codestage.study.models import ModelShape, parameters, shape, train_flops_per_token
from codestage.study.schedule import Phase
from codestage.study.schema import LRSpec, ModelSpec, OptimizerSpec
from codestage.study.values import parse_count
from codestage.train.attention import document_bias
from codestage.train.loop import Runtime, Segment, train_segment
from codestage.train.model import ModelPool, build_model

SEQ_LEN, ROWS, VOCAB = 256, 16, 4096
WARM = 3
"""Steps of each turn that are not counted: the first one may compile."""
LR = 1e-3


def tokens(steps: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    made = rng.integers(2, VOCAB, (steps * ROWS, SEQ_LEN + 1)).astype(np.uint16)
    made[rng.random(made.shape) < 1 / 200] = 0
    return made


def step_seconds(times: list[float]) -> float:
    return statistics.median(np.diff(times)[WARM:])


def ours(size: ModelShape, steps: int, pool: ModelPool) -> float:
    """Seconds a step, the median."""
    rows = RowCounts(steps * ROWS, SEQ_LEN)
    shard: Any = SimpleNamespace(
        tokens=tokens(steps), mask=None, rows=rows.rows, seq_len=SEQ_LEN, counts=rows, marks=OWN
    )
    total = rows.tokens
    phase = Phase(total, {"text": total})
    plan = MixturePlan([phase], "even", {"text": rows}, seed=0)
    stage = StagePlan(
        name="pretrain",
        kind="pretrain",
        option="text",
        tokens=total,
        phases=(phase,),
        order="even",
        seq_len=SEQ_LEN,
        batch_tokens=SEQ_LEN * ROWS,
        micro_batch_tokens=SEQ_LEN * ROWS,
        lower_micro_batch=False,
        optimizer=OptimizerSpec(lr=LR),
        adapter=None,
        lr=LRSpec(),
    )
    times = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        train_segment(
            Segment(size, stage, 0, steps, None, 0),
            Batches(plan, {"text": shard}, rows_per_batch=ROWS),
            out=Path(folder),
            pool=pool,
            runtime=Runtime(),
            on_step=lambda log: times.append(time.perf_counter()),
        )
    return step_seconds(times)


class Plain(nn.Module):
    """Transformers' model and loss in its own attention."""

    def __init__(self, size: ModelShape) -> None:
        super().__init__()
        self.model = build_model(size, SEQ_LEN, 0)
        self.model.set_attn_implementation("sdpa")

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.model(input_ids=ids, use_cache=False).logits
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())


def autocast_loop(
    model: nn.Module,
    compiled: Any,
    steps: int,
    batch: Callable[[int], tuple[torch.Tensor, torch.Tensor]],
) -> float:
    """Seconds a step of a plain loop in autocast."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), fused=True)
    times = [time.perf_counter()]
    for i in range(steps):
        ids, labels = batch(i)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = compiled(ids, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter())
    return step_seconds(times)


def bare_autocast(model: Plain, compiled: Any, steps: int) -> float:
    ids = torch.randint(2, VOCAB, (ROWS, SEQ_LEN + 1))
    return autocast_loop(model, compiled, steps, lambda i: (ids[:, :-1], ids[:, 1:]))


def bare_own(size: ModelShape, pool: ModelPool, steps: int) -> float:
    """The graph that codestage compiled, in a loop that does nothing else."""
    model, forward = pool.get(size, SEQ_LEN)
    ids = torch.randint(2, VOCAB, (ROWS, SEQ_LEN + 1))
    seen = document_bias(torch.zeros(ROWS, SEQ_LEN, dtype=torch.int32))
    positions = torch.arange(SEQ_LEN).expand(ROWS, -1).contiguous()
    weights = [p.detach().float().clone().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=LR, betas=(0.9, 0.95), fused=True)
    times = [time.perf_counter()]
    for _ in range(steps):
        nats, _ = forward(ids[:, :-1].contiguous(), seen, positions, ids[:, 1:].contiguous())
        (nats / ids[:, 1:].numel()).backward()
        for weight, parameter in zip(weights, model.parameters(), strict=True):
            weight.grad, parameter.grad = parameter.grad.float(), None  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        with torch.no_grad():
            for weight, parameter in zip(weights, model.parameters(), strict=True):
                parameter.copy_(weight)
        times.append(time.perf_counter())
    return step_seconds(times)


def nanogpt(model: Plain, compiled: Any, steps: int, file: Path) -> float:
    """Rows at random places of a memory-mapped file; the loss read every ten steps."""
    data = np.memmap(file, dtype=np.uint16, mode="r")
    rng = np.random.default_rng(0)

    def batch(i: int) -> tuple[torch.Tensor, torch.Tensor]:
        at = rng.integers(0, len(data) - SEQ_LEN - 1, ROWS)
        rows = [torch.from_numpy(data[a : a + SEQ_LEN + 1].astype(np.int64)) for a in at]
        ids = torch.stack(rows)
        return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    return autocast_loop(model, compiled, steps, batch)


class Clock(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def trainer(size: ModelShape, steps: int, **more: Any) -> float:
    """Hugging Face's Trainer on the same rows."""
    rows = tokens(steps)[:, :-1].astype(np.int64)
    data = [{"input_ids": row, "labels": row} for row in rows]
    model = build_model(size, SEQ_LEN, 0)
    model.set_attn_implementation("sdpa")
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=ROWS,
            max_steps=steps,
            learning_rate=LR,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **more,
        )
        Trainer(model, arguments, train_dataset=data, callbacks=[clock]).train()
    return step_seconds(clock.times)


def peak() -> float:
    """FLOP/s of one large bf16 product on this core."""
    a, b = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    times = []
    for _ in range(8):
        began = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / statistics.median(times[2:])


def measure(name: str, rounds: int, steps: int, limit_only: bool) -> dict[str, Any]:
    size = shape(ModelSpec(family="llama", size=name), VOCAB)
    pool, eager = ModelPool(compiled=True), ModelPool(compiled=False)
    plain = Plain(size)
    compiled = torch.compile(plain, dynamic=False)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.bin"
        tokens(steps).tofile(file)
        sides: dict[str, Callable[[], float]] = {
            "codestage": lambda: ours(size, steps, pool),
            "no compiler": lambda: ours(size, steps, eager),
            "bare, own graph": lambda: bare_own(size, pool, steps),
            "bare, autocast": lambda: bare_autocast(plain, compiled, steps),
            "nanogpt": lambda: nanogpt(plain, compiled, steps, file),
            "trainer": lambda: trainer(size, steps),
            "trainer+": lambda: trainer(size, steps, bf16=True, torch_compile=True),
        }
        if limit_only:
            sides = {side: sides[side] for side in ("codestage", "bare, own graph", "bare, autocast")}
        speed = []
        for _ in range(rounds):
            for side, run in sides.items():
                found.setdefault(side, []).append(run())
                gc.collect()
            speed.append(peak())
    mine = found["codestage"]
    bare = [min(a, b) for a, b in zip(found["bare, own graph"], found["bare, autocast"], strict=True)]
    per_step = ROWS * SEQ_LEN
    flops = train_flops_per_token(size, SEQ_LEN)
    return {
        "size": name,
        "parameters": parameters(size),
        "tokens_per_second": {s: per_step / statistics.median(t) for s, t in found.items()},
        "times": {
            side: statistics.median(b / a for a, b in zip(mine, t, strict=True))
            for side, t in found.items()
        },
        "share_of_bare": statistics.median(b / a for a, b in zip(mine, bare, strict=True)),
        "mfu": flops * per_step / statistics.median(mine) / statistics.median(speed),
        "peak_gflops": statistics.median(speed) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", default=["1M", "6M", "27M"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="a turn; default by size")
    parser.add_argument(
        "--limit-only", action="store_true", help="codestage and the bare loops, nobody else"
    )
    asked = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    results = []
    for name in asked.sizes:
        steps = asked.steps or WARM + max(8, min(30, 60_000_000 // parse_count(name)))
        result = measure(name, asked.rounds, steps, asked.limit_only)
        results.append(result)
        print(
            f"{name}: {result['parameters']:,} parameters with embeddings; {result['share_of_bare']:.1%} of a bare "
            f"loop; MFU {result['mfu']:.0%} of {result['peak_gflops']:,.0f} GFLOP/s"
        )
        for side, speed in result["tokens_per_second"].items():
            times = result["times"][side]
            print(f"  {side:16} {speed:10,.0f} tokens/s; codestage is {times:.2f} times as fast")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
