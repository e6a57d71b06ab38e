"""Many small models on few cores: what starts fast, and what is worth doing side by side.

- start: seconds until a fresh training worker has its model, and until its first step is done, with the
  compiled graphs of an earlier run at hand and without
- side by side: tokens/s of two runs, one core each, against one run on two cores
- in one process: tokens/s of K models of one shape as one batched model (torch.func.vmap), against the same
  models one after the other; one core, both compiled

    python benchmarks/train_many.py [--sizes 150k 1M] [--models 4]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch.func import functional_call, stack_module_state, vmap

from codestage.study.models import ModelShape, shape
from codestage.study.schema import ModelSpec
from codestage.train import loss
from codestage.train.attention import document_bias
from codestage.train.loss import PackedLoss
from codestage.train.model import ModelPool, build_model

SEQ_LEN, ROWS, VOCAB = 128, 16, 1024
STEPS = 12

WORKER = """
import time; began = time.perf_counter()
import json, os, sys
sys.path.insert(0, sys.argv[1])
import torch
import codestage.train.loop
import train_many
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
size = train_many.size_of(sys.argv[2])
pool = codestage.train.loop.ModelPool(compiled=True)
pool.get(size, train_many.SEQ_LEN)
ready = time.perf_counter() - began
step = train_many.stepper(size, pool)
step(); first = time.perf_counter() - began
if len(sys.argv) > 3:
    times = []
    while not times or time.time() < float(sys.argv[3]):
        s = time.perf_counter(); step(); times.append(time.perf_counter() - s)
    first = sorted(times)[len(times) // 2]
print(json.dumps([ready, first]))
"""


def size_of(name: str) -> ModelShape:
    return shape(ModelSpec(family="llama", size=name), VOCAB)


def batch(models: int = 0) -> tuple[torch.Tensor, ...]:
    """Tokens, documents, positions, labels of one model's step, or of each of several models."""
    head = (models,) if models else ()
    ids = torch.randint(2, VOCAB, (*head, ROWS, SEQ_LEN + 1))
    seen = document_bias(torch.zeros(ROWS, SEQ_LEN, dtype=torch.int32))
    seen = seen.expand(*head, *seen.shape).contiguous()
    positions = torch.arange(SEQ_LEN).expand(*head, ROWS, -1).contiguous()
    return ids[..., :-1].contiguous(), seen, positions, ids[..., 1:].contiguous()


def stepper(size: ModelShape, pool: ModelPool) -> Any:
    """A step of one model: gradients and AdamW."""
    model, forward = pool.get(size, SEQ_LEN)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    held = batch()

    def step() -> None:
        nats, _ = forward(*held)
        (nats / (ROWS * SEQ_LEN)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def batched_stepper(size: ModelShape, models: int) -> Any:
    """A step of several models at once, each with its own weights and rows."""
    losses = [PackedLoss(build_model(size, SEQ_LEN, seed)).bfloat16() for seed in range(models)]
    weights, buffers = stack_module_state(losses)  # type: ignore[arg-type]
    weights = {name: w.detach().requires_grad_() for name, w in weights.items()}
    plain = PackedLoss(build_model(size, SEQ_LEN, 0)).bfloat16()

    def one(weights: Any, buffers: Any, *inputs: torch.Tensor) -> torch.Tensor:
        return functional_call(plain, (weights, buffers), inputs)[0]  # type: ignore[no-any-return]

    def all_of(weights: Any, buffers: Any, *inputs: torch.Tensor) -> torch.Tensor:
        return vmap(one)(weights, buffers, *inputs).sum()

    forward = torch.compile(all_of, dynamic=False)
    optimizer = torch.optim.AdamW(list(weights.values()), fused=True)
    held = batch(models)

    def step() -> None:
        (forward(weights, buffers, *held) / (ROWS * SEQ_LEN)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(step: Any, steps: int) -> float:
    times = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def in_one_process(name: str, models: int, steps: int, rounds: int) -> dict[str, float]:
    loss.LOGITS_AT_ONCE = 1 << 30  # in one piece on both sides: vmap does not take the other way
    size = size_of(name)
    alone, together = stepper(size, ModelPool(compiled=True)), batched_stepper(size, models)
    alone(), together()
    found = [(seconds(alone, steps), seconds(together, steps)) for _ in range(rounds)]
    tokens = ROWS * SEQ_LEN
    return {
        "one_after_the_other": tokens / statistics.median(a for a, _ in found),
        "batched": models * tokens / statistics.median(b for _, b in found),
        "times": statistics.median(models * a / b for a, b in found),
    }


def worker(name: str, *, threads: int, cores: set[int], cache: str, until: float = 0) -> Any:
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "TORCHINDUCTOR_CACHE_DIR": cache}
    more = [str(until)] if until else []
    command = [sys.executable, "-c", WORKER, os.path.dirname(os.path.abspath(__file__)), name, *more]
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )


def answer(process: Any) -> list[float]:
    return json.loads(process.communicate()[0])  # type: ignore[no-any-return]


def start_up(name: str, rounds: int, cache: str) -> dict[str, float]:
    core = {min(os.sched_getaffinity(0))}
    cold = answer(worker(name, threads=1, cores=core, cache=cache))
    warm = [answer(worker(name, threads=1, cores=core, cache=cache)) for _ in range(rounds)]
    return {
        "ready": statistics.median(w[0] for w in warm),
        "first_step_warm": statistics.median(w[1] for w in warm),
        "first_step_cold": cold[1],
    }


def side_by_side(name: str, duration: float, cache: str) -> dict[str, float]:
    cores = sorted(os.sched_getaffinity(0))[:2]
    tokens = ROWS * SEQ_LEN
    answer(worker(name, threads=1, cores={cores[0]}, cache=cache))  # compiles
    answer(worker(name, threads=2, cores=set(cores), cache=cache))
    until = time.time() + duration
    pair = [worker(name, threads=1, cores={c}, cache=cache, until=until) for c in cores]
    two = sum(tokens / answer(process)[1] for process in pair)
    until = time.time() + duration
    one = tokens / answer(worker(name, threads=2, cores=set(cores), cache=cache, until=until))[1]
    return {"two_runs": two, "one_run": one, "times": two / one}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", default=["150k", "1M"])
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=35, help="of each run side by side, start included"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as cache:
        results: dict[str, Any] = {"start": start_up(asked.sizes[0], asked.rounds, cache)}
        pairs = {name: side_by_side(name, asked.seconds, cache) for name in asked.sizes}
    s = results["start"]
    print(
        f"a worker has its model after {s['ready']:.1f} s; its first step is done after {s['first_step_warm']:.1f} s, "
        f"{s['first_step_cold']:.1f} s if nothing was compiled before"
    )
    for name in asked.sizes:
        pair = pairs[name]
        many = in_one_process(name, asked.models, asked.steps, asked.rounds)
        results[name] = {"side_by_side": pair, "in_one_process": many}
        print(
            f"{name}: two runs on a core each {pair['two_runs']:,.0f} tokens/s, one run on both "
            f"{pair['one_run']:,.0f}: {pair['times']:.2f} times"
        )
        print(
            f"{name}: {asked.models} models one after the other {many['one_after_the_other']:,.0f} tokens/s, batched "
            f"{many['batched']:,.0f}: {many['times']:.2f} times"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
