"""The engine at scale: planning, status and scheduling, and how they grow with the study.

    python benchmarks/engine.py                      # 100, 1,000 and 10,000 arms; steps of 0, 1 and 10 s
    python benchmarks/engine.py --arms 100 --steps 20 --seconds 0 --workers 2

Studies are generated: pretrain options × tuning options, as mixtures or as schedules of four phases. Steps that only sleep
stand for work: everything else about them is done as for any step, from the queue to the rename into the store.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from codestage.data.mixture import RowCounts
from codestage.engine.graph import Supply, training_steps
from codestage.engine.local import run_steps
from codestage.engine.progress import Progress
from codestage.engine.store import Step, Store
from codestage.study.expand import runs
from codestage.study.load import load_study
from codestage.study.models import shape

FIRST = 10
"""Options of the first stage."""


def study(arms: int, *, phases: bool, tokens: tuple[str, str] = ("200M", "20M")) -> str:
    """A study file with so many arms: ten ways to pre-train, each with as many tunings."""
    tunings = max(1, arms // FIRST)
    lines = [
        "name: large",
        "model: {family: llama, size: 2M}",
        "tokenizer: {train: bpe, vocab_size: 4096}",
        "seeds: 1",
        "sources:",
    ]
    for name, domain, form in (("prose", "text", "prose"), ("python", "code", "programs")):
        lines.append(f"  {name}: {{domain: {domain}, procedural: {{form: {form}, documents: 300}}}}")
    for name, domain in (("chat", "text"), ("code_chat", "code")):
        lines.append(
            f"  {name}: {{domain: {domain}, format: instruct, procedural: {{form: {name}, documents: 300}}}}"
        )
    lines += ["stages:", "  pretrain:", f"    tokens: {tokens[0]}", *_size(), "    options:"]
    lines += [f"      p{i}: {{mix: {{prose: {100 - i}, python: {i + 1}}}}}" for i in range(FIRST)]
    lines += ["  tune:", f"    tokens: {tokens[1]}", *_size(), "    options:"]
    for i in range(tunings):
        d = i // 2 + 1
        less, more = (2 * tunings - d, 2 * tunings + d)[:: 1 if i % 2 else -1]
        if phases:
            parts = (
                f"{{chat: {a}, code_chat: {b}}}" for a, b in ((1, 1), (less, more), (more, less), (1, 1))
            )
            lines.append(f"      t{i}: {{phases: [{', '.join(parts)}]}}")
        else:
            lines.append(f"      t{i}: {{mix: {{chat: {2 * tunings - i}, code_chat: {i + 1}}}}}")
    return "\n".join([*lines, "evaluate: {suites: [quickstart]}"])


def _size() -> list[str]:
    return [
        "    seq_len: 256",
        "    batch_tokens: 65536",
        "    lr: {schedule: wsd, warmup_tokens: 100k}",
    ]


def measured(command: list[str]) -> tuple[dict[str, float], str]:
    """A command's seconds, its seconds on a core, the most MB it held; and its output."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        out = process.stdout.read()
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    told = {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),  # what a busy machine does not change
        "megabytes": round(used.ru_maxrss / 1024),
    }
    return told, out


def planning(folder: Path, arms: list[int]) -> Iterator[dict[str, Any]]:
    """`codestage plan --json`, started anew each time."""
    for phases in (False, True):
        for count in arms:
            path = folder / f"plan-{count}-{phases}.yaml"
            path.write_text(study(count, phases=phases))
            told, out = measured([sys.executable, "-m", "codestage.cli", "plan", str(path), "--json"])
            answer = json.loads(out)
            yield {
                "what": f"plan, {'schedules' if phases else 'mixtures'}",
                "arms": answer["arms"],
                "steps": answer["steps"],
                **told,
            }


def laying_out(folder: Path, arms: list[int]) -> Iterator[dict[str, Any]]:
    """What `run` does before it trains: every row laid out and hashed, where tuning rows are packed unevenly."""
    for count in arms:
        path = folder / f"rows-{count}.yaml"
        path.write_text(study(count, phases=False, tokens=("20M", "2M")))
        told, out = measured([sys.executable, __file__, "--lay-out", str(path)])
        yield {
            "what": "laid out for a run",
            "arms": count,
            "steps": int(out),
            **told,
        }


def lay_out(path: Path) -> None:
    import numpy as np

    made = load_study(path)
    counts = np.random.default_rng(0).integers(200, 257, 100_000).astype(np.int32)
    rows = {
        name: RowCounts(10**6, 256)
        if source.format != "instruct"
        else RowCounts(len(counts), 256, counts)
        for name, source in made.sources.items()
    }
    supply = Supply(rows, *[dict.fromkeys(rows, "x")] * 2)
    works = training_steps(runs(made), {256: supply}, shape(made.model, 4096), 256)
    print(len({s.hash for stages in works.values() for w in stages for s in w.segments}))


def status(folder: Path, arms: list[int]) -> Iterator[dict[str, Any]]:
    """`codestage status --json` of a study that runs, and one event of its progress."""
    for count in arms:
        out = folder / f"status-{count}"
        steps = [Step("train", f"s{i}", {"i": i}, cost=1e6) for i in range(2 * count)]
        progress = Progress(out, "large")
        progress.expect(steps, {s.hash for s in steps[:count]})
        for step in steps[:count]:
            (out / "store" / "train" / step.hash).mkdir(parents=True)
        for step in steps[count : count + 10]:
            progress.hear("started", step, {})
            progress.hear("done", step, {"seconds": 1.0})
        progress.hear("started", steps[-1], {})
        progress.snapshot("running")  # imports what it needs
        began = time.perf_counter()
        for i in range(200):
            progress.hear("progress", steps[-1], {"tokens": i, "loss": 1.0, "tokens_per_second": 1})
            progress.snapshot("running")
        event = (time.perf_counter() - began) / 200
        progress.write("running", force=True)
        command = [sys.executable, "-m", "codestage.cli", "status", str(out), "--json"]
        told = min((measured(command)[0] for _ in range(3)), key=lambda t: t["seconds"])
        yield {
            "what": "status",
            "arms": count,
            "steps": 2 * count,
            **told,
            "event_us": round(1e6 * event),
        }


class Sleep:
    """The payload of an items step without tasks: reading it takes a while."""

    splits: ClassVar[dict[str, Any]] = {}
    data = None
    own = ()

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @property
    def study(self) -> str:
        time.sleep(self.seconds)
        return "nowhere.yaml"


def scheduling(folder: Path, steps: int, seconds: float, workers: int) -> dict[str, Any]:
    """Steps of so many seconds, in chains of two: how much longer they take than their seconds."""
    out = folder / f"sleep-{steps}-{seconds}"
    made: list[Step] = []
    for i in range(steps):
        inputs = {"before": made[i - 1].hash} if i % 2 else {}
        made.append(Step("items", f"sleep {i}", {"tasks": [], "n": i}, inputs, payload=Sleep(seconds)))
    progress = Progress(out, "sleep")
    progress.expect(made, set())
    times: list[float] = []
    first: dict[str, float] = {}

    def listener(event: str, step: Step, body: dict[str, Any]) -> None:
        now = time.perf_counter()
        progress.hear(event, step, body)
        progress.write("running", force=event == "done")
        progress.snapshot("running")
        if event == "done":
            times.append(now)
            first.setdefault("warm", now) if len(times) >= workers else None

    began = time.perf_counter()
    run_steps(made, Store(out), workers=workers, listener=listener)
    # from when every worker has done its first step: starting them takes seconds once, and is told apart
    wall, rest = times[-1] - first["warm"], steps - workers
    ideal = rest * seconds / workers
    return {
        "what": f"steps of {seconds:g} s",
        "steps": steps,
        "workers": workers,
        "seconds": round(wall, 2),
        "start_up": round(first["warm"] - began - seconds, 2),
        "ms_a_step": round(1000 * (wall - ideal) * workers / rest, 1),
        "overhead": round((wall - ideal) / ideal, 4) if ideal else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--seconds", type=float, nargs="*", default=[0, 1, 10])
    parser.add_argument(
        "--steps", type=int, nargs="*", default=[1000, 160, 32], help="for each of --seconds"
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--lay-out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.lay_out:
        lay_out(asked.lay_out)
        return
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (planning, laying_out, status):
            for row in part(folder, asked.arms):
                found.append(row)
                print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        for steps, seconds in zip(asked.steps, asked.seconds, strict=True):
            found.append(scheduling(folder, steps, seconds, asked.workers))
            print("  ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
