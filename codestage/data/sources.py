"""Sources: what they hold, and where it comes from: files, the interpreter's library, generators."""

import ast
import io
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

from identify import identify
from tokenizers import Tokenizer

from codestage.data.files import (
    Bad,
    File,
    as_text,
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
OR_SKIP = ", or leave such rows out with bad_rows: skip"
"""The other way out of a bad row."""
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
    """The documents or examples of a part, one at a time, empty ones too.

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
        if item is not None:
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
    """The item of a row; of a row that holds none, `bad` is told why, and the ways out."""
    make = _example if spec.format == "instruct" else _document
    try:
        if not isinstance(row, Mapping):
            raise ValueError(f"it is {_kind(row)}, not an object with columns")
        if unknown := [column for column in spec.where or () if column not in row]:
            raise _MissingError(f"{', '.join(unknown)}, which where asks for", "correct where")
        item = make(name, row, spec)
        item.content.encode()
        return item
    except UnicodeEncodeError:
        said = " holds half of a surrogate pair, which is no character; mend that row"
    except _MissingError as missing:
        said = f" has no {missing.columns} ({_columns(row)}); {missing.way_out}"
    except ValueError as error:
        said = f": {error}; mend that row"
    bad(f"{where}: row {i}{said}{OR_SKIP}")
    return None


class _MissingError(Exception):
    """Columns that a row has not, and what to do where they have other names."""

    def __init__(self, columns: str, way_out: str) -> None:
        super().__init__(columns)
        self.columns, self.way_out = columns, way_out


NAME_TEXT = "name the column of the text with text_field"
NAME_BOTH = "name the columns of prompt and response with prompt_field and response_field"


def _column(row: Mapping[str, Any], name: str, way_out: str = NAME_BOTH) -> str:
    """The text of a column."""
    if name not in row:
        raise _MissingError(name, way_out)
    return _text(row[name], name)


def _text(said: Any, name: str) -> str:
    if not isinstance(said, str):
        raise ValueError(f"{name} is {_kind(said)}")
    return said


def _kind(value: Any) -> str:
    """What a value is, in words."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return "a number"
    words: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
    return words.get(type(value), f"of type {type(value).__name__}")


def _columns(row: Mapping[str, Any]) -> str:
    return f"it has: {', '.join(map(str, row))[:200]}" if row else "it is empty"


def _document(name: str, row: Any, spec: SourceSpec) -> Document:
    if spec.tokenizer and "input_ids" in row:
        text = _decoded(row["input_ids"], spec.tokenizer)
    elif spec.text_field is None and "text" not in row and "content" not in row:
        made = "name the tokenizer that made its input_ids with tokenizer"
        raise _MissingError("text", made if "input_ids" in row else NAME_TEXT)
    else:
        text = _column(row, spec.text_field or ("text" if "text" in row else "content"), NAME_TEXT)
    return Document(name, text, _meta(row, spec))


def _decoded(ids: Any, tokenizer: str) -> str:
    try:
        return _decoder(tokenizer).decode(ids, skip_special_tokens=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"input_ids are no tokens ({error})") from None


@lru_cache(maxsize=4)
def _decoder(folder: str) -> Tokenizer:
    return load_tokenizer(Path(folder))


def _meta(row: Mapping[str, Any], spec: SourceSpec) -> dict[str, str]:
    """What a row says of its licence (or else the study), language and path; of a path, the language of
    its name; and of the columns by which rows are chosen.
    """
    meta = {key: as_text(row[key]) for key in META if isinstance(row.get(key), str) and row[key]}
    if spec.license:
        meta.setdefault("license", spec.license)
    if "path" in meta and "language" not in meta and is_source(meta["path"]):
        tags = identify.tags_from_filename(meta["path"]) - {"text", "executable", "non-executable"}
        if tags:
            meta["language"] = min(tags)
    return meta | {column: as_text(str(row[column])) for column in spec.where or ()}


def _example(name: str, row: Any, spec: SourceSpec) -> Example:
    """Prompt and response, Alpaca's instruction/input/output, a conversation, or question and answer,
    where GSM8K's `####` parts the reasoning from the answer.
    """
    rationale: str | None = None
    system: str | None = None
    more: list[tuple[str, str]] = []
    if spec.prompt_field and spec.response_field:
        asked, answered = _column(row, spec.prompt_field), _column(row, spec.response_field)
    elif "messages" in row or "conversations" in row:
        column = "messages" if row.get("messages") or "conversations" not in row else "conversations"
        system, ((asked, answered), *more) = _exchanges(row[column], column)
    elif "instruction" in row:
        asked = f"{row['instruction']}\n{row.get('input') or ''}".strip()
        answered = _column(row, "output")
    elif "question" in row:
        steps, marker, answer = _column(row, "answer").rpartition("####")
        asked, answered = _column(row, "question"), answer.strip()
        rationale = steps.strip() if marker else None
    else:
        answer = "completion" if "completion" in row and "response" not in row else "response"
        if "prompt" not in row:
            raise _MissingError(f"prompt and {answer}" if answer not in row else "prompt", NAME_BOTH)
        asked, answered = _column(row, "prompt"), _column(row, answer)
        rationale = _column(row, "rationale") if row.get("rationale") is not None else None
    return Example(name, asked, answered, rationale, tuple(more), system, _meta(row, spec))


ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def _exchanges(turns: Any, column: str) -> tuple[str | None, list[tuple[str, str]]]:
    """What the system was told, and (prompt, response) by turns. A greeting before the first prompt and
    a prompt that nobody answered are left out; any other order is no conversation (ValueError).
    """
    if not isinstance(turns, list):
        raise ValueError(f"{column} is {_kind(turns)}, not a list of turns")
    said = [(i, *_turn(turn, i)) for i, turn in enumerate(turns, 1)]
    system = said.pop(0)[2] if said and said[0][1] == "system" else None
    while said and said[0][1] == "assistant":
        said.pop(0)
    for (i, role, _), due in zip(said, cycle(("user", "assistant")), strict=False):
        if role == "system":
            raise ValueError(f"turn {i} is a system turn, which can only be the first")
        if role != due:
            raise ValueError(f"turn {i} is a second {role} turn in a row")
    if len(said) < 2:
        raise ValueError(f"{column} has no prompt with its answer")
    texts = [_text(content, f"the content of turn {i}") for i, _, content in said[: len(said) // 2 * 2]]
    told = None if system is None else _text(system, "the content of turn 1")
    return told, list(zip(texts[::2], texts[1::2], strict=True))


def _turn(turn: Any, i: int) -> tuple[str, Any]:
    """The role and the content of the `i`th turn."""
    if not isinstance(turn, Mapping):
        raise ValueError(f"turn {i} is {_kind(turn)}, not an object with role and content")
    role = turn.get("role", turn.get("from", ""))
    if role == "":
        raise ValueError(f"turn {i} has no role")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"role {role!r:.60} of turn {i} is not known (known: {', '.join(ROLES)})")
    return ROLES[role], turn.get("content", turn.get("value"))


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
