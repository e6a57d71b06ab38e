"""Prepared sources: rows of token ids on disk, memory-mapped.

A folder with `meta.json`, `rows.tokens` (`[rows, seq_len + 1]`, uint16 or uint32) and, for instruction
data, `rows.mask` (uint8, 1 = predicted with loss) and `counts.npy` (tokens a row). Every document
or example begins with the end token, which is also what the last token before it predicts.
"""

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from tokenizers import Encoding, Tokenizer

from codestage.data.instruct import prompt, response
from codestage.data.mixture import RowCounts
from codestage.data.sources import Document, Example
from codestage.errors import UserError

END, PAD = 0, 1
"""Ids of `<|endoftext|>` and `<|pad|>`."""
CHUNK = 200
"""Documents tokenised at a time, by all the tokenizer's threads."""
PackedRow = tuple[list[int], list[int]]
"""Token ids, and 1 for each that is predicted with loss."""
T = TypeVar("T")
OPEN_ROWS = 64
"""Rows kept open while packing examples: more would waste less padding and look longer."""


class Shard:
    """A prepared source, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.rows, self.seq_len = self.meta["rows"], self.meta["seq_len"]
        shape = (self.rows, self.seq_len + 1)
        self.tokens = np.memmap(folder / "rows.tokens", self.meta["dtype"], "r", shape=shape)
        self.mask: np.ndarray | None = None
        counts = None
        if self.meta["format"] == "instruct":
            self.mask = np.memmap(folder / "rows.mask", np.uint8, "r", shape=shape)
            counts = np.load(folder / "counts.npy")
        self.counts = RowCounts(self.rows, self.seq_len, counts)


def prepare_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, *, seq_len: int, out: Path
) -> dict[str, Any]:
    """Write a document source as full rows cut from one stream; the unfilled last row is left out."""
    dtype = _dtype(tokenizer)
    rows, count, size, held = 0, 0, 0, np.empty(0, dtype=dtype)
    with (out / "rows.tokens").open("wb") as file:
        for chunk, encoded in _encoded(documents, tokenizer, lambda d: [d.text]):
            flat = array("H" if dtype == "uint16" else "I")  # fills twice as fast as NumPy from lists
            for encoding in encoded:
                flat.append(END)
                flat.fromlist(encoding.ids)
            count += len(chunk)
            size += sum(len(d.text.encode()) for d in chunk)
            stream = np.concatenate([held, np.frombuffer(flat, dtype=dtype)])
            written, held = _write_rows(stream, seq_len, file)
            rows += written
        written, held = _write_rows(np.append(held, np.array([END], dtype)), seq_len, file)
        rows += written
    _require_rows(rows, len(held), seq_len)
    return _write_meta(
        out,
        {
            "format": "document",
            "rows": rows,
            "seq_len": seq_len,
            "dtype": dtype,
            "tokens": rows * seq_len,
            "documents": count,
            "dropped_too_long": 0,
            "tokens_left_over": len(held) - 1,
            "bytes": size,
        },
    )


def _write_rows(stream: np.ndarray, seq_len: int, file: IO[bytes]) -> tuple[int, np.ndarray]:
    """Write all whole rows of `stream`; (their number, what is left: the last token stands in both)."""
    rows = max(0, len(stream) - 1) // seq_len
    if rows:
        np.lib.stride_tricks.sliding_window_view(stream, seq_len + 1)[::seq_len][:rows].tofile(file)
    return rows, stream[rows * seq_len :]


def prepare_examples(
    examples: Iterable[Example], tokenizer: Tokenizer, *, seq_len: int, out: Path
) -> dict[str, Any]:
    """Write an instruction source as rows of whole examples, best fit first, loss on responses."""
    open_rows: list[PackedRow] = []
    count, dropped, size = 0, 0, 0
    with _RowWriter(out, _dtype(tokenizer), seq_len) as writer:
        for chunk, encoded in _encoded(examples, tokenizer, _told):
            size += sum(len((e.prompt + e.response).encode()) for e in chunk)
            for question, answer in zip(encoded[::2], encoded[1::2], strict=True):
                ids = [END, *question.ids, *answer.ids]
                if len(ids) > seq_len:
                    dropped += 1
                    continue
                count += 1
                mask = [0] * (1 + len(question.ids)) + [1] * len(answer.ids)
                writer.write(_fit(ids, mask, open_rows, seq_len))
        writer.write(open_rows)
        _require_rows(len(writer.counts), dropped, seq_len)
    return _write_meta(
        out,
        {
            "format": "instruct",
            "rows": len(writer.counts),
            "seq_len": seq_len,
            "dtype": writer.dtype,
            "tokens": sum(writer.counts),
            "documents": count,
            "dropped_too_long": dropped,
            "tokens_left_over": 0,
            "bytes": size,
        },
    )


class _RowWriter:
    """Appends packed rows, their masks and counts to a shard's files."""

    def __init__(self, out: Path, dtype: str, seq_len: int) -> None:
        self.out, self.dtype, self.seq_len = out, dtype, seq_len
        self.counts: list[int] = []

    def __enter__(self) -> "_RowWriter":
        self._tokens = (self.out / "rows.tokens").open("wb")
        self._masks = (self.out / "rows.mask").open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._tokens.close()
        self._masks.close()
        np.save(self.out / "counts.npy", np.array(self.counts, dtype=np.int32))

    def write(self, rows: Iterable[PackedRow]) -> None:
        """Every example begins with the end token; where one does, the token before it predicts it."""
        for ids, mask in rows:
            tokens = np.full(self.seq_len + 1, PAD, dtype=self.dtype)
            masks = np.zeros(self.seq_len + 1, dtype=np.uint8)
            tokens[: len(ids) + 1] = [*ids, END]  # the end of the last response is learned too
            masks[: len(ids) + 1] = [*mask, 1]
            masks[1:][tokens[1:] == END] = 1
            tokens.tofile(self._tokens)
            masks.tofile(self._masks)
            self.counts.append(len(ids))


def _fit(ids: list[int], mask: list[int], open_rows: list[PackedRow], seq_len: int) -> list[PackedRow]:
    """Put an example into the fullest open row that still holds it; the row that is closed for it."""
    room = [row for row in open_rows if len(row[0]) + len(ids) <= seq_len]
    if room:
        row = max(room, key=lambda r: len(r[0]))
        row[0].extend(ids)
        row[1].extend(mask)
        return []
    open_rows.append((list(ids), list(mask)))
    if len(open_rows) <= OPEN_ROWS:
        return []
    fullest = max(range(len(open_rows)), key=lambda i: len(open_rows[i][0]))
    return [open_rows.pop(fullest)]


def _told(example: Example) -> list[str]:
    """What is asked, and what is to be answered."""
    asked = prompt(example.prompt, cot=example.rationale is not None)
    return [asked, response(example.response, rationale=example.rationale)]


def _encoded(
    items: Iterable[T], tokenizer: Tokenizer, texts: Callable[[T], list[str]]
) -> Iterator[tuple[list[T], list[Encoding]]]:
    """Chunks with the encodings of their texts; the next one is encoded while one is worked on."""

    def encode(chunk: list[T]) -> list[Encoding]:
        found: list[Encoding] = tokenizer.encode_batch_fast([t for item in chunk for t in texts(item)])
        return found

    with ThreadPoolExecutor(1) as ahead:
        before: tuple[list[T], Future[list[Encoding]]] | None = None
        for chunk in _chunks(items, CHUNK):
            now = (chunk, ahead.submit(encode, chunk))
            if before:
                yield before[0], before[1].result()
            before = now
        if before:
            yield before[0], before[1].result()


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(items)
    while chunk := list(islice(stream, size)):
        yield chunk


def _dtype(tokenizer: Tokenizer) -> str:
    return "uint16" if tokenizer.get_vocab_size() <= 1 << 16 else "uint32"


def _require_rows(rows: int, held: int, seq_len: int) -> None:
    if rows == 0:
        raise UserError(
            f"holds too little for one row of seq_len {seq_len} ({held:,} tokens or examples seen); "
            "give it more data or lower seq_len"
        )


def _write_meta(out: Path, meta: dict[str, Any]) -> dict[str, Any]:
    (out / "meta.json").write_text(json.dumps(meta, indent=1))
    return meta
