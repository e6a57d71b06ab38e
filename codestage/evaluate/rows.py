"""The rows of files with questions, packed or not."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codestage.errors import UserError


def parse(text: str, name: str) -> Iterator[Any]:
    """The rows of a file by its name: JSON lines, a JSON list or object, or the text itself.

    Raises:
        ValueError: the file is none of these.
    """
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind == "jsonl":
        yield from _lines(text)
    elif kind == "json":
        try:
            data = json.loads(text)
        except json.JSONDecodeError:  # lines of JSON under the name of one
            data = list(_lines(text))
        yield from data if isinstance(data, list) else [data]
    else:
        yield text


def _lines(text: str) -> Iterator[Any]:
    """Lines end with "\n" alone: what else ends a line elsewhere, as U+2028, may stand in JSON as it is."""
    return (json.loads(line) for line in text.split("\n") if line.strip())


def text_of(path: Path) -> str:
    """The whole text of a file, unpacked, without the mark that some editors begin UTF-8 with."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
