"""How fast batches are put together on one core: tokens per second, and the jump to a far batch.

    python benchmarks/batches.py --json batches.json

Makes two sources of random tokens in a temporary folder, then reads batches in order. Prints a
table; timings vary between machines and runs, so compare ratios.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codestage.data.batches import Batches
from codestage.data.mixture import MixturePlan
from codestage.data.shards import Shard, ShardMeta, append, write_meta


@dataclass(frozen=True)
class Dose:
    """A phase, as the study part would give it."""

    tokens: int
    by_source: dict[str, int]


def source(folder: Path, *, rows: int, seq_len: int, instruct: bool, seed: int) -> Shard:
    """A prepared source of random tokens; with a mask and differing rows if `instruct`."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(2, 4096, (rows, seq_len + 1), np.uint16)
    tokens[generator.random(tokens.shape) < 1 / 200] = 0  # a document some 200 tokens long
    folder.mkdir()
    append(folder / "rows.tokens", tokens)
    total = rows * seq_len
    if instruct:
        counts = generator.integers(seq_len * 3 // 4, seq_len + 1, rows, np.uint32)
        append(folder / "rows.mask", generator.integers(0, 2, tokens.shape, np.uint8))
        append(folder / "rows.counts", counts)
        total = int(counts.sum())
    meta = ShardMeta("code", rows, total, rows, 0, 0, total, seq_len, seq_len, "", "uint16")
    write_meta(folder, meta)
    return Shard(folder)


def measure(folder: Path, *, seq_len: int, batch_rows: int, instruct: bool, tokens: int) -> dict:
    """Tokens per second of one pass over `tokens` tokens of a 2:1 mix."""
    rows = tokens // seq_len
    shards = {
        name: source(folder / name, rows=rows, seq_len=seq_len, instruct=instruct, seed=seed)
        for seed, name in enumerate(["prose", "python"])
    }
    third = tokens // 4
    phase = Dose(3 * third, {"prose": 2 * third, "python": third})
    began = time.perf_counter()
    counts = {name: shard.row_counts for name, shard in shards.items()}
    batches = Batches(MixturePlan([phase], "even", counts, seed=0), shards, rows_per_batch=batch_rows)
    planned = time.perf_counter()
    for number in range(batches.n_batches):
        _ = batches[number]
    read = time.perf_counter()
    fresh = Batches(batches.plan, shards, rows_per_batch=batch_rows)
    again = time.perf_counter()
    _ = fresh[fresh.n_batches // 2]
    jumped = time.perf_counter()
    return {
        "format": "instruct" if instruct else "document",
        "seq_len": seq_len,
        "rows": batch_rows,
        "plan_ms": 1000 * (planned - began),
        "jump_ms": 1000 * (jumped - again),
        "tokens_per_second": phase.tokens / (read - planned),
    }


def main() -> None:
    """Measure a few shapes; print a table and, if asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8_000_000, help="tokens of each source")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    results = []
    print(f"{'format':10}{'seq_len':>8}{'rows':>6}{'plan ms':>10}{'jump ms':>10}{'Mtokens/s':>11}")
    for instruct in (False, True):
        for seq_len, batch_rows in ((256, 32), (256, 256), (2048, 8), (2048, 128)):
            with tempfile.TemporaryDirectory() as folder:
                result = measure(
                    Path(folder),
                    seq_len=seq_len,
                    batch_rows=batch_rows,
                    instruct=instruct,
                    tokens=arguments.tokens,
                )
            results.append(result)
            print(
                f"{result['format']:10}{seq_len:>8}{batch_rows:>6}{result['plan_ms']:>10.2f}"
                f"{result['jump_ms']:>10.2f}{result['tokens_per_second'] / 1e6:>11.1f}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
