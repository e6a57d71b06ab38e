"""Compiling a model for training on one core: all of it in one graph, or its layers one by one, which are one graph.

Each case is a process of its own whose compiled graphs are kept nowhere else: seconds to the end of its first
micro-batch (traced, compiled and computed), then tokens/s of forward and backward passes, the median. codestage takes
the second way from `codestage.train.model.WIDE` on. The last size is that of SmolLM2-135M.

    python benchmarks/train_compile.py [--sizes 1M 6M 27M 135M] [--steps 8]
"""

import argparse
import itertools
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


def one(size: str, wide: int, steps: int) -> dict[str, float]:
    """What a process of its own measures."""
    import torch

    from codestage.study.models import shape
    from codestage.study.schema import ModelSpec
    from codestage.train import model as models
    from codestage.train.attention import document_bias

    torch.set_num_threads(1)
    models.WIDE = wide
    spec, vocab, (rows, length) = SIZES[size]
    held = shape(ModelSpec.model_validate({"family": "llama", **spec}), vocab)
    model, forward = models.ModelPool(compiled=True).get(held, length)
    tokens = torch.randint(0, vocab, (rows, length))
    seen = document_bias(torch.zeros(rows, length, dtype=torch.long))
    positions = torch.arange(length).expand(rows, length).contiguous()
    times = [time.perf_counter()]
    for _ in range(steps + 1):
        forward(tokens, seen, positions, tokens)[0].backward()
        model.zero_grad()
        times.append(time.perf_counter())
    taken = [after - before for before, after in itertools.pairwise(times)]
    return {"first": taken[0], "tokens_per_second": rows * length / statistics.median(taken[1:])}


def measure(size: str, way: str, steps: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
        code = f"import train_compile, json; print(json.dumps(train_compile.one({size!r}, {WAYS[way]}, {steps})))"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env=environment | {"PYTHONPATH": os.path.dirname(__file__)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["1M", "6M", "27M", "135M"])
    parser.add_argument("--steps", type=int, default=8)
    asked = parser.parse_args()
    print(f"{'size':>6} {'way':>10} {'first s':>8} {'tokens/s':>9}")
    found = []
    for size in asked.sizes:
        for way in WAYS:
            row = measure(size, way, asked.steps)
            print(
                f"{size:>6} {way:>10} {row['first']:8.1f} {row['tokens_per_second']:9,.0f}", flush=True
            )
            found.append({"size": size, "way": way, **row})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
