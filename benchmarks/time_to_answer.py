"""Time to answer: the papers' 2 × 4 grid with three seeds, as a script does it today and by `codestage run`.

Both have the same documents, tokens, model, items and tasks, and start from nothing. The script
(`benchmarks/peer/by_hand.py`) trains every arm by Hugging Face's Trainer, mixes with `interleave_datasets`, and
asks lm-evaluation-harness about every checkpoint. Beside them stands the bound: the tokens that must be trained at
least once, at the speed of a bare loop on every core, and the tokens that must be looked at for the scores, at the
speed of the model's forward pass alone.

    python benchmarks/time_to_answer.py [--pretrain 512k] [--tune 128k] [--items 60] [--seeds 3] [--cold]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from codestage.data.worlds.corpus import corpus
from codestage.evaluate.tasks import folder as task_folder
from codestage.evaluate.tasks import suites
from codestage.study.values import parse_count

SEQ_LEN, BATCH_TOKENS, VOCAB = 256, 4096, 4096
MODEL = {"hidden_size": 128, "layers": 4, "heads": 4}
DOCUMENTS = {"prose": 60_000, "programs": 20_000, "chat": 30_000, "code_chat": 12_000}
PRETRAIN = {"text": {"prose": 1}, "text+code": {"prose": 2, "programs": 1}}
STEPS = [(5, 5), (6, 4), (7, 3), (7, 3)]
TUNE = {
    "text": [{"chat": 1}],
    "uniform": [{"chat": 5, "code_chat": 3}],
    "increase": [{"chat": c, "code_chat": k} for c, k in reversed(STEPS)],
    "decrease": [{"chat": c, "code_chat": k} for c, k in STEPS],
}
Row = dict[str, Any]


def write_documents(folder: Path, scale: float) -> dict[str, str]:
    """The same files for both sides: made before any clock runs."""
    files = {}
    for form, documents in DOCUMENTS.items():
        files[form] = str(folder / f"{form}.jsonl")
        rows = corpus(form, documents=max(500, int(documents * scale)), cot=0.0)  # type: ignore[arg-type]
        with Path(files[form]).open("w") as out:
            for row in rows:
                keys = ("text",) if "text" in row else ("prompt", "response")
                out.write(json.dumps({key: row[key] for key in keys}) + "\n")
    return files


def design_of(asked: argparse.Namespace, files: dict[str, str]) -> Row:
    hidden = MODEL["hidden_size"]
    return {
        "sources": files,
        "vocab_size": VOCAB,
        "model": {
            "hidden_size": hidden,
            "intermediate_size": max(32, round(8 * hidden / 3 / 32) * 32),
            "num_hidden_layers": MODEL["layers"],
            "num_attention_heads": MODEL["heads"],
            "max_position_embeddings": SEQ_LEN,
            "tie_word_embeddings": True,
        },
        "seq_len": SEQ_LEN,
        "batch_tokens": BATCH_TOKENS,
        "lr": 3e-3,
        "tokens": {"pretrain": parse_count(asked.pretrain), "tune": parse_count(asked.tune)},
        "pretrain": PRETRAIN,
        "tune": TUNE,
        "seeds": asked.seeds,
        "tasks": list(suites()["quickstart"].tasks),
        "task_folder": str(task_folder()),
        "items": asked.items,
    }


def study_of(design: Row) -> Row:
    def stage(name: str, options: Row) -> Row:
        return {
            "tokens": design["tokens"][name],
            "seq_len": SEQ_LEN,
            "batch_tokens": BATCH_TOKENS,
            "optimizer": {"lr": design["lr"]},
            "lr": {"schedule": "cosine", "warmup_tokens": 10 * BATCH_TOKENS},
            "options": options,
        }

    instruct = {"format": "instruct"}
    sources = {
        name: {"domain": "code" if name in ("programs", "code_chat") else "text", "path": file}
        | (instruct if "chat" in name else {})
        for name, file in design["sources"].items()
    }
    return {
        "name": "time-to-answer",
        "model": {"family": "llama", **MODEL},
        "tokenizer": {"train": "bpe", "vocab_size": VOCAB},
        "seeds": design["seeds"],
        "sources": sources,
        "stages": {
            "pretrain": stage("pretrain", {k: {"mix": v} for k, v in PRETRAIN.items()}),
            "tune": stage(
                "tune",
                {k: {"mix": v[0]} if len(v) == 1 else {"phases": v} for k, v in TUNE.items()},
            ),
        },
        "evaluate": {"suites": ["quickstart"], "cot": ["off"], "items": design["items"]},
    }


def timed(command: list[str], environment: Mapping[str, str], log: Path) -> float:
    began = time.perf_counter()
    with log.open("w") as out:
        subprocess.run(
            command, check=True, env={**os.environ, **environment}, stdout=out, stderr=subprocess.STDOUT
        )
    return time.perf_counter() - began


def steps_of(folder: Path) -> list[Row]:
    return [json.loads(file.read_text()) for file in folder.glob("store/*/*/step.json")]


def by_kind(steps: Iterable[Row]) -> dict[str, float]:
    """Worker-seconds in each kind of step."""
    found: dict[str, float] = {}
    for step in steps:
        found[step["kind"]] = found.get(step["kind"], 0.0) + step["seconds"]
    return found


def bare_speed(core: int, steps: int) -> tuple[float, float]:
    """On one core: tokens a second of a bare loop over the graph that codestage compiles, and of the forward
    pass alone, that nothing feeds, reads or saves."""
    os.sched_setaffinity(0, {core})
    import torch
    from train_speed import bare_own

    from codestage.study.models import shape
    from codestage.study.schema import ModelSpec
    from codestage.train.model import ModelPool, build_model

    torch.set_num_threads(1)
    size = shape(ModelSpec(family="llama", **MODEL), VOCAB)
    a_step = bare_own(size, ModelPool(compiled=True), steps)
    model = build_model(size, SEQ_LEN, 0).eval()
    model.set_attn_implementation("sdpa")
    ids = torch.ones(6, SEQ_LEN, dtype=torch.long)  # as many tokens as are scored at once
    times = []
    with torch.no_grad():
        for _ in range(steps):
            began = time.perf_counter()
            model.base_model(input_ids=ids, use_cache=False)
            times.append(time.perf_counter() - began)
    return BATCH_TOKENS / a_step, ids.numel() / statistics.median(times)


def speeds(steps: int) -> tuple[float, float]:
    """Tokens a second in training and in the forward pass, summed over the cores, all busy at once."""
    command = [sys.executable, __file__, "--steps", str(steps), "--bare"]
    cores = sorted(os.sched_getaffinity(0))
    team = [subprocess.Popen([*command, str(core)], stdout=subprocess.PIPE, text=True) for core in cores]
    found = [json.loads(process.communicate(timeout=600)[0]) for process in team]
    return sum(train for train, _ in found), sum(forward for _, forward in found)


def looked_at(folder: Path, steps: list[Row], design: Row) -> int:
    """Tokens that all evaluations must look at: what items share once, what models wrote as often as
    written. Counted on the first run's checkpoints, which stand for the others of their stage."""
    from codestage.data.tokenizer import load_tokenizer
    from codestage.evaluate.backend import Backend
    from codestage.evaluate.documents import task_items
    from codestage.evaluate.keys import common_beginning
    from codestage.evaluate.run import Evaluation
    from codestage.evaluate.tasks import load_tasks

    class Counting(Backend):
        tokens = 0

        def score(self, trees: Any) -> Any:
            shared = len(common_beginning([tree.context for tree in trees]))
            self.tokens += shared + sum(tree.size - shared for tree in trees)
            return super().score(trees)

        def generate(self, prompts: Any, **how: Any) -> Any:
            written = super().generate(prompts, **how)
            self.tokens += sum(map(len, self.encode(prompts))) + sum(text.tokens for text in written)
            return written

    tasks = load_tasks(design["tasks"])
    items = {task: task_items(task, n=design["items"]) for task in tasks}
    total = 0
    for stage in ("pretrain", "tune"):
        done = [s for s in steps if s["kind"] == "evaluate" and s["label"].endswith(stage)]
        inputs = done[0]["inputs"]
        tokenizer = load_tokenizer(folder / "store" / "tokenizer" / inputs["tokenizer"])
        model = Counting.load(folder / "store" / "train" / inputs["checkpoint"], tokenizer)
        for _, make in Evaluation(model).parts(items, ["off"]):
            make()
        total += len(done) * model.tokens  # type: ignore[attr-defined]
    return total


def script_parts(out: Path, seconds: float) -> tuple[dict[str, float], float]:
    """Seconds of the script by part, with pre-training done once for all tunings; and what doing it for each
    one took beside that."""
    first, *runs = [json.loads(line) for line in out.read_text().splitlines()]
    parts = {"data": first["data"], "train": 0.0, "evaluate": 0.0}
    seen: set[tuple[str, int]] = set()
    again = 0.0
    for run in runs:
        for stage, spent in run["seconds"].items():
            if stage == "pretrain" and (run["pretrain"], run["seed"]) in seen:
                again += sum(spent.values())
                continue
            for part, value in spent.items():
                parts[part] += value
        seen.add((run["pretrain"], run["seed"]))
    parts["other"] = seconds - again - sum(parts.values())
    return parts, again


def causes(by_hand: Row, again: float, ours: Row) -> dict[str, float]:
    """Seconds of wall time that each difference saves; together they are the whole difference."""
    names = {
        "training, both cores": "train",
        "mixing and packing": "data",
        "evaluation": "evaluate",
        "start-up, analysis, report, waiting": "other",
    }
    return {"sharing": again} | {cause: by_hand[part] - ours[part] for cause, part in names.items()}


def measure(asked: argparse.Namespace, place: Path) -> Row:
    design = design_of(asked, write_documents(place, asked.documents))
    (place / "design.json").write_text(json.dumps(design))
    study, out = place / "study.yaml", place / "study"
    study.write_text(yaml.safe_dump(study_of(design), sort_keys=False))
    cache = {"XDG_CACHE_HOME": str(place / "cache")} if asked.cold else {}
    seconds = timed([sys.executable, "-m", "codestage.cli", "run", str(study)], cache, place / "run.log")
    steps = steps_of(out)
    train, forward = speeds(asked.steps)
    kinds, cores = by_kind(steps), len(os.sched_getaffinity(0))
    ours = {name: kinds.get(name, 0.0) / cores for name in ("train", "evaluate")}
    data = ("documents", "tokenizer", "prepare", "items")
    ours["data"] = sum(kinds.get(kind, 0.0) for kind in data) / cores
    ours["other"] = seconds - sum(ours.values())
    unique = asked.seeds * sum(
        design["tokens"][stage] * number
        for stage, number in (("pretrain", len(PRETRAIN)), ("tune", len(PRETRAIN) * len(TUNE)))
    )
    looked = looked_at(out, steps, design)
    bound = unique / train + looked / forward
    figures: Row = {
        "codestage_seconds": seconds,
        "codestage_parts": ours,
        "bound_seconds": bound,
        "times_the_bound": seconds / bound,
        "tokens_trained_once": unique,
        "tokens_looked_at": looked,
        "bare_training_tokens_per_second": train,
        "forward_tokens_per_second": forward,
        "cold": asked.cold,
    }
    if asked.only:
        return figures
    peer = Path(__file__).parent / "peer" / "by_hand.py"
    environment = {
        "HF_DATASETS_CACHE": str(place / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    lines = place / "by_hand.jsonl"
    script = timed(
        [sys.executable, str(peer), str(place / "design.json"), str(lines)],
        environment,
        place / "by_hand.log",
    )
    parts, again = script_parts(lines, script)
    return figures | {
        "script_seconds": script,
        "times_as_fast": script / seconds,
        "script_sharing_by_hand_seconds": script - again,
        "times_as_fast_as_that": (script - again) / seconds,
        "script_parts": parts,
        "seconds_saved": causes(parts, again, ours),
    }


def show(figures: Row) -> None:
    table = Table("", "seconds", "times codestage")
    ours = figures["codestage_seconds"]
    rows = {
        "script": "script_seconds",
        "script that shares pre-training by hand": "script_sharing_by_hand_seconds",
        "codestage run": "codestage_seconds",
        "bound": "bound_seconds",
    }
    for label, key in rows.items():
        if key in figures:
            table.add_row(label, f"{figures[key]:,.0f}", f"{figures[key] / ours:.2f}")
    console = Console()
    console.print(table)
    for cause, saved in figures.get("seconds_saved", {}).items():
        console.print(f"{cause}: {saved:,.0f} s saved")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrain", default="512k", help="tokens")
    parser.add_argument("--tune", default="128k", help="tokens")
    parser.add_argument("--items", type=int, default=60, help="a task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--documents", type=float, default=1.0, help="times as many")
    parser.add_argument("--steps", type=int, default=40, help="of the bare loops")
    parser.add_argument(
        "--cold", action="store_true", help="codestage has no compiled graphs of earlier runs"
    )
    parser.add_argument(
        "--only", action="store_true", help="codestage and the bound, without the script"
    )
    parser.add_argument("--keep", type=Path, help="folder to work in, kept")
    parser.add_argument("--bare", type=int, metavar="CORE", help="only the speeds of one core")
    asked = parser.parse_args()
    if asked.bare is not None:
        print(json.dumps(bare_speed(asked.bare, asked.steps)))
        return
    place = asked.keep or Path(tempfile.mkdtemp())
    place.mkdir(parents=True, exist_ok=True)
    try:
        figures = measure(asked, place.resolve())
    finally:
        if not asked.keep:
            shutil.rmtree(place)
    show(figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
