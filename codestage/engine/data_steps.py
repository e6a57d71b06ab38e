"""The steps before training: evaluation items, documents, tokenizer, prepared rows."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codestage.data.classify import classifier
from codestage.data.clean import Ledger, clean
from codestage.data.decontaminate import Index, Overlap, decontaminate
from codestage.data.disk import file_digest
from codestage.data.duplicates import near_duplicates
from codestage.data.files import find
from codestage.data.instruct import PLAIN, Chat
from codestage.data.shards import Shard, prepare_documents, prepare_examples
from codestage.data.shuffle import from_row, shuffled
from codestage.data.sources import Example, Item, read_source, source_files
from codestage.data.tokenizer import (
    Marks,
    existing_tokenizer,
    load_marks,
    load_tokenizer,
    marks_of,
    save_tokenizer,
    tokenizer_files,
    train_tokenizer,
)
from codestage.engine.store import Step, Store
from codestage.errors import UserError
from codestage.evaluate.tasks import Task, load_tasks, task_items
from codestage.study.expand import expand
from codestage.study.load import line_of
from codestage.study.models import ModelShape, shape
from codestage.study.schema import SourceSpec, Study, TokenizerSpec

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


@dataclass(frozen=True)
class DataSteps:
    """The data steps of a study, by what they make."""

    items: Step
    documents: dict[str, Step]
    tokenizer: Step
    prepared: dict[tuple[str, int], Step]
    """(source, seq_len) -> step."""

    def all(self) -> list[Step]:
        return [self.items, *self.documents.values(), self.tokenizer, *self.prepared.values()]


def data_steps(study: Study, study_path: Path) -> DataSteps:
    """Steps for every source that some arm uses."""
    tasks = load_tasks(study.evaluate.suites)
    splits = {name: _split(path, study_path) for name, path in study.evaluate.training_splits.items()}
    items = Step(
        "items",
        "evaluation items",
        {"tasks": [[t.name, t.version] for t in tasks], "n": study.evaluate.items}
        | ({"training_splits": {n: files for n, (_, files) in splits.items()}} if splits else {}),
        payload=({n: spec for n, (spec, _) in splits.items()}, str(study_path)),
    )
    needs = _needs(study)
    documents = {name: _documents_step(study.sources[name], name, study_path, items) for name in needs}
    tokenizer = _tokenizer_step(study, study_path, documents)
    prepared = {
        (name, length): Step(
            "prepare",
            f"{name}, rows of {length}",
            {"source": name, "seq_len": length, **_form(study, name)},
            {"documents": documents[name].hash, "tokenizer": tokenizer.hash},
        )
        for name, lengths in needs.items()
        for length in sorted(lengths)
    }
    return DataSteps(items, documents, tokenizer, prepared)


def _tokenizer_step(study: Study, path: Path, documents: Mapping[str, Step]) -> Step:
    """Training a tokenizer on the documents, or taking one that exists."""
    import tokenizers

    spec = study.tokenizer
    library = ".".join(tokenizers.__version__.split(".")[:2])
    if spec.train:
        return Step(
            "tokenizer",
            f"tokenizer, {spec.vocab_size} tokens",
            {"vocab_size": spec.vocab_size, "library": library},
            {name: step.hash for name, step in documents.items()},
        )
    files = {f.name: file_digest(f) for f in tokenizer_files(spec, path.parent)}
    identity = {"hub": spec.hub, "files": files, "library": library}
    return Step("tokenizer", "tokenizer", identity, payload=(spec, str(path)))


def _form(study: Study, source: str) -> dict[str, Any]:
    """How a source's rows are written."""
    form = study.sources[source].format
    chat = {"chat_template": True} if study.tokenizer.chat_template and form == "instruct" else {}
    return {"format": form, **chat}


def model_shape(study: Study, study_path: Path) -> ModelShape:
    """The shape of the study's model with its tokenizer's vocabulary.

    Raises:
        UserError: a tokenizer that is to exist cannot be read.
    """
    spec = study.tokenizer
    if spec.vocab_size is not None:
        return shape(study.model, spec.vocab_size)
    size, marks = _existing(spec, study_path)
    return shape(study.model, size, (marks.begin, marks.end, marks.pad))


@cache
def _existing(spec: TokenizerSpec, study_path: Path) -> tuple[int, Marks]:
    try:
        found = existing_tokenizer(spec, study_path.parent)
    except UserError as error:
        raise UserError(f"{study_path}:{line_of(study_path, ('tokenizer',))}: {error}") from None
    return len(found), marks_of(found)


def _needs(study: Study) -> dict[str, set[int]]:
    """Sources that some arm draws from, with the row lengths they are needed in, in file order."""
    needs: dict[str, set[int]] = {name: set() for name in study.sources}
    for arm in expand(study):
        for stage in arm.stages:
            for phase in stage.phases:
                for name, tokens in phase.by_source.items():
                    if tokens:
                        needs[name].add(stage.seq_len)
    return {name: lengths for name, lengths in needs.items() if lengths}


def _documents_step(spec: SourceSpec, name: str, study_path: Path, items: Step) -> Step:
    identity: dict[str, Any] = {"domain": spec.domain, "format": spec.format}
    for rule in ("clean", "transform", "text_field", "bad_rows", "tokenizer", "license", "language"):
        if (value := getattr(spec, rule)) != type(spec).model_fields[rule].default:
            identity[rule] = value
    if spec.procedural:
        identity["procedural"] = spec.procedural
    elif spec.stdlib:
        import platform

        identity["stdlib"] = platform.python_version()
    elif spec.reasoning_gym:
        identity["reasoning_gym"] = spec.reasoning_gym
        with suppress(metadata.PackageNotFoundError):  # reading it will say that it is missing
            identity["version"] = metadata.version("reasoning-gym")
    else:
        try:
            if spec.hub:
                identity["hub"] = spec.hub
                local = study_path.parent / spec.hub.id
                files = find(spec.hub.id, study_path.parent) if local.exists() else []
            else:
                files = source_files(spec, study_path.parent)
            identity["files"] = [f.identity() for f in files]
        except UserError as error:
            raise UserError(f"{_place(study_path, name)}: source {name!r}: {error}") from None
    return Step(
        "documents",
        f"documents of {name}",
        identity,
        {"items": items.hash},
        payload=(spec, str(study_path), name),
    )


def _place(study_path: Path, source: str) -> str:
    return f"{study_path}:{line_of(study_path, ('sources', source))}"


def _split(path: str, study_path: Path) -> tuple[SourceSpec, list[str]]:
    """A task's training split as a source, and the identity of its files."""
    spec = SourceSpec(domain="training", format="instruct", path=path)
    try:
        return spec, [f.identity() for f in source_files(spec, study_path.parent)]
    except UserError as error:
        line = line_of(study_path, ("evaluate", "training_splits"))
        raise UserError(f"{study_path}:{line}: {error}") from None


def make_items(step: Step, store: Store, out: Path, tasks: list[Task]) -> None:
    """Freeze the evaluation items: `items.json`, task -> list of items; and what the tasks' training
    splits ask: `training.json`, task -> list of prompts.
    """
    frozen = {
        task.name: [asdict(i) for i in task_items(task, seed=0, n=step.config["n"])] for task in tasks
    }
    (out / "items.json").write_text(json.dumps(frozen, indent=0, ensure_ascii=False))
    splits, path = step.payload
    asked = {
        name: [e.prompt for e in read_source(spec, Path(path).parent) if isinstance(e, Example)]
        for name, spec in splits.items()
    }
    (out / "training.json").write_text(json.dumps(asked, ensure_ascii=False))


def make_documents(step: Step, store: Store, out: Path) -> None:
    """Read and clean a source, take out what holds an evaluation item, and write the rest, shuffled.

    One document at a time: memory does not grow with the source. `ledger.json` counts what was removed;
    `overlaps.jsonl` lists each document that held an evaluation item, with the items.
    """
    spec, path, name = step.payload
    frozen = store.read("items", step.inputs["items"])
    items = json.loads((frozen / "items.json").read_text())
    index = Index({i["id"]: i["instruction"] for task in items.values() for i in task})
    ledger = Ledger()
    work = out.parent  # for what is not kept
    with (out / "overlaps.jsonl").open("w", encoding="utf-8") as overlaps:

        def overlapping(found: Overlap) -> None:
            overlaps.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")
            ledger.overlap(found)

        try:
            found = read_source(spec, Path(path).parent, _bad_rows(spec, ledger))
            clear = decontaminate(clean(found, spec, ledger), index, overlapping)
            exact = spec.clean is not None and spec.clean.exact_duplicates
            told = _duplicates(ledger) if exact else None
            documents = shuffled(clear, "documents", work, told)
            if spec.clean is not None and spec.clean.near_duplicates:
                documents = _without_near_duplicates(documents, spec.clean.near_duplicates, work, ledger)
            kind = classifier(spec.clean.classifier if spec.clean else "rule")
            seen = TrainingSplits(frozen).seen(documents, ledger)
            _write_documents(
                seen, out / "documents.parquet", lambda item: ledger.keep(item, kind(item.content))
            )
        except UserError as error:
            raise UserError(f"{_place(Path(path), name)}: source {name!r}: {error}") from None
    if not ledger.kept:
        raise UserError(f"{_place(Path(path), name)}: source {name!r} {_why_empty(ledger)}")
    (out / "ledger.json").write_text(json.dumps(asdict(ledger), indent=1))


class TrainingSplits:
    """The training splits of the study's tasks: their files, and the skills of procedural tasks."""

    def __init__(self, items: Path) -> None:
        asked = json.loads((items / "training.json").read_text())
        self._task = {
            f"{task} {i}": task for task, prompts in asked.items() for i in range(len(prompts))
        }
        self._index = Index(
            {f"{t} {i}": p for t, prompts in asked.items() for i, p in enumerate(prompts)}
        )
        tasks = json.loads((items / "step.json").read_text())["config"]["tasks"]
        skills = [(t.procedural[0], t.name) for t in load_tasks([name for name, _ in tasks])]
        self._skills = dict(skills)

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
    return lambda message: ledger.remove("bad row", message.partition(": ")[0], message)


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
            for row in batch.to_pylist():
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


def make_prepared(step: Step, store: Store, out: Path) -> None:
    """Tokenise a source into rows."""
    documents: Any = read_documents(store.read("documents", step.inputs["documents"]))
    folder = store.read("tokenizer", step.inputs["tokenizer"])
    tokenizer, marks = load_tokenizer(folder), load_marks(folder)
    length = step.config["seq_len"]
    try:
        if step.config["format"] == "instruct":
            template = Chat(folder) if step.config.get("chat_template") else PLAIN
            prepare_examples(
                documents, tokenizer, seq_len=length, out=out, marks=marks, template=template
            )
        else:
            prepare_documents(documents, tokenizer, seq_len=length, out=out, marks=marks)
    except UserError as error:
        raise UserError(f"source {step.config['source']!r}: {error}") from None


def shards(data: DataSteps, store: Store, seq_len: int) -> dict[str, Shard]:
    """Prepared sources in rows of `seq_len`, memory-mapped."""
    return {
        name: Shard(store.read("prepare", step.hash))
        for (name, length), step in data.prepared.items()
        if length == seq_len
    }
