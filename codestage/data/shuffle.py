"""A fixed shuffled order of documents, by a keyed hash of what they say, in bounded memory."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codestage.data.sources import Document, Example, Item

BUCKETS = 64
"""Files that the documents are first dealt out to; each is later sorted in memory by itself."""


def shuffled(
    items: Iterable[Item],
    key: str,
    folder: Path,
    on_duplicate: Callable[[Item, Item], None] | None = None,
) -> Iterator[Item]:
    """The items in the order of their hash: the same for any order in which they come.

    Equal items stand together; with `on_duplicate` the first is kept and the others are handed to it
    as (duplicate, kept). `folder` takes the buckets for the time being.
    """
    paths = [folder / f"bucket-{i:02d}" for i in range(BUCKETS)]
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("w", encoding="utf-8")) for path in paths]
        for item in items:
            digest = _place(item, key)
            files[int(digest[:2], 16) * BUCKETS // 256].write(f"{digest}{json.dumps(asdict(item))}\n")
    for path in paths:
        with path.open(encoding="utf-8") as file:
            lines = file.readlines()
        path.unlink()
        yield from _unique(sorted(lines, key=lambda line: line[:32]), on_duplicate)


def _place(item: Item, key: str) -> str:
    return hashlib.blake2b(f"{key}\x1f{item.content}".encode(), digest_size=16).hexdigest()


def _unique(lines: list[str], on_duplicate: Callable[[Item, Item], None] | None) -> Iterator[Item]:
    before, kept = "", None
    for line in lines:
        item = from_row(json.loads(line[32:]))
        if on_duplicate and kept is not None and line[:32] == before:
            on_duplicate(item, kept)
            continue
        before, kept = line[:32], item
        yield item


def from_row(row: dict[str, Any]) -> Item:
    """A document or an example from its fields."""
    if "prompt" not in row:
        return Document(**row)
    return Example(**row | {"more": tuple((asked, answered) for asked, answered in row["more"])})
