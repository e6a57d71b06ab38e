"""How the steps before training are done: items frozen, documents cleaned, rows written.

What is heavy (reading, cleaning, searching, tokenising) goes through a `Spread`, which does it here or on
the machines of a Ray cluster; what has to see everything in order (shuffling, duplicates, packing) is done
here. The results are the same to the byte.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from codestage.data.classify import classifier
from codestage.data.clean import Ledger, clean
from codestage.data.decontaminate import Index, decontaminate
from codestage.data.duplicates import near_duplicates
from codestage.data.encode import Encoder, ahead
from codestage.data.instruct import PLAIN, Chat
from codestage.data.shards import write_documents, write_examples
from codestage.data.shuffle import from_row, shuffled
from codestage.data.sources import OR_SKIP, Example, Item, Part, read_part, read_source, source_parts
from codestage.data.tokenizer import (
    existing_tokenizer,
    load_marks,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from codestage.engine.data_steps import ItemsPayload, place
from codestage.engine.store import Step, Store
from codestage.errors import UserError
from codestage.evaluate.documents import from_json, task_items
from codestage.evaluate.items import Item as Question
from codestage.evaluate.tasks import Task, load_tasks, tasks_of
from codestage.study.load import line_of
from codestage.study.schema import SourceSpec

P = TypeVar("P")
R = TypeVar("R")
_COMMON = [("meta", pa.string())]
DOCUMENT_SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string()), *_COMMON])
EXAMPLE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("rationale", pa.string()),
        ("more", pa.list_(pa.list_(pa.string()))),
        ("system", pa.string()),
        *_COMMON,
    ]
)


class Spread(Protocol):
    """Where heavy work is done. Results come in the order of what went in."""

    def parts(self, function: Callable[[P], Iterator[R]], parts: Sequence[P]) -> Iterator[R]:
        """All that `function` yields for each part."""

    def documents(self, function: Callable[[list[Any]], R], path: Path) -> Iterator[R]:
        """`function` of chunks of the documents in a Parquet file."""


class Here:
    """In this process, on all its cores."""

    def parts(self, function: Callable[[P], Iterator[R]], parts: Sequence[P]) -> Iterator[R]:
        for part in parts:
            yield from function(part)

    def documents(self, function: Callable[[list[Any]], R], path: Path) -> Iterator[R]:
        yield from ahead(function, _read_file(path))


def make_items(step: Step, out: Path) -> None:
    """Freeze the evaluation items: `items.json`, task -> list of items; and what the tasks' training
    splits ask: `training.json`, task -> list of prompts.
    """
    asked: ItemsPayload = step.payload
    path = Path(asked.study)
    folder = path.parent / asked.data if asked.data else None
    try:
        frozen = {
            task.name: [asdict(i) for i in task_items(task, n=step.config["n"], data=folder)]
            for task in tasks_of(step.config["tasks"], asked.own)
        }
    except UserError as error:
        raise UserError(f"{path}:{line_of(path, ('evaluate',))}: {error}") from None
    (out / "items.json").write_text(json.dumps(frozen, indent=0, ensure_ascii=False))
    prompts = {
        name: [
            e.prompt
            for e in read_source(spec, path.parent)
            if isinstance(e, Example) and e.prompt.strip()
        ]
        for name, spec in asked.splits.items()
    }
    (out / "training.json").write_text(json.dumps(prompts, ensure_ascii=False))


def frozen_items(folder: Path, tasks: Sequence[Task]) -> dict[Task, list[Question]]:
    """The items that `make_items` froze."""
    held = json.loads((folder / "items.json").read_text())
    return {task: [from_json(row) for row in held[task.name]] for task in tasks}


def make_documents(step: Step, store: Store, out: Path, spread: Spread) -> None:
    """Read and clean a source, take out what holds an evaluation item, and write the rest, shuffled.

    One document at a time: memory does not grow with the source. `ledger.json` counts what was removed;
    `overlaps.jsonl` lists each document that held an evaluation item, with the items.
    """
    spec, path, name = step.payload
    study_path = Path(path)
    frozen = store.read("items", step.inputs["items"])
    ledger = Ledger()
    work = out.parent  # for what is not kept
    try:
        parts = source_parts(spec, study_path.parent)
        cleaned = partial(_cleaned, spec=spec, folder=study_path.parent, index=_item_index(frozen))
        found = _documents(spread.parts(cleaned, parts), ledger)
        exact = spec.clean is not None and spec.clean.exact_duplicates
        documents = shuffled(found, "documents", work, _duplicates(ledger) if exact else None)
        if spec.clean is not None and spec.clean.near_duplicates:
            documents = _without_near_duplicates(documents, spec.clean.near_duplicates, work, ledger)
        kind = classifier(spec.clean.classifier if spec.clean else "rule")
        seen = TrainingSplits(frozen).seen(documents, ledger)
        _write_documents(
            seen, out / "documents.parquet", lambda item: ledger.keep(item, kind(item.content))
        )
    except UserError as error:
        raise UserError(f"{place(study_path, name)}: source {name!r}: {error}") from None
    if not ledger.kept:
        raise UserError(f"{place(study_path, name)}: source {name!r} {_why_empty(ledger)}")
    record = asdict(ledger)
    lines = (json.dumps(overlap, ensure_ascii=False) + "\n" for overlap in record.pop("overlaps"))
    (out / "overlaps.jsonl").write_text("".join(lines), encoding="utf-8")
    (out / "ledger.json").write_text(json.dumps(record, indent=1))


def _item_index(frozen: Path) -> Index:
    items = json.loads((frozen / "items.json").read_text())
    return Index({i["id"]: i["instruction"] for task in items.values() for i in task})


def _cleaned(part: Part, *, spec: SourceSpec, folder: Path, index: Index) -> Iterator[Item | Ledger]:
    """The documents of a part that stay, and at the end what was removed."""
    ledger = Ledger()
    found = read_part(part, spec, folder, _bad_rows(spec, ledger))
    yield from decontaminate(clean(found, spec, ledger), index, ledger.overlap)
    yield ledger


def _documents(found: Iterable[Item | Ledger], ledger: Ledger) -> Iterator[Item]:
    """The documents alone; the parts' ledgers are added up."""
    for one in found:
        if isinstance(one, Ledger):
            ledger.add(one)
        else:
            yield one


class TrainingSplits:
    """The training splits of the study's tasks: their files, and the skills of procedural tasks."""

    def __init__(self, items: Path) -> None:
        asked = json.loads((items / "training.json").read_text())
        prompts = {
            f"{task} {i}": (task, text) for task, texts in asked.items() for i, text in enumerate(texts)
        }
        self._task = {name: task for name, (task, _) in prompts.items()}
        self._index = Index({name: text for name, (_, text) in prompts.items()})
        config = json.loads((items / "step.json").read_text())["config"]
        named = [name for name, _ in config["tasks"] if name not in config.get("own", ())]
        made = [t for t in load_tasks(named) if "procedural" in t.data]
        self._skills = {t.data["procedural"]["skill"]: t.name for t in made}

    def seen(self, documents: Iterable[Item], ledger: Ledger) -> Iterator[Item]:
        """All documents; the ledger counts those that hold an example of a training split."""
        for document in documents:
            exact, nearly = self._index.find(document.content.replace("\x1f", " "))
            tasks = {self._task[name] for name in (*exact, *nearly)}
            if document.meta.get("skill") in self._skills:
                tasks.add(self._skills[document.meta["skill"]])
            for task in sorted(tasks):
                ledger.training[task] = ledger.training.get(task, 0) + 1
            yield document


def _bad_rows(spec: SourceSpec, ledger: Ledger) -> Callable[[str], None] | None:
    if spec.bad_rows == "error":
        return None
    return lambda message: ledger.remove(
        "bad row", message.partition(": ")[0], message.removesuffix(OR_SKIP)
    )


def _duplicates(ledger: Ledger) -> Callable[[Item, Item], None]:
    return lambda item, kept: ledger.remove("exact duplicate", item.id, f"says what {kept.id} says")


def _why_empty(ledger: Ledger) -> str:
    if not ledger.read:
        return "holds no documents; check the path or drop it"
    told = ", ".join(f"{rule} {count:,}" for rule, count in ledger.removed.items())
    return f"has {ledger.read:,} documents, and none is left after cleaning (removed: {told})"


def _without_near_duplicates(
    documents: Iterable[Item], threshold: float, work: Path, ledger: Ledger
) -> Iterator[Item]:
    """Two passes over a file: which documents are like an earlier one, then the others."""
    path = work / "before-duplicates.parquet"
    _write_documents(documents, path)
    like = near_duplicates((d.content for d in _read_file(path)), threshold, work)
    firsts = set(like[like >= 0].tolist())
    names = {i: d.id for i, d in enumerate(_read_file(path)) if i in firsts}
    for i, document in enumerate(_read_file(path)):
        if like[i] < 0:
            yield document
        else:
            ledger.remove("near duplicate", document.id, f"is like {names[int(like[i])]}")
    path.unlink()


def _write_documents(
    documents: Iterable[Item], path: Path, keep: Callable[[Item], None] = lambda item: None
) -> None:
    """Write a Parquet file a thousand documents at a time; `keep` is told of each."""
    stream, writer = iter(documents), None
    while chunk := list(islice(stream, 1000)):
        for document in chunk:
            keep(document)
        rows = [asdict(d) | {"meta": json.dumps(dict(d.meta), sort_keys=True)} for d in chunk]
        schema = EXAMPLE_SCHEMA if "prompt" in rows[0] else DOCUMENT_SCHEMA
        writer = writer or pq.ParquetWriter(path, schema)
        writer.write_table(pa.Table.from_pylist(rows, schema))
    if writer:
        writer.close()


def read_documents(folder: Path) -> Iterator[Item]:
    """The documents of a finished step, one at a time, in their order."""
    yield from _read_file(folder / "documents.parquet")


def _read_file(path: Path) -> Iterator[Item]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1000):
            yield from items_of(batch)


def items_of(table: pa.Table | pa.RecordBatch) -> Iterator[Item]:
    """The documents of rows as `_write_documents` wrote them."""
    for row in table.to_pylist():
        yield from_row(row | {"meta": json.loads(row["meta"])})


def make_tokenizer(step: Step, store: Store, out: Path) -> None:
    """Take a tokenizer that exists, or train one on the beginnings of all sources, each as much as the
    others.
    """
    if step.payload is not None:
        spec, path = step.payload
        save_tokenizer(existing_tokenizer(spec, Path(path).parent), out)
        return
    folders = {name: store.read("documents", hash_) for name, hash_ in step.inputs.items()}
    sizes = [json.loads((f / "ledger.json").read_text())["characters"] for f in folders.values()]
    texts = {name: (d.content for d in read_documents(f)) for name, f in folders.items()}
    vocab_size = step.config["vocab_size"]
    train_tokenizer(texts, vocab_size=vocab_size, characters=min(sizes), out=out)


def make_prepared(step: Step, store: Store, out: Path, spread: Spread) -> None:
    """Tokenise a source into rows."""
    documents = store.read("documents", step.inputs["documents"]) / "documents.parquet"
    folder = store.read("tokenizer", step.inputs["tokenizer"])
    template = Chat(folder) if step.config.get("chat_template") else PLAIN
    encoder = Encoder(load_tokenizer(folder), step.config["seq_len"], load_marks(folder), template)
    try:
        if step.config["format"] == "instruct":
            write_examples(spread.documents(encoder.examples, documents), encoder, out)
        else:
            write_documents(spread.documents(encoder.documents, documents), encoder, out)
    except UserError as error:
        raise UserError(f"source {step.config['source']!r}: {error}") from None
