"""Batches with exact doses from memory-mapped shards, beside `datasets.interleave_datasets` with packing.

Both give rows of 2048 tokens from the same three tokenised sources at shares 6 : 3 : 1, in one
process on one core, by turns in one run. Also: the start of a mixture of a trillion tokens.

    python benchmarks/batches.py [--tokens 20_000_000]
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from codestage.data.batches import Batches
from codestage.data.mixture import MixturePlan
from codestage.data.shards import Shard
from codestage.study.schedule import phases

MARKS = {"begin": 0, "end": 0, "pad": 1}
SEQ_LEN, ROWS = 2048, 32
SHARES = {"prose": Fraction(6), "code": Fraction(3), "math": Fraction(1)}


def write_shard(folder: Path, rows: int, seed: int) -> None:
    """Random tokens in documents of about 700."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    stream = rng.integers(2, 32_000, rows * SEQ_LEN + 1, dtype=np.uint16)
    stream[rng.random(len(stream)) < 1 / 700] = 0
    index = np.arange(rows)[:, None] * SEQ_LEN + np.arange(SEQ_LEN + 1)
    stream[index].tofile(folder / "rows.tokens")
    meta = {"format": "document", "rows": rows, "seq_len": SEQ_LEN, "dtype": "uint16", "marks": MARKS}
    (folder / "meta.json").write_text(json.dumps(meta))


def ours(folder: Path, tokens: int) -> float:
    """Seconds for batches of `tokens` tokens."""
    shards = {name: Shard(folder / name) for name in SHARES}
    counts = {name: shard.counts for name, shard in shards.items()}
    plan = MixturePlan(phases(tokens, [(Fraction(1), SHARES)]), "even", counts, seed=0)
    batches = Batches(plan, shards, rows_per_batch=ROWS)
    began = time.perf_counter()
    held = sum(int((batches[i].documents >= 0).sum()) for i in range(batches.n_batches))
    seconds = time.perf_counter() - began
    assert held == tokens
    return seconds


def theirs(folder: Path, tokens: int) -> float:
    """Seconds for as many tokens of `interleave_datasets` over documents, packed into rows."""
    import datasets

    datasets.disable_progress_bars()
    sources = []
    for name in SHARES:
        shard = Shard(folder / name)
        stream = np.concatenate([shard.tokens[:, :-1].ravel(), shard.tokens[-1:, -1]])
        cuts = np.flatnonzero(stream == 0)
        parts = [
            p.astype(np.int32)
            for p in np.split(stream[: tokens // 4], cuts[cuts < tokens // 4])
            if len(p)
        ]
        sources.append(datasets.Dataset.from_dict({"ids": parts}).to_iterable_dataset())
    weights = np.array([float(s) for s in SHARES.values()])
    mixed = datasets.interleave_datasets(
        sources,
        probabilities=(weights / weights.sum()).tolist(),
        seed=0,
        stopping_strategy="all_exhausted",
    )
    carry: list[int] = []
    done = 0
    began = time.perf_counter()
    for example in mixed:
        carry.extend(example["ids"])
        while len(carry) > SEQ_LEN:
            np.array(carry[: SEQ_LEN + 1], dtype=np.int32)
            carry = carry[SEQ_LEN:]
            done += SEQ_LEN
        if done >= tokens:
            break
    return (time.perf_counter() - began) * tokens / done


def trillion() -> dict[str, float]:
    """Start-up and memory of a mixture of a trillion tokens over sparse shards, and its middle batch."""
    with tempfile.TemporaryDirectory() as folder:
        rows = 250_000_000
        for name in SHARES:
            place = Path(folder) / name
            place.mkdir()
            with (place / "rows.tokens").open("wb") as file:
                file.truncate(rows * 4097 * 2)
            meta = {
                "format": "document",
                "rows": rows,
                "seq_len": 4096,
                "dtype": "uint16",
                "marks": MARKS,
            }
            (place / "meta.json").write_text(json.dumps(meta))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        shards = {name: Shard(Path(folder) / name) for name in SHARES}
        counts = {name: shard.counts for name, shard in shards.items()}
        plan = MixturePlan(phases(10**12, [(Fraction(1), SHARES)]), "even", counts, seed=0)
        batches = Batches(plan, shards, rows_per_batch=16)
        batches[batches.n_batches // 2]
        before_middle = batches.tokens_before(batches.n_batches // 2)
        seconds = time.perf_counter() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        return {"seconds": seconds, "megabytes": grown, "tokens_before_middle": before_middle}


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=20_000_000)
    tokens = parser.parse_args().tokens
    result: dict[str, object] = {"trillion": trillion()}
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate(SHARES):
            write_shard(Path(folder) / name, 2 * tokens // SEQ_LEN // 2, seed)
        ours(Path(folder), tokens)  # the files into the page cache
        few = tokens // 20
        pairs = [
            (ours(Path(folder), tokens) / tokens, theirs(Path(folder), few) / few) for _ in range(5)
        ]
    result["tokens_per_second"] = 1 / statistics.median(a for a, _ in pairs)
    result["interleave_datasets_tokens_per_second"] = 1 / statistics.median(b for _, b in pairs)
    result["ratio"] = statistics.median(b / a for a, b in pairs)
    print(f"{'codestage batches':28} {result['tokens_per_second'] / 1e6:8.1f} M tokens/s on one core")
    print(
        f"{'interleave_datasets, packed':28} {result['interleave_datasets_tokens_per_second'] / 1e6:8.1f} M tokens/s"
    )
    print(f"{'ratio':28} {result['ratio']:8.1f}")
    start = result["trillion"]
    print(f"{'a trillion tokens: start':28} {start['seconds']:8.3f} s, {start['megabytes']:.0f} MB")  # type: ignore[index]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
