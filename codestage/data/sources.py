"""Reading sources: files, folders, the interpreter's own library, generated corpora."""

import ast
import gzip
import io
import json
import sysconfig
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codestage.errors import UserError
from codestage.study.schema import SourceSpec

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
    """One text of a document source."""

    id: str
    text: str

    @property
    def content(self) -> str:
        return self.text


@dataclass(frozen=True)
class Example:
    """One instruction with its response; `rationale` is the reasoning that leads to it, if given."""

    id: str
    prompt: str
    response: str
    rationale: str | None = None

    @property
    def content(self) -> str:
        return "\x1f".join([self.prompt, self.rationale or "", self.response])


Item = Document | Example


def read_source(spec: SourceSpec, folder: Path) -> list[Item]:
    """All documents or examples of a source; paths are relative to `folder`.

    Raises:
        UserError: naming file and line or row for anything that cannot be read, or an empty source.
    """
    items = list(_rows(spec, folder))
    if not items:
        raise UserError(f"{spec.path or 'the source'} holds no documents; check the path or drop it")
    return items


def source_files(spec: SourceSpec, folder: Path) -> list[Path]:
    """The files behind a `path` source, sorted; folders are searched."""
    if spec.path is None:
        return []
    pattern = folder / spec.path  # an absolute path stays what it is
    if any(sign in spec.path for sign in "*?["):
        found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    else:
        found = [pattern] if pattern.exists() else []
    files = [f for p in found for f in (sorted(p.rglob("*")) if p.is_dir() else [p]) if f.is_file()]
    files = [f for f in files if _reader(f)]
    if not files:
        known = ", ".join(READERS)
        raise UserError(f"{spec.path}: no file of a known kind ({known}); check path and folder")
    return files


def _rows(spec: SourceSpec, folder: Path) -> Iterator[Item]:
    if spec.procedural:
        from codestage.data.worlds import corpus

        yield from _items(corpus(**spec.procedural.model_dump()), spec, "generated", "document")
    elif spec.stdlib:
        yield from standard_library()
    for path in source_files(spec, folder):
        reader = _reader(path)
        assert reader
        yield from _items(reader(path), spec, str(path), "row")


def _items(rows: Iterator[Any], spec: SourceSpec, where: str, unit: str) -> Iterator[Item]:
    make = _example if spec.format == "instruct" else _document
    for i, row in enumerate(rows, 1):
        try:
            item = make(f"{where}:{i}", row)
        except (KeyError, TypeError, AttributeError, IndexError):
            want = "prompt and response" if spec.format == "instruct" else "text"
            has = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
            raise UserError(f"{where}: {unit} {i} has no {want} (it has: {has[:200]})") from None
        if item.content.strip("\x1f \n\t"):
            yield item


def _document(name: str, row: Any) -> Document:
    text = row["text"] if "text" in row else row["content"]
    if not isinstance(text, str):
        raise TypeError
    return Document(name, text)


def _example(name: str, row: Any) -> Example:
    """Prompt and response, Alpaca's instruction/input/output, a conversation's first exchange, or
    question and answer, where GSM8K's `####` parts the reasoning from the answer.
    """
    if "messages" in row or "conversations" in row:
        turns = row.get("messages") or row["conversations"]
        asked, answered = [t.get("content", t.get("value")) for t in turns if _speaks(t)][:2]
        values = (asked, answered, None)
    elif "instruction" in row:
        given = row.get("input") or ""
        values = (f"{row['instruction']}\n{given}".strip(), row["output"], None)
    elif "question" in row:
        steps, marker, answer = row["answer"].rpartition("####")
        values = (row["question"], answer.strip(), steps.strip() if marker else None)
    else:
        values = (row["prompt"], row.get("response", row.get("completion")), row.get("rationale"))
    if not isinstance(values[0], str) or not isinstance(values[1], str):
        raise TypeError
    return Example(name, values[0], values[1], values[2])


def _speaks(turn: dict[str, Any]) -> bool:
    return turn.get("role", turn.get("from")) != "system"


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


def _open(path: Path) -> Iterator[str]:
    """Lines of a text file, gunzipped where named .gz."""
    try:
        opened = (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8")
        )
        with opened as file:
            yield from file
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}); convert the file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}; mend or leave out the file") from None


def _jsonl(path: Path) -> Iterator[Any]:
    for number, line in enumerate(_open(path), 1):
        if line.strip():
            yield _parse(path, line, number)


def _json(path: Path) -> Iterator[Any]:
    rows = _parse(path, "".join(_open(path)), 1)
    if not isinstance(rows, list):
        raise UserError(f"{path}: holds a {type(rows).__name__}, not a list of rows")
    yield from rows


def _parse(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        at = line + getattr(error, "lineno", 1) - 1
        raise UserError(f"{path}:{at}: not JSON ({error}); mend or remove that line") from None


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file: {error}") from None


def _text(path: Path) -> Iterator[Any]:
    yield {"text": "".join(_open(path))}


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".json": _json,
    ".json.gz": _json,
    ".parquet": _parquet,
    ".txt": _text,
    ".txt.gz": _text,
    ".md": _text,
    ".py": _text,
}


def _reader(path: Path) -> Callable[[Path], Iterator[Any]] | None:
    suffixes = ["".join(path.suffixes[-2:]), path.suffix]
    return next((READERS[s] for s in suffixes if s in READERS), None)
