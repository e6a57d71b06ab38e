"""A stage × dose study as a script does it: Trainer for every arm, datasets for the mixtures, lm-evaluation-harness
for every checkpoint. Nothing of codestage runs here but the generated tasks' own documents.

    python benchmarks/peer/by_hand.py DESIGN.json OUT

DESIGN.json holds the arms, tokens and tasks (`benchmarks/time_to_answer.py` writes it); OUT gets a line of JSON for
each run: its scores, and the seconds of its parts.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets, interleave_datasets, load_dataset
from datasets.utils.logging import disable_progress_bar
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

Row = dict[str, Any]


def train_tokenizer(design: Row, folder: Path) -> PreTrainedTokenizerFast:
    """One for all arms, from the text of all sources."""
    bpe = ByteLevelBPETokenizer()
    texts = (text for file in design["sources"].values() for text in texts_of(file))
    bpe.train_from_iterator(
        texts,
        vocab_size=design["vocab_size"],
        special_tokens=["<s>", "</s>", "<pad>"],
        show_progress=False,
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def texts_of(file: str) -> Iterator[str]:
    for row in load_dataset("json", data_files=file, split="train"):
        yield row["text"] if "text" in row else f"{row['prompt']} {row['response']}"


def tokenised(file: str, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """Documents as ids; of instructions the loss is on the response. `datasets` caches this between arms."""

    def encode(row: Row) -> Row:
        if "text" in row:
            ids = [tokenizer.bos_token_id, *tokenizer(row["text"])["input_ids"]]
            return {"input_ids": ids, "labels": ids}
        asked = tokenizer(f"Question: {row['prompt']}\nAnswer:")["input_ids"]
        said = [*tokenizer(f" {row['response']}")["input_ids"], tokenizer.eos_token_id]
        ids = [tokenizer.bos_token_id, *asked, *said]
        return {"input_ids": ids, "labels": [-100] * (len(asked) + 1) + said}

    rows = load_dataset("json", data_files=file, split="train")
    return rows.map(encode, remove_columns=rows.column_names)


def packed(
    phases: list[dict[str, float]], sources: dict[str, Dataset], seq_len: int, rows: int, seed: int
) -> Dataset:
    """`rows` rows: every phase interleaved at its shares, its documents put behind one another and cut."""

    def cut(batch: Row) -> Row:
        whole = {key: [x for row in rows_ for x in row] for key, rows_ in batch.items()}
        stop = len(whole["input_ids"]) // seq_len * seq_len
        return {k: [v[i : i + seq_len] for i in range(0, stop, seq_len)] for k, v in whole.items()}

    parts = []
    for number, phase in enumerate(phases):
        total = sum(phase.values())
        mixed = interleave_datasets(
            [sources[name].shuffle(seed=seed + number) for name in phase],
            probabilities=[share / total for share in phase.values()],
            seed=seed,
            stopping_strategy="all_exhausted",
        )
        part = mixed.map(cut, batched=True)
        want = rows // len(phases)
        parts.append(part.select(range(want)))
    return concatenate_datasets(parts)


def train(model: LlamaForCausalLM, data: Dataset, design: Row, seed: int, folder: Path) -> None:
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=design["batch_tokens"] // design["seq_len"],
        num_train_epochs=1,
        train_sampling_strategy="sequential",  # the schedule is in the order of the rows
        learning_rate=design["lr"],
        lr_scheduler_type="cosine",
        warmup_steps=10,
        seed=seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(model, arguments, train_dataset=data).train()
    model.save_pretrained(folder)


def scores(folder: Path, design: Row, manager: TaskManager) -> dict[str, float]:
    result = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(folder)},
        tasks=design["tasks"],
        limit=design["items"],
        batch_size=32,
        device="cpu",
        task_manager=manager,
    )
    return {
        task: next(v for k, v in found.items() if k in ("acc,none", "exact_match,none"))
        for task, found in result["results"].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("design", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    design = json.loads(asked.design.read_text())
    disable_progress_bar()
    began = time.perf_counter()
    work = asked.out.parent / "by_hand"
    tokenizer = train_tokenizer(design, work / "tokenizer")
    sources = {name: tokenised(file, tokenizer) for name, file in design["sources"].items()}
    manager = TaskManager(include_path=design["task_folder"])
    with asked.out.open("w") as out:
        out.write(json.dumps({"data": time.perf_counter() - began}) + "\n")
        for seed in range(design["seeds"]):
            for pretrain, shares in design["pretrain"].items():
                for tune, phases in design["tune"].items():
                    folder = work / f"{pretrain}-{tune}-{seed}"
                    row = one_run(design, shares, phases, sources, tokenizer, manager, seed, folder)
                    out.write(
                        json.dumps({"pretrain": pretrain, "tune": tune, "seed": seed, **row}) + "\n"
                    )
                    out.flush()


def one_run(
    design: Row,
    shares: dict[str, float],
    phases: list[dict[str, float]],
    sources: dict[str, Dataset],
    tokenizer: PreTrainedTokenizerFast,
    manager: TaskManager,
    seed: int,
    folder: Path,
) -> Row:
    """Pre-train, evaluate, tune, evaluate."""
    set_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**design["model"], vocab_size=len(tokenizer)))
    seconds, found = {}, {}
    for stage, mixture in (("pretrain", [shares]), ("tune", phases)):
        marks = [time.perf_counter()]
        rows = design["tokens"][stage] // design["seq_len"]
        data = packed(mixture, sources, design["seq_len"], rows, seed)
        marks.append(time.perf_counter())
        train(model, data, design, seed, folder / stage)
        tokenizer.save_pretrained(folder / stage)
        marks.append(time.perf_counter())
        found[stage] = scores(folder / stage, design, manager)
        marks.append(time.perf_counter())
        parts = [b - a for a, b in pairwise(marks)]
        seconds[stage] = dict(zip(("data", "train", "evaluate"), parts, strict=True))
    return {"seconds": seconds, "scores": found}


if __name__ == "__main__":
    main()
