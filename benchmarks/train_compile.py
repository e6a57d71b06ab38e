"""Compiling a model for training on one core: all of it in one graph, or its layers one by one, which are one graph.

A size is a process of its own with no compiled graphs kept from before. Seconds to the end of the first micro-batch
(traced, compiled and computed; the loss, which both ways have in common, is compiled before); then forward and
backward passes of both ways by turns: tokens/s, the median, and the median of the ratio of neighbours. codestage takes
the second way from `codestage.train.model.WIDE` on. The last size is that of SmolLM2-135M.

    python benchmarks/train_compile.py [--sizes 1M 6M 27M 135M] [--steps 12]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

WAYS = {"one graph": 1 << 30, "by layer": 1}
SIZES = {
    "150k": ({"size": "150k"}, 1024, (4, 128)),
    "1M": ({"size": "1M"}, 4096, (16, 256)),
    "6M": ({"size": "6M"}, 4096, (16, 256)),
    "27M": ({"size": "27M"}, 4096, (16, 256)),
    "135M": ({"hidden_size": 576, "layers": 30, "heads": 9, "kv_heads": 3}, 49152, (2, 512)),
}
"""Size -> the model, its vocabulary, and rows x tokens of a micro-batch."""


def measure(size: str, steps: int) -> dict[str, float]:
    """In a process without compiled graphs."""
    import torch

    from codestage.study.models import shape
    from codestage.study.schema import ModelSpec
    from codestage.train import model as models
    from codestage.train.attention import document_bias
    from codestage.train.loss import PackedLoss

    torch.set_num_threads(1)
    spec, vocab, (rows, length) = SIZES[size]
    held = shape(ModelSpec.model_validate({"family": "llama", **spec}), vocab)
    tokens = torch.randint(0, vocab, (rows, length))
    seen = document_bias(torch.zeros(rows, length, dtype=torch.long))
    positions = torch.arange(length).expand(rows, length).contiguous()

    def step(model: torch.nn.Module, forward: models.Forward) -> float:
        began = time.perf_counter()
        forward(tokens, seen, positions, tokens)[0].backward()
        model.zero_grad()
        return time.perf_counter() - began

    plain, _ = models.ModelPool(compiled=False).get(held, length)
    step(plain, PackedLoss(plain, compiled=True))
    ways, first = {}, {}
    for name, wide in WAYS.items():
        models.WIDE = wide
        ways[name] = models.ModelPool(compiled=True).get(held, length)
        first[name] = step(*ways[name])
    turns = [{name: step(*way) for name, way in ways.items()} for _ in range(steps)]
    speeds = {name: rows * length / statistics.median(turn[name] for turn in turns) for name in WAYS}
    ratio = statistics.median(turn["one graph"] / turn["by layer"] for turn in turns)
    return {"first": first, "tokens_per_second": speeds, "times_as_fast": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1M", "6M", "27M", "135M"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.sizes[0], asked.steps)))
        return
    print(
        f"{'size':>5} | first, s: one graph, by layer | tokens/s: one graph, by layer | by layer is times as fast"
    )
    found = []
    for size in asked.sizes:
        with tempfile.TemporaryDirectory() as cache:
            own = {"TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
            again = [sys.executable, "-W", "ignore", __file__, "--one", "--sizes", size]
            done = subprocess.run(
                [*again, "--steps", str(asked.steps)],
                env=os.environ | own,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        row = json.loads(done.stdout.splitlines()[-1])
        first, speed = row["first"].values(), row["tokens_per_second"].values()
        told = [f"{s:8.1f}" for s in first], [f"{s:9,.0f}" for s in speed]
        print(
            f"{size:>5} | {' '.join(told[0])} | {' '.join(told[1])} | {row['times_as_fast']:.2f}",
            flush=True,
        )
        found.append({"size": size, **row})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
