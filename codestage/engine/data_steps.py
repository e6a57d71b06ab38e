"""The steps before training: evaluation items, documents, tokenizer, prepared rows."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codestage.data.decontaminate import Index, decontaminate
from codestage.data.shards import Shard, prepare_documents, prepare_examples, shuffled
from codestage.data.sources import Document, Example, read_source, source_files
from codestage.data.tokenizer import load_tokenizer, train_tokenizer
from codestage.engine.store import Step, Store, file_digest
from codestage.errors import UserError
from codestage.evaluate.tasks import Task, load_tasks, task_items
from codestage.study.expand import expand
from codestage.study.load import line_of
from codestage.study.schema import SourceSpec, Study

LIBRARIES = ("tokenizers",)


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
    items = Step(
        "items",
        "evaluation items",
        {"tasks": [[t.name, t.version] for t in tasks], "n": study.evaluate.items},
    )
    needs = _needs(study)
    documents = {name: _documents_step(study.sources[name], name, study_path, items) for name in needs}
    import tokenizers

    tokenizer = Step(
        "tokenizer",
        f"tokenizer, {study.tokenizer.vocab_size} tokens",
        {
            "vocab_size": study.tokenizer.vocab_size,
            "library": ".".join(tokenizers.__version__.split(".")[:2]),
        },
        {name: step.hash for name, step in documents.items()},
    )
    prepared = {
        (name, length): Step(
            "prepare",
            f"{name}, rows of {length}",
            {"source": name, "seq_len": length, "format": study.sources[name].format},
            {"documents": documents[name].hash, "tokenizer": tokenizer.hash},
        )
        for name, lengths in needs.items()
        for length in sorted(lengths)
    }
    return DataSteps(items, documents, tokenizer, prepared)


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
    if spec.procedural:
        identity["procedural"] = spec.procedural
    elif spec.stdlib:
        import platform

        identity["stdlib"] = platform.python_version()
    else:
        try:
            files = source_files(spec, study_path.parent)
            identity["files"] = [file_digest(f) for f in files]
        except UserError as error:
            raise UserError(f"{_place(study_path, name)}: source {name!r}: {error}") from None
        except OSError as error:
            where = _place(study_path, name)
            raise UserError(f"{where}: source {name!r}: {error}; check the file") from None
    return Step(
        "documents",
        f"documents of {name}",
        identity,
        {"items": items.hash},
        payload=(spec, str(study_path), name),
    )


def _place(study_path: Path, source: str) -> str:
    return f"{study_path}:{line_of(study_path, ('sources', source))}"


def make_items(step: Step, store: Store, out: Path, tasks: list[Task]) -> None:
    """Freeze the evaluation items: `items.json`, task -> list of items."""
    frozen = {
        task.name: [asdict(i) for i in task_items(task, seed=0, n=step.config["n"])] for task in tasks
    }
    (out / "items.json").write_text(json.dumps(frozen, indent=0, ensure_ascii=False))


def make_documents(step: Step, store: Store, out: Path) -> None:
    """Read a source, take out what holds an evaluation item, and write the rest, shuffled."""
    spec, path, name = step.payload
    try:
        found = read_source(spec, Path(path).parent)
    except UserError as error:
        raise UserError(f"{_place(Path(path), name)}: source {name!r}: {error}") from None
    items = json.loads((store.read("items", step.inputs["items"]) / "items.json").read_text())
    index = Index({i["id"]: i["instruction"] for task in items.values() for i in task})
    kept, findings = decontaminate(found, index)
    if not kept:
        raise UserError(
            f"{_place(Path(path), name)}: source {name!r}: every document holds an evaluation item"
        )
    rows = [asdict(d) for d in shuffled(kept, "documents")]
    pq.write_table(pa.Table.from_pylist(rows), out / "documents.parquet")
    ledger = {
        "documents": findings.documents,
        "removed": len(findings.removed),
        "examples": [asdict(o) for o in findings.removed[:100]],
    }
    (out / "ledger.json").write_text(json.dumps(ledger, indent=1))


def read_documents(folder: Path) -> list[Document] | list[Example]:
    rows = pq.read_table(folder / "documents.parquet").to_pylist()
    if rows and "prompt" in rows[0]:
        return [Example(**row) for row in rows]
    return [Document(**row) for row in rows]


def make_tokenizer(step: Step, store: Store, out: Path) -> None:
    """Train the study's tokenizer on all its sources."""
    texts = {
        name: [d.content for d in read_documents(store.read("documents", hash_))]
        for name, hash_ in step.inputs.items()
    }
    train_tokenizer(texts, vocab_size=step.config["vocab_size"], out=out)


def make_prepared(step: Step, store: Store, out: Path) -> None:
    """Tokenise a source into rows."""
    documents = read_documents(store.read("documents", step.inputs["documents"]))
    tokenizer = load_tokenizer(store.read("tokenizer", step.inputs["tokenizer"]))
    make: Any = prepare_examples if step.config["format"] == "instruct" else prepare_documents
    try:
        make(documents, tokenizer, seq_len=step.config["seq_len"], out=out)
    except UserError as error:
        raise UserError(f"source {step.config['source']!r}: {error}") from None


def shards(data: DataSteps, store: Store, seq_len: int) -> dict[str, Shard]:
    """Prepared sources in rows of `seq_len`, memory-mapped."""
    return {
        name: Shard(store.read("prepare", step.hash))
        for (name, length), step in data.prepared.items()
        if length == seq_len
    }
