"""Read the records of a source: documents, or instructions with their responses."""

import glob
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from codestage.data.library import standard_library
from codestage.errors import UserError

if TYPE_CHECKING:
    from codestage.study.schema import SourceSpec

TABLES = (".jsonl", ".json", ".parquet")  # files of many records; .gz may follow the first two
TEXTS = (".txt", ".py")  # files of one document
TEXT_KEYS = ("text", "content")


@dataclass(frozen=True)
class Document:
    """A text to learn from; `id` says where it came from, for messages and reports."""

    text: str
    id: str


@dataclass(frozen=True)
class Example:
    """An instruction with its response; `rationale` is the reasoning before it, if there is one."""

    prompt: str
    response: str
    rationale: str | None = None

    @property
    def text(self) -> str:
        """All of it, as one text."""
        return "\n".join(filter(None, [self.prompt, self.rationale, self.response]))


def read(
    spec: "SourceSpec", *, name: str, folder: Path, seed: int = 0
) -> list[Document] | list[Example]:
    """All records of the source `name`; relative paths start at `folder`, that of the study file.

    `seed` is for procedural corpora. Raises UserError for a file or row that is not what the
    format says (with file and line), and for a source without records.
    """
    instruct = spec.format == "instruct"
    if spec.stdlib:
        records: list[Any] = [Document(text, place) for place, text in standard_library()]
    elif spec.procedural is not None:
        records = _procedural(spec.procedural, instruct=instruct, seed=seed)
    else:
        assert spec.path is not None, "a source has a path, or is procedural, or is the library"
        reader = read_examples if instruct else read_documents
        records = [record for file in files(spec.path, folder) for record in reader(file)]
    if not records:
        raise UserError(
            f"source {name!r}: no records in {spec.path or 'what was asked for'}. Add documents to "
            "it, or take it out of the study."
        )
    return records


def files(pattern: str, folder: Path) -> list[Path]:
    """Files that a path, folder or glob pattern names, sorted; a folder stands for all it holds.

    Raises UserError if there is none, or one is of no known kind.
    """
    full = str(folder / Path(pattern).expanduser())
    matched = (
        [Path(full)] if Path(full).exists() else [Path(p) for p in glob.glob(full, recursive=True)]
    )
    found: list[Path] = []
    for path in sorted(matched):
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.is_file() and _kind(p) is not None)
            found += sorted(inside)
        else:
            found.append(path)
    known = ", ".join(TABLES + TEXTS)
    if not found:
        raise UserError(
            f"{full}: no such file, and no folder or pattern with files in it. Give the path of a "
            f"file, folder or pattern of {known}, from the study file's folder on."
        )
    for path in found:
        if _kind(path) is None:
            raise UserError(f"{path}: unknown kind of file. Give one of {known} (.gz may follow).")
    return found


def _kind(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz")
    return next((kind for kind in TABLES + TEXTS if name.endswith(kind)), None)


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of one file: rows with `text` (or `content`), or the file itself as one."""
    if _kind(path) in TEXTS:
        text = _content(path)
        if not text.strip():
            raise UserError(f"{path}: empty. Delete the file, or put text into it.")
        yield Document(text, path.name)
        return
    for place, row in _rows(path):
        key = next((key for key in TEXT_KEYS if row.get(key) is not None), None)
        if key is None:
            raise UserError(
                f"{path}:{place}: no key 'text' (or 'content') among {_named(row)}. Each row of a "
                "source of documents needs one; for instructions set format: instruct."
            )
        yield Document(_text(row, key, path, place), f"{path.name}:{place}")


def read_examples(path: Path) -> Iterator[Example]:
    """Instructions of one file, in any of five forms.

    `prompt` with `response` or `completion` (and `rationale` or not), `instruction` with `output`
    (and `input` or not), `question` with `answer` (its last line `#### 42` is the response and what
    is before it the reasoning), or `messages`: a user's and an assistant's, a system's before them
    or not.
    """
    if _kind(path) in TEXTS:
        raise UserError(
            f"{path}: a text file holds no instructions. Give a file of {', '.join(TABLES)}, or "
            "leave out format: instruct."
        )
    for place, row in _rows(path):
        yield _example(row, path, place)


def _example(row: dict[str, Any], path: Path, place: int) -> Example:
    def text(key: str) -> str:
        return _text(row, key, path, place)

    rationale = text("rationale") if row.get("rationale") is not None else None
    if row.get("messages") is not None:
        return _conversation(row["messages"], path, place)
    for asked, answered in (
        ("prompt", "response"),
        ("prompt", "completion"),
        ("instruction", "output"),
        ("question", "answer"),
    ):
        if row.get(asked) is not None and row.get(answered) is not None:
            prompt = text(asked)
            if asked == "instruction" and row.get("input") not in (None, ""):
                prompt += "\n" + text("input")
            response = text(answered)
            if asked == "question" and rationale is None and "\n#### " in response:
                rationale, _, response = response.rpartition("\n#### ")
            return Example(prompt, response, rationale)
    raise UserError(
        f"{path}:{place}: keys {_named(row)} are no instruction. Give each row 'prompt' and "
        "'response', or 'prompt' and 'completion', or 'instruction', 'input' and 'output', or "
        "'question' and 'answer', or 'messages'."
    )


def _conversation(messages: Any, path: Path, place: int) -> Example:
    turns = list(messages) if isinstance(messages, list) else []
    roles = [turn.get("role") if isinstance(turn, dict) else None for turn in turns]
    if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
        raise UserError(
            f"{path}:{place}: 'messages' must be one of the user and one of the assistant (one of "
            f"the system may come first), but the roles are {_short(roles)}. Split a longer "
            "conversation into one row for each response."
        )
    *before, answer = (_text(turn, "content", path, place) for turn in turns)
    return Example("\n".join(before), answer)


def _text(row: Mapping[str, Any], key: str, path: Path, place: int) -> str:
    """The value of `key`, which must be text that can be written down and is not empty."""
    value = row.get(key)
    if not isinstance(value, str):
        raise UserError(
            f"{path}:{place}: {key!r} is {_short(value)}, not a text. Write it in quotes, or take "
            "the row out."
        )
    if not value.strip():
        raise UserError(f"{path}:{place}: {key!r} is empty. Fill it in, or take the row out.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path}:{place}: {key!r} holds half a character ({value[error.start]!a} alone is no "
            "Unicode). Write it whole, or take the row out."
        ) from error
    return value


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line or number, row) of a table file, from 1."""
    kind = _kind(path)
    if kind == ".parquet":
        yield from _parquet_rows(path)
    elif kind == ".jsonl":
        for place, line in enumerate(io.StringIO(_content(path)), 1):
            if line.strip():
                yield place, _row(_json(line, path, place), path, place)
    else:
        rows = _json(_content(path), path, None)
        if not isinstance(rows, list):
            raise UserError(
                f"{path}: holds {_short(rows)}, not a list. Put the rows into [...], or write one "
                "a line and name the file .jsonl."
            )
        for place, row in enumerate(rows, 1):
            yield place, _row(row, path, place)


def _row(value: Any, path: Path, place: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(
            f"{path}:{place}: {_short(value)} is no row. Write each as {{...}} with its keys."
        )
    return value


def _json(text: str, path: Path, place: int | None) -> Any:
    where = path if place is None else f"{path}:{place}"
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"{path}:{error.lineno}" if place is None else where
        line = text.split("\n")[error.lineno - 1]
        raise UserError(
            f"{at}: no JSON ({error.msg}, column {error.colno}, in {_short(repr(line))}). Mend the "
            "line, or take it out; a file that was cut off must be fetched again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: JSON that cannot be read ({error}). Mend it.") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    place = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    place += 1
                    yield place, row
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise UserError(
            f"{path}: no readable Parquet file after row {place:,} ({_short(str(error))}). Fetch "
            "or write it again."
        ) from error


def _content(path: Path) -> str:
    """The text of a file, unpacked if its name ends in .gz."""
    try:
        raw = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            raw = gzip.decompress(raw)
        return raw.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}: damaged or not packed by gzip ({error}). Fetch or write it again."
        ) from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: byte {raw[error.start]:#04x} is no UTF-8 text. Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}). Check its name and permissions."
        ) from error


def _named(row: Mapping[str, Any]) -> str:
    return _short(", ".join(map(repr, row)) or "none")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _procedural(spec: Any, *, instruct: bool, seed: int) -> list[Any]:
    from codestage.data import worlds  # here alone: most studies of real corpora need no world

    made = worlds.corpus(
        spec.form,
        documents=spec.documents,
        depth=spec.depth,
        skills=spec.skills,
        cot=spec.cot,
        seed=seed,
    )
    if instruct:
        return [Example(one.prompt, one.response, one.rationale) for one in made]
    return [Document(one, f"{spec.form}:{number}") for number, one in enumerate(made)]
