"""The steps before training: evaluation items, documents, tokenizer, prepared rows."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from codestage.data.disk import file_digest
from codestage.data.files import File, find
from codestage.data.languages.trees import grammar_versions
from codestage.data.place import files_of
from codestage.data.shards import Shard
from codestage.data.sources import source_files
from codestage.data.tokenizer import TOKENIZER_FILES
from codestage.engine.asked import evaluation_tasks, own_tasks
from codestage.engine.store import Step, Store
from codestage.errors import UserError
from codestage.evaluate.documents import published_files
from codestage.evaluate.tasks import Task
from codestage.study.expand import expand
from codestage.study.load import line_of
from codestage.study.schema import OwnTaskSpec, SourceSpec, Study, ValidationSpec
from codestage.study.values import Model


@dataclass(frozen=True)
class ItemsPayload:
    """Where evaluation items come from."""

    splits: Mapping[str, SourceSpec]
    """Task -> its training split."""
    study: str
    """Path of the study file."""
    data: str | None
    """Folder of the tasks' published files."""
    own: Sequence[Task]
    """Those of the study's own."""


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
    tasks, own = evaluation_tasks(study, study_path), own_tasks(study, study_path)
    splits = {name: _split(path, study_path) for name, path in study.evaluate.training_splits.items()}
    items = Step(
        "items",
        "evaluation items",
        {"tasks": [[t.name, t.version] for t in tasks], "n": study.evaluate.items}
        | ({"own": {t.name: _own(study.evaluate.tasks[t.name], t) for t in own}} if own else {})
        | ({"lm_eval": metadata.version("lm_eval")} if any(t.harness for t in tasks) else {})
        | _published(tasks, study, study_path)
        | ({"training_splits": {n: files for n, (_, files) in splits.items()}} if splits else {}),
        payload=ItemsPayload(
            {n: spec for n, (spec, _) in splits.items()}, str(study_path), study.evaluate.data, own
        ),
    )
    lengths_of = needs(study)
    if study.validation:
        check_held_out(lengths_of, study_path)
    documents = {
        name: _documents_step(study.sources[name], name, study_path, items) for name in lengths_of
    }
    tokenizer = _tokenizer_step(study, study_path, documents)
    prepared = {
        (name, length): Step(
            "prepare",
            f"{name}, rows of {length}",
            {"source": name, "seq_len": length, **_form(study, name)},
            {"documents": documents[name].hash, "tokenizer": tokenizer.hash},
        )
        for name, lengths in lengths_of.items()
        for length in sorted(lengths)
    }
    return DataSteps(items, documents, tokenizer, prepared)


def _own(spec: OwnTaskSpec, task: Task) -> dict[str, Any]:
    """What makes a task of the study's own what it is: all but the name of its file."""
    return spec.model_dump(exclude={"path"}) | {"file": file_digest(Path(task.data["own"]))}


def _published(tasks: Sequence[Task], study: Study, study_path: Path) -> dict[str, Any]:
    """What the published files of the tasks hold; of the hub's, their names are all that is known."""
    if study.evaluate.data is None:
        return {}
    folder = study_path.parent / study.evaluate.data
    files = sorted({f for task in tasks for f in published_files(task, folder)})
    return {"published": {f.relative_to(folder).as_posix(): file_digest(f) for f in files}}


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
    files = {f.name: file_digest(f) for f in files_of(spec, path.parent, TOKENIZER_FILES)}
    identity = {"hub": spec.hub, "files": files, "library": library}
    return Step("tokenizer", "tokenizer", identity, payload=(spec, str(path)))


def _form(study: Study, source: str) -> dict[str, Any]:
    """How a source's rows are written."""
    form = study.sources[source].format
    chat = {"chat_template": True} if study.tokenizer.chat_template and form == "instruct" else {}
    return {"format": form, **chat}


def needs(study: Study) -> dict[str, set[int]]:
    """Sources that some arm draws from, with the row lengths they are needed in, in file order."""
    found: dict[str, set[int]] = {name: set() for name in study.sources}
    for arm in expand(study):
        for stage in arm.stages:
            for phase in stage.phases:
                for name, tokens in phase.by_source.items():
                    if tokens:
                        found[name].add(stage.seq_len)
    return {name: lengths for name, lengths in found.items() if lengths}


def check_held_out(lengths_of: Mapping[str, set[int]], study_path: Path) -> None:
    """
    Raises:
        UserError: a source is drawn in rows of several lengths: the last rows of one hold other text than
            the last rows of another, so that what one stage holds out the other would train on.
    """
    for name, lengths in lengths_of.items():
        if len(lengths) > 1:
            told = " and ".join(f"{length:,}" for length in sorted(lengths))
            raise UserError(
                f"{study_path}:{line_of(study_path, ('validation',))}: validation: source {name!r} is drawn in rows "
                f"of {told} tokens, and what one length holds out the other would train on; give these stages one "
                "seq_len, or drop validation"
            )


PROGRAMS = ("transform", "programming_language")
ROWS = ("where", "text_field", "prompt_field", "response_field", "bad_rows", "tokenizer")
IDENTITY = ("clean", *PROGRAMS, *ROWS, "license", "language")
"""What a source says of its documents, beside where they come from; at its default it is in no hash."""


def _documents_step(spec: SourceSpec, name: str, study_path: Path, items: Step) -> Step:
    identity: dict[str, Any] = {"domain": spec.domain, "format": spec.format}
    for rule in IDENTITY:
        if (value := getattr(spec, rule)) != type(spec).model_fields[rule].default:
            identity[rule] = value
    names: dict[str, str] = {}
    if decide := _libraries(spec):
        identity["libraries"] = decide
    if spec.procedural:
        identity["procedural"] = _as_before(spec.procedural, "language")
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
                identity["hub"] = _as_before(spec.hub, "files")
                local = study_path.parent / spec.hub.id
                files = find(spec.hub.id, study_path.parent) if local.exists() else []
            else:
                files = _apart(spec, study_path)
            held = [(f.identity(), f.name) for f in files]
            identity["files"], names = [hash_ for hash_, _ in held], dict(held)
        except UserError as error:
            raise UserError(f"{place(study_path, name)}: source {name!r}: {error}") from None
    return Step(
        "documents",
        f"documents of {name}",
        identity,
        {"items": items.hash},
        payload=(spec, str(study_path), name),
        names=names,
    )


def _apart(spec: SourceSpec, study_path: Path) -> list[File]:
    """The files of a source, which must not be the study and what it writes."""
    folder = study_path.resolve().parent
    if spec.path and (held := (folder / spec.path).resolve()).is_dir() and folder.is_relative_to(held):
        raise UserError(
            f"{spec.path}: this folder holds the study file and what a run writes; put the documents into a "
            "folder of their own, or name them by a pattern such as '*.jsonl'"
        )
    return source_files(spec, study_path.parent)


def _as_before(spec: Model, *later: str) -> dict[str, Any]:
    """A part of the study, without the keys that came `later` where they stand at their default: what was
    made before them is still found.
    """
    fields = type(spec).model_fields
    told = {name: getattr(spec, name) for name in fields}
    return {n: v for n, v in told.items() if n not in later or v != fields[n].default}


def _libraries(spec: SourceSpec) -> dict[str, str]:
    """Libraries that decide which documents stay, major and minor version; those not installed are told later."""
    clean, found = spec.clean, grammar_versions(spec.programs_in) if spec.transform else {}
    if clean:
        asked = {
            "py3langid": clean.languages is not None,
            "rensa": clean.near_duplicates is not None,
            "magika": clean.classifier == "magika",
        }
        for name in (name for name, used in asked.items() if used):
            with suppress(metadata.PackageNotFoundError):
                found[name] = ".".join(metadata.version(name).split(".")[:2])
    return found


def place(study_path: Path, source: str) -> str:
    """File and line of a source, for complaints."""
    return f"{study_path}:{line_of(study_path, ('sources', source))}"


def _split(path: str, study_path: Path) -> tuple[SourceSpec, list[str]]:
    """A task's training split as a source, and the identity of its files."""
    spec = SourceSpec(domain="training", format="instruct", path=path)
    try:
        return spec, [f.identity() for f in source_files(spec, study_path.parent)]
    except UserError as error:
        line = line_of(study_path, ("evaluate", "training_splits"))
        raise UserError(f"{study_path}:{line}: {error}") from None


def shards(
    data: DataSteps, store: Store, seq_len: int, validation: ValidationSpec | None = None
) -> dict[str, Shard]:
    """Prepared sources in rows of `seq_len`, memory-mapped, without what is held out for validation."""
    return {
        name: read_shard(store, step.hash, validation)
        for (name, length), step in data.prepared.items()
        if length == seq_len
    }


def read_shard(store: Store, hash_: str, validation: ValidationSpec | None) -> Shard:
    """One prepared source."""
    folder = store.read("prepare", hash_)
    return Shard(folder, validation.rows) if validation else Shard(folder)
