"""Sources: what they hold, and where it comes from: files, the interpreter's library, generators."""

import ast
import io
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from identify import identify
from tokenizers import Tokenizer

from codestage.data.files import (
    Bad,
    File,
    by_folder,
    find,
    is_licence,
    is_source,
    licence_in,
    nearest,
)
from codestage.data.tokenizer import load_tokenizer
from codestage.errors import UserError
from codestage.study.schema_sources import GymSpec, HubSpec, SourceSpec

PIECE_CHARACTERS = 4000
"""Length near which a long module of the standard library is cut, at a top-level statement."""
NOT_LIBRARY = {
    "test",
    "tests",
    "idlelib",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "__pycache__",
}


@dataclass(frozen=True)
class Document:
    """One text of a document source; `meta` holds its licence, language and path, where known."""

    id: str
    text: str
    meta: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> str:
        return self.text


@dataclass(frozen=True)
class Example:
    """An instruction with its response; `rationale` is the reasoning that leads to it, if given.

    A conversation has its `more` exchanges after the first, and perhaps what the `system` was told.
    """

    id: str
    prompt: str
    response: str
    rationale: str | None = None
    more: tuple[tuple[str, str], ...] = ()
    system: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)

    @property
    def exchanges(self) -> list[tuple[str, str]]:
        return [(self.prompt, self.response), *self.more]

    @property
    def content(self) -> str:
        first = [self.prompt, self.rationale or "", self.response]
        before = [self.system] if self.system else []
        return "\x1f".join([*before, *first, *(said for pair in self.more for said in pair)])


Item = Document | Example
META = ("license", "language", "path", "skill")


@dataclass(frozen=True)
class Part:
    """A piece of a source that can be read by itself: a file, or all of what is no file."""

    name: str
    file: File | None = None
    licence: str = ""
    """SPDX name of the nearest licence file in the folders above; empty if none is there, or known."""


def source_parts(spec: SourceSpec, folder: Path) -> list[Part]:
    """The parts of a source in their order; paths are relative to `folder`.

    Raises:
        UserError: there is no such file, or a tokenizer that the source needs is missing.
    """
    if spec.tokenizer:
        _decoder(str(folder / spec.tokenizer))
    if spec.path is None:
        return [
            Part(spec.hub.id if spec.hub else "reasoning-gym" if spec.reasoning_gym else "generated")
        ]
    files = source_files(spec, folder)
    ruling = [f for f in files if is_licence(f.path)] if spec.format == "document" else []
    licences = by_folder((f.path, licence_in(f)) for f in ruling)
    return [Part(f.name, f, nearest(f.path, licences) or "") for f in files if not is_licence(f.path)]


def read_part(part: Part, spec: SourceSpec, folder: Path, bad: Bad | None = None) -> Iterator[Item]:
    """The documents or examples of a part, one at a time.

    `bad` is told of rows that cannot be read; without it they are an error.

    Raises:
        UserError: naming file and line or row for anything that cannot be read.
    """
    tell = bad or _refuse
    if spec.stdlib:
        meta = {"license": spec.license} if spec.license else {}
        yield from (replace(document, meta=meta) for document in standard_library())
        return
    if spec.tokenizer:
        spec = spec.model_copy(update={"tokenizer": str(folder / spec.tokenizer)})
    for i, row in enumerate(_rows(part, spec, folder, tell), 1):
        item = _item(f"{part.name}:{i}", part.name, i, row, spec, tell)
        if item is not None and item.content.strip("\x1f \n\t"):
            yield item


def read_source(spec: SourceSpec, folder: Path, bad: Bad | None = None) -> Iterator[Item]:
    """All parts of a source, one after the other."""
    for part in source_parts(spec, folder):
        yield from read_part(part, spec, folder, bad)


def _refuse(message: str) -> None:
    raise UserError(message)


def source_files(spec: SourceSpec, folder: Path) -> list[File]:
    """The files behind a `path` source, sorted; folders are searched."""
    return [] if spec.path is None else find(spec.path, folder)


def _rows(part: Part, spec: SourceSpec, folder: Path, bad: Bad) -> Iterable[Any]:
    """What the file holds, or what is made or fetched."""
    if spec.procedural:
        from codestage.data.worlds import corpus

        return corpus(**spec.procedural.model_dump())
    if spec.hub:
        return _hub_rows(spec.hub, folder)
    if spec.reasoning_gym:
        return _gym_rows(spec.reasoning_gym)
    assert part.file
    return _with_licence(part.file.rows(bad), part.licence)


def _with_licence(rows: Iterable[Any], licence: str) -> Iterator[Any]:
    for row in rows:
        yield {"license": licence} | row if licence and isinstance(row, dict) else row


def _hub_rows(spec: HubSpec, folder: Path) -> Iterator[Any]:
    """Rows of a Hugging Face data set, streamed; `id` may be a folder of files."""
    import datasets

    place = folder / spec.id
    name = str(place) if place.exists() else spec.id
    files = list(spec.files) if spec.files else None
    try:
        yield from datasets.load_dataset(
            name,
            spec.config,
            data_files=files,
            split=spec.split,
            revision=spec.revision,
            streaming=True,
        )
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"data set {spec.id!r}: {type(error).__name__}: {error}") from None


def _gym_rows(spec: GymSpec) -> Iterator[Any]:
    """Question and answer of each generated problem, the tasks by turns."""
    try:
        import reasoning_gym
    except ImportError:
        raise UserError("reasoning-gym is not installed; pip install 'codestage[gym]'") from None
    each = -(-spec.documents // len(spec.tasks))
    try:
        made = [reasoning_gym.create_dataset(t, size=each, seed=spec.seed) for t in spec.tasks]
    except ValueError as error:
        raise UserError(f"reasoning_gym: {error}; see reasoning-gym's list of data sets") from None
    for i in range(spec.documents):
        entry = made[i % len(made)][i // len(made)]
        question, answer = str(entry["question"]), str(entry["answer"])
        yield {"prompt": question, "response": answer, "text": f"{question}\n{answer}"}


def _item(name: str, where: str, i: int, row: Any, spec: SourceSpec, bad: Bad) -> Item | None:
    make = _example if spec.format == "instruct" else _document
    try:
        if missing := [column for column in spec.where or () if column not in row]:
            bad(f"{where}: row {i} has no {', '.join(missing)}, which where asks for ({_columns(row)})")
            return None
        item = make(name, row, spec)
        item.content.encode()
        return item
    except UnicodeEncodeError:
        bad(f"{where}: row {i} holds half of a surrogate pair, which is no character; mend that row")
        return None
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError):
        fields = f"{spec.prompt_field or 'prompt'} and {spec.response_field or 'response'}"
        want = fields if spec.format == "instruct" else (spec.text_field or "text")
        bad(f"{where}: row {i} has no {want} ({_columns(row)})")
        return None


def _columns(row: Any) -> str:
    has = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
    return f"it has: {has[:200]}"


def _document(name: str, row: Any, spec: SourceSpec) -> Document:
    if spec.tokenizer and "input_ids" in row:
        text: Any = _decoder(str(spec.tokenizer)).decode(row["input_ids"], skip_special_tokens=True)
    else:
        text = row[spec.text_field or ("text" if "text" in row else "content")]
    if not isinstance(text, str):
        raise TypeError
    return Document(name, text, _meta(row, spec))


@lru_cache(maxsize=4)
def _decoder(folder: str) -> Tokenizer:
    return load_tokenizer(Path(folder))


def _meta(row: Mapping[str, Any], spec: SourceSpec) -> dict[str, str]:
    """What a row says of its licence (or else the study), language and path; of a path, the language of
    its name; and of the columns by which rows are chosen.
    """
    meta = {key: row[key] for key in META if isinstance(row.get(key), str) and row[key]}
    if spec.license:
        meta.setdefault("license", spec.license)
    if "path" in meta and "language" not in meta and is_source(meta["path"]):
        tags = identify.tags_from_filename(meta["path"]) - {"text", "executable", "non-executable"}
        if tags:
            meta["language"] = min(tags)
    return meta | {column: str(row[column]) for column in spec.where or ()}


def _example(name: str, row: Any, spec: SourceSpec) -> Example:
    """Prompt and response, Alpaca's instruction/input/output, a conversation, or question and answer,
    where GSM8K's `####` parts the reasoning from the answer.
    """
    rationale, system, more = None, None, []
    if spec.prompt_field and spec.response_field:
        asked, answered = row[spec.prompt_field], row[spec.response_field]
    elif "messages" in row or "conversations" in row:
        system, exchanges = _exchanges(row.get("messages") or row["conversations"])
        (asked, answered), *more = exchanges
    elif "instruction" in row:
        asked = f"{row['instruction']}\n{row.get('input') or ''}".strip()
        answered = row["output"]
    elif "question" in row:
        steps, marker, answer = row["answer"].rpartition("####")
        asked, answered, rationale = row["question"], answer.strip(), steps.strip() if marker else None
    else:
        asked, answered = row["prompt"], row.get("response", row.get("completion"))
        rationale = row.get("rationale")
    told = [asked, answered, *(said for pair in more for said in pair)]
    perhaps = [said for said in (rationale, system) if said is not None]
    if not all(isinstance(said, str) for said in (*told, *perhaps)):
        raise TypeError
    return Example(name, asked, answered, rationale, tuple(more), system, _meta(row, spec))


ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def _exchanges(turns: list[dict[str, Any]]) -> tuple[str | None, list[tuple[str, str]]]:
    """What the system was told, and (prompt, response) by turns. A greeting before the first prompt and
    a prompt that nobody answered are left out; any other order is no conversation (ValueError).
    """
    said: list[tuple[str, Any]] = [
        (ROLES[turn.get("role", turn.get("from", ""))], turn.get("content", turn.get("value")))
        for turn in turns
    ]
    system = said.pop(0)[1] if said and said[0][0] == "system" else None
    while said and said[0][0] == "assistant":
        said.pop(0)
    if [role for role, _ in said] != ["user", "assistant"] * (len(said) // 2) + ["user"] * (
        len(said) % 2
    ):
        raise ValueError
    return system, [
        (asked[1], answered[1]) for asked, answered in zip(said[::2], said[1::2], strict=False)
    ]


def standard_library() -> Iterator[Document]:
    """The running interpreter's own Python library, in pieces of a few thousand characters."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if NOT_LIBRARY & set(parts) or parts[0].startswith("config-"):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            pieces = list(_pieces(text))
        except (UnicodeDecodeError, SyntaxError, ValueError):
            continue  # files that test other encodings or broken syntax on purpose
        for i, piece in enumerate(pieces):
            yield Document(f"stdlib/{'/'.join(parts)}:{i}", piece)


def _pieces(text: str) -> Iterator[str]:
    """Cut a module at top-level statements once a piece is long enough."""
    lines = io.StringIO(text, newline="\n").readlines()  # as the parser counts them
    starts = [_first_line(node) - 1 for node in ast.parse(text).body]
    begin, size = 0, 0
    for start, after in zip(starts, [*starts[1:], len(lines)], strict=True):
        size += sum(len(line) for line in lines[start:after])
        if size >= PIECE_CHARACTERS:
            yield "".join(lines[begin:after])
            begin, size = after, 0
    if begin < len(lines) and (rest := "".join(lines[begin:])).strip():
        yield rest


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])
