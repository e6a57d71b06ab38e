"""A trained run as a Hugging Face folder, with a card that says how it came to be."""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codestage.engine.shared import open_store
from codestage.engine.store import Store, content, disk_message, readable
from codestage.errors import RunError, UserError

MODEL_FILES = ("model.safetensors", "config.json")


def export(folder: Path, *, run: str, stage: str | None, to: Path) -> Path:
    """Write the model of `run` after `stage` (the last one if None) and its tokenizer into `to`.

    Raises:
        UserError: no such study, run or stage; `to` exists already.
        RunError: the folder cannot be written.
    """
    study, entry = _find(folder, run)
    names = [s["name"] for s in entry["stages"]]
    if stage is not None and stage not in names:
        raise UserError(f"{run}: no stage {stage!r}; its stages are {', '.join(names)}")
    last = names.index(stage) if stage else len(names) - 1
    if to.exists():
        raise UserError(f"{to}: exists already; name another folder")
    store = open_store(folder)
    checkpoint = entry["stages"][last]["steps"][-1]
    model = [store.file("train", checkpoint, name) for name in MODEL_FILES]
    tokenizer, scores = (
        _tokenizer(store, checkpoint, study.get("tokenizer")),
        _scores(folder, run, names[last]),
    )
    try:
        to.mkdir(parents=True)
        for path in model:
            shutil.copy2(path, to / path.name)
        carry_code(to)
        for path in tokenizer.iterdir():
            if path.name != "step.json":
                shutil.copy2(path, to / path.name)
        (to / "README.md").write_text(card(study, entry, last, scores), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(to, ignore_errors=True)
        raise RunError(disk_message(to, error)) from None
    return to


def carry_code(to: Path) -> None:
    """Put PanGu's code beside its weights, since Transformers has none: it loads with trust_remote_code."""
    config = json.loads((to / "config.json").read_text())
    if config["model_type"] == "pangu_alpha":
        from codestage import pangu

        shutil.copy2(pangu.__file__, to / "pangu.py")
        (to / "config.json").write_text(json.dumps(config | {"auto_map": pangu.AUTO_MAP}, indent=2))


def _find(folder: Path, run: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the records say of the study, and of the run."""
    try:
        study = json.loads((folder / "results" / "study.json").read_text())
        runs = json.loads((folder / "results" / "runs.json").read_text())
    except (OSError, ValueError):
        raise UserError(f"{folder}: no results yet; `codestage run STUDY` makes them") from None
    for entry in runs:
        if entry["run"] == run:
            return study, entry
    raise UserError(f"no run {run!r}; the runs are {', '.join(e['run'] for e in runs)}")


def _tokenizer(store: Store, checkpoint: str, asked: str | None) -> Path:
    """The tokenizer with which the study asked its models, or else that of the rows the checkpoint was trained on."""
    if asked:
        with suppress(RunError):  # let go since
            return store.read("tokenizer", asked)
    record = json.loads(store.file("train", checkpoint, "step.json").read_text())
    rows, prepared = set(record.get("holds", {}).values()), set(record["inputs"].values())
    finished = [record for record in store.finished("prepare") if readable(record)]
    made = [r for r in finished if r["hash"] in prepared] or [r for r in finished if content(r) in rows]
    if not made:
        raise RunError(
            f"{store.root}: what {checkpoint[:8]} was trained on is not there; `codestage run` on the study "
            "prepares it again"
        )
    last = max(made, key=lambda record: float(record["finished"]))
    return store.read("tokenizer", last["inputs"]["tokenizer"])


def _scores(folder: Path, run: str, stage: str) -> list[tuple[str, str, float, int]]:
    """(task, mode, accuracy, items) of the run after the stage."""
    filters = [("run", "=", run), ("stage", "=", stage), ("metric", "=", "acc")]
    path = folder / "results" / "items.parquet"
    try:
        table = pq.read_table(path, columns=["task", "cot", "value"], filters=filters)
    except (OSError, pa.ArrowException) as error:
        told = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: cannot be read ({told}); `codestage run` on the study writes it again"
        ) from None
    means = table.group_by(["task", "cot"]).aggregate([("value", "mean"), ("value", "count")])
    return [
        (row["task"], row["cot"], row["value_mean"], row["value_count"])
        for row in sorted(means.to_pylist(), key=lambda r: (r["cot"], r["task"]))
    ]


def card(
    study: Mapping[str, Any],
    entry: Mapping[str, Any],
    last: int,
    scores: list[tuple[str, str, float, int]],
) -> str:
    """The model card: stages with what they really drew, seed, versions, scores."""
    model, versions = study["model"], study.get("versions") or {}
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [codestage]",
        "---",
        "",
        f"# {entry['run']} of the study {study['name']}",
        "",
        f"A {model['family']} model of {model['parameters']:,} parameters, {_origin(model)} with "
        f"seed {entry['seed']} by codestage {versions.get('codestage', '')} for a comparison of training data. It is "
        "one arm of that study, and no more than that: small, and meant for no other use.",
        "",
        "## Training",
        "",
        "| stage | option | source | tokens drawn | passes |",
        "|---|---|---|---:|---:|",
    ]
    for stage in entry["stages"][: last + 1]:
        for source, tokens in stage["tokens_realised"].items():
            passes = stage["epochs"].get(source, 0.0)
            lines.append(
                f"| {stage['name']} | {stage['option']} | {source} | {tokens:,} | {passes:.2f} |"
            )
    lines += [
        "",
        "## Scores",
        "",
        "| task | chain of thought | accuracy | items |",
        "|---|---|---:|---:|",
    ]
    lines += [f"| {task} | {cot} | {100 * mean:.1f} % | {items} |" for task, cot, mean, items in scores]
    lines += [
        "",
        "Prompts are written by the tokenizer's chat template."
        if study.get("chat_template")
        else "Prompts end in `Answer:` after `Question: …`, or in `Reasoning:` where the model is to write its own.",
        "",
        "## Versions",
        "",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        "",
    ]
    return "\n".join(lines)


def _origin(model: Mapping[str, Any]) -> str:
    """Where its weights began."""
    begun = model.get("pretrained")
    return f"trained on from {begun}" if begun else "trained from scratch"
