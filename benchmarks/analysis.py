"""Analysis and report of large studies: time and memory, how they grow, and the bootstrap beside SciPy's.

    python benchmarks/analysis.py                   # 3,331 arms × 12 tasks × 1,000 items, and a half and a quarter of it
    python benchmarks/analysis.py --metrics acc prob bpb --seeds 3 --arms 1111
    python benchmarks/analysis.py bootstrap

Scores are invented: what they cost does not depend on what they say.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

ITEMS, TASKS = 1000, 12
DOMAINS = ("symbolic", "logical", "arithmetic")


def study(arms: int, seeds: int, metrics: list[str]) -> dict[str, Any]:
    """What `study.json` says of one stage with as many options as arms."""
    options = ["text", *(f"code-{i}" for i in range(1, arms))]
    return {
        "name": "large",
        "seeds": list(range(seeds)),
        "stages": ["tune"],
        "options": {"tune": options},
        "code_options": {"tune": options[1:]},
        "schedules": {"tune": dict.fromkeys(options, "mix")},
        "arms": [
            {"name": o, "role": "grid", "control": None, "against": None, "factors": {"tune": o}, "tokens": {"tune": 1}}
            for o in options
        ],
        "tasks": [
            {"name": f"task-{t}", "domain": DOMAINS[t % 3], "chance": 0.25, "metric": "acc", "cot": ["off"], "items": ITEMS}
            for t in range(TASKS)
        ],
        "metrics": metrics,
    }  # fmt: skip


def write(folder: Path, arms: int, seeds: int, metrics: list[str]) -> int:
    """Records of an invented study; returns the number of rows."""
    results = folder / "results"
    results.mkdir(parents=True)
    told = study(arms, seeds, metrics)
    (results / "study.json").write_text(json.dumps(told))
    runs = [
        {"run": f"{a['name']}#{s}", "arm": a["name"], "seed": s, "role": "grid", "factors": a["factors"],
         "stages": [{"name": "tune", "kind": "tune", "option": a["name"], "tokens_planned": {"x": 1},
                     "tokens_realised": {"x": 1}, "epochs": {"x": 1.0}, "seconds": 1.0}]}
        for a in told["arms"] for s in told["seeds"]
    ]  # fmt: skip
    (results / "runs.json").write_text(json.dumps(runs))
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(-0.3, 0.3, (TASKS, ITEMS))
    shared = {seed: rng.uniform(0, 1, (TASKS, ITEMS)) for seed in range(seeds)}
    fixed = _columns(metrics)
    rows, writer, waiting = 0, None, []
    for run in runs:
        draw = np.where(
            rng.uniform(0, 1, (TASKS, ITEMS)) < 0.7,
            shared[run["seed"]],
            rng.uniform(0, 1, (TASKS, ITEMS)),
        )
        right = (draw < 0.5 + rng.normal(0, 0.02) + difficulty).astype(np.float64)
        n = TASKS * ITEMS * len(metrics)
        values = np.stack([right if m == "acc" else draw for m in metrics], axis=1).ravel()
        table = pa.table(
            {
                "run": pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), [run["run"]]),
                "arm": pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), [run["arm"]]),
                "seed": np.full(n, run["seed"]), **fixed, "value": values,
            }
        )  # fmt: skip
        writer = writer or pq.ParquetWriter(results / "items.parquet", table.schema)
        waiting.append(table)
        rows += n
        if sum(map(len, waiting)) > 1_000_000 or run is runs[-1]:
            writer.write_table(pa.concat_tables(waiting).unify_dictionaries().combine_chunks())
            waiting.clear()
    assert writer
    writer.close()
    return rows


def _columns(metrics: list[str]) -> dict[str, Any]:
    """What is the same for every run: a row for each task, metric and item."""
    n = TASKS * len(metrics) * ITEMS
    number = np.arange(n)
    task, metric, item = number // (len(metrics) * ITEMS), number // ITEMS % len(metrics), number % ITEMS

    def words(codes: np.ndarray, names: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(codes.astype(np.int32), names)

    return {
        "stage": words(np.zeros(n), ["tune"]),
        "cot": words(np.zeros(n), ["off"]),
        "task": words(task, [f"task-{t}" for t in range(TASKS)]),
        "metric": words(metric, metrics),
        "item": words(
            task * ITEMS + item, [f"task-{t}-{i}" for t in range(TASKS) for i in range(ITEMS)]
        ),
        "status": words(np.zeros(n), ["ok"]),
    }


MEASURE = """
import json, resource, sys, time
from pathlib import Path
from codestage.engine.results import rebuild
start = time.perf_counter()
rebuild(Path(sys.argv[1]))
print(json.dumps({"seconds": time.perf_counter() - start,
                  "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}))
"""


def sizes(arms: int, seeds: int, metrics: list[str]) -> list[dict[str, Any]]:
    """Analysis and report of a study, of half and of a quarter of it, each in a process of its own."""
    found = []
    for share in (4, 2, 1):
        with tempfile.TemporaryDirectory() as folder:
            rows = write(Path(folder), arms // share, seeds, metrics)
            shown = subprocess.run(
                [sys.executable, "-c", MEASURE, folder], capture_output=True, text=True, check=True
            )
            page = (Path(folder) / "results" / "report.html").stat().st_size / 1e6
            effects = (Path(folder) / "results" / "effects.json").stat().st_size / 1e6
        found.append(
            {"arms": arms // share, "seeds": seeds, "rows": rows, **json.loads(shown.stdout),
             "report_megabytes": page, "effects_megabytes": effects}
        )  # fmt: skip
        last = found[-1]
        print(
            f"{last['arms']:5,} arms × {seeds} seeds, {rows / 1e6:6.1f} M rows: {last['seconds']:5.1f} s, "
            f"{last['gigabytes']:.2f} GB, {1e6 * last['seconds'] / rows:.2f} µs a row, report {page:.1f} MB"
        )
    return found


def bootstrap(items: int = 1000, draws: int = 2000, rounds: int = 5) -> list[dict[str, float]]:
    """All contrasts of one task by codestage and one by one by SciPy, on the same resamples.

    SciPy is timed on ten contrasts and counted as many times as there are: each costs it the same.
    """
    from codestage.analyse.bootstrap import counts, percentile_interval, resampled_means

    found = []
    for contrasts in (1, 10, 100, 1000):
        d = np.random.default_rng(0).integers(-1, 2, (contrasts, items)).astype(np.float32)
        ratios, apart = [], 0.0
        for seed in range(-1, rounds):  # the first is to warm up
            start = time.perf_counter()
            indices = np.random.default_rng(seed + 1).integers(0, items, (draws, items))
            low, high = percentile_interval(resampled_means(counts(indices, items), d), 0.05)
            ours = time.perf_counter() - start
            start = time.perf_counter()
            for i, row in enumerate(d[:10].astype(np.float64)):
                rng = np.random.default_rng(seed + 1)
                theirs = stats.bootstrap(
                    (row,), np.mean, n_resamples=draws, method="percentile", rng=rng
                )
                ends = theirs.confidence_interval
                apart = max(apart, abs(ends.low - low[i]), abs(ends.high - high[i]))
            each = (time.perf_counter() - start) / min(contrasts, 10)
            ratios.append(each * contrasts / ours)
        ratios = ratios[1:]
        print(
            f"bootstrap of {contrasts:4} contrasts, {items} items, {draws} resamples: SciPy takes {np.median(ratios):.0f} "
            f"times as long ({min(ratios):.0f} to {max(ratios):.0f}); intervals differ by {apart:.1e}"
        )
        found.append(
            {"contrasts": contrasts, "ratio": float(np.median(ratios)), "difference": float(apart)}
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["all", "sizes", "bootstrap"], default="all")
    parser.add_argument("--arms", type=int, default=3331)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--metrics", nargs="+", default=["acc"])
    parser.add_argument("--rounds", type=int, default=5, help="of the bootstrap")
    asked = parser.parse_args()
    result: dict[str, Any] = {}
    if asked.what != "sizes":
        result["bootstrap"] = bootstrap(rounds=asked.rounds)
    if asked.what != "bootstrap":
        result["sizes"] = sizes(asked.arms, asked.seeds, asked.metrics)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
