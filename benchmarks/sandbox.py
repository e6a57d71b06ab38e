"""Programs with their tests run per second: confined, unconfined, and as bare `python -c`.

The programs are MBPP's reference solutions where the file is at hand, and stand-ins of their size where
it is not. With one worker and with two, the three ways by turns in one run; medians over the rounds.

    python benchmarks/sandbox.py [--programs 200] [--rounds 5] [--mbpp shared/data/eval/mbpp.jsonl.gz]
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from codestage.errors import UserError
from codestage.evaluate.code import mbpp_program, passed
from codestage.evaluate.sandbox import Sandbox

TOKEN = "all tests passed"
MBPP = Path(__file__).parents[2] / "shared" / "data" / "eval" / "mbpp.jsonl.gz"
Way = Callable[[Sequence[str], int], int]
"""Runs programs with so many workers; how many passed."""


def problems(path: Path, n: int) -> tuple[str, list[dict[str, Any]]]:
    """What the problems are, and `n` of them."""
    if path.exists():
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            docs = [json.loads(line) for line in lines]
        return "MBPP", [docs[i % len(docs)] for i in range(n)]
    stand_ins: list[dict[str, Any]] = [
        {
            "code": f"import re\ndef total(items):\n    found = [x for x in items if x % {i + 2} == 0]\n"
            "    return sum(found)",
            "test_list": [
                f"assert total(range({k})) == sum(range(0, {k}, {i + 2}))" for k in (5, 50, 500)
            ],
        }
        for i in range(n)
    ]
    return "stand-ins", stand_ins


def in_sandbox(sandbox: Sandbox) -> Way:
    def run(programs: Sequence[str], workers: int) -> int:
        return sum(passed(ran, TOKEN) for ran in sandbox.run_all(programs, workers=workers))

    return run


def bare(programs: Sequence[str], workers: int) -> int:
    """What a first attempt would be: no limits, no protection, site-packages and all."""

    def one(program: str) -> bool:
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode == 0 and done.stdout.endswith(f"\n{TOKEN}\n")

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(one, programs))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mbpp", type=Path, default=MBPP)
    args = parser.parse_args()
    kind, docs = problems(args.mbpp, args.programs)
    programs = [mbpp_program(doc, doc["code"], TOKEN) for doc in docs]
    ways: dict[str, Way] = {"unconfined": in_sandbox(Sandbox("unconfined")), "bare python -c": bare}
    try:
        ways = {"confined": in_sandbox(Sandbox()), **ways}
    except UserError as error:
        print(f"not measured: {error}")
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(args.rounds):
        for workers in (1, 2):
            for name, way in ways.items():
                began = time.perf_counter()
                right = way(programs, workers)
                rates.setdefault((name, workers), []).append(
                    len(programs) / (time.perf_counter() - began)
                )
                assert right == len(programs), f"{name}: {right} of {len(programs)} passed"
    result: dict[str, object] = {
        "programs": kind,
        "number": len(programs),
        "processors": len(os.sched_getaffinity(0)),
    }
    for (name, workers), found in rates.items():
        key = f"{name.replace(' ', '_')}_{workers}"
        result[key] = statistics.median(found)
        result[f"{key}_range"] = [min(found), max(found)]
        print(
            f"{name:16} {workers} worker{'s' * (workers > 1):1} {statistics.median(found):8.1f} programs/s"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
