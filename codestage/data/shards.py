"""Prepared sources: rows of token ids on disk, memory-mapped.

A folder with `meta.json`, `rows.tokens` (`[rows, seq_len + 1]`, uint16 or uint32) and, for instruction
data, `rows.mask` (uint8, 1 = predicted with loss) and `counts.npy` (tokens a row). Every document
or example begins with the end token, which is also what the last token before it predicts.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from codestage.data.instruct import prompt, response
from codestage.data.mixture import RowCounts
from codestage.data.sources import Document, Example
from codestage.errors import UserError

END, PAD = 0, 1
"""Ids of `<|endoftext|>` and `<|pad|>`."""
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


def shuffled(items: Iterable[Any], key: str) -> list[Any]:
    """Documents or examples in a fixed shuffled order: by a keyed hash of what they say."""

    def place(item: Any) -> bytes:
        return hashlib.blake2b(f"{key}\x1f{item.content}".encode(), digest_size=16).digest()

    return sorted(items, key=place)


def prepare_documents(
    documents: Sequence[Document], tokenizer: Tokenizer, *, seq_len: int, out: Path
) -> dict[str, Any]:
    """Write a document source as full rows cut from one stream; the unfilled last row is left out."""
    stream: list[np.ndarray] = []
    size = 0
    for chunk in _chunks(documents, 1000):
        for encoding in tokenizer.encode_batch_fast([d.text for d in chunk]):
            ids = np.array([END, *encoding.ids], dtype=np.uint32)
            stream.append(ids)
            size += len(ids)
    flat = np.concatenate([*stream, np.array([END], np.uint32)]) if stream else np.empty(0, np.uint32)
    rows = (len(flat) - 1) // seq_len
    _require_rows(rows, len(flat), seq_len)
    dtype = _dtype(tokenizer)
    index = np.arange(rows)[:, None] * seq_len + np.arange(seq_len + 1)
    flat[index].astype(dtype).tofile(out / "rows.tokens")
    characters = sum(len(d.text.encode()) for d in documents)
    return _write_meta(
        out,
        {
            "format": "document",
            "rows": rows,
            "seq_len": seq_len,
            "dtype": dtype,
            "tokens": rows * seq_len,
            "documents": len(documents),
            "dropped_too_long": 0,
            "tokens_left_over": size - rows * seq_len,
            "bytes": characters,
        },
    )


def prepare_examples(
    examples: Sequence[Example], tokenizer: Tokenizer, *, seq_len: int, out: Path
) -> dict[str, Any]:
    """Write an instruction source as rows of whole examples, best fit first, loss on responses."""
    packed: list[tuple[list[int], list[int]]] = []
    open_rows: list[tuple[list[int], list[int]]] = []
    dropped = 0
    for chunk in _chunks(examples, 1000):
        asked = [prompt(e.prompt, cot=e.rationale is not None) for e in chunk]
        answers = [response(e.response, rationale=e.rationale) for e in chunk]
        encoded = tokenizer.encode_batch_fast(asked + answers)
        for question, answer in zip(encoded[: len(chunk)], encoded[len(chunk) :], strict=True):
            ids = [END, *question.ids, *answer.ids]
            mask = [0] * (1 + len(question.ids)) + [1] * len(answer.ids)
            if len(ids) > seq_len:
                dropped += 1
                continue
            _fit(ids, mask, open_rows, packed, seq_len)
    packed += open_rows
    _require_rows(len(packed), dropped, seq_len)
    dtype = _dtype(tokenizer)
    tokens = np.full((len(packed), seq_len + 1), PAD, dtype=dtype)
    masks = np.zeros((len(packed), seq_len + 1), dtype=np.uint8)
    counts = np.array([len(ids) for ids, _ in packed], dtype=np.int32)
    for i, (ids, mask) in enumerate(packed):
        tokens[i, : len(ids) + 1] = [*ids, END]  # the end of the last response is learned too
        masks[i, : len(ids) + 1] = [*mask, 1]
    begins = (tokens == END) & (np.arange(seq_len + 1) > 0)
    masks[begins] = 1
    masks[np.arange(seq_len + 1) > counts[:, None]] = 0
    tokens.tofile(out / "rows.tokens")
    masks.tofile(out / "rows.mask")
    np.save(out / "counts.npy", counts)
    return _write_meta(
        out,
        {
            "format": "instruct",
            "rows": len(packed),
            "seq_len": seq_len,
            "dtype": dtype,
            "tokens": int(counts.sum()),
            "documents": len(examples) - dropped,
            "dropped_too_long": dropped,
            "tokens_left_over": 0,
            "bytes": sum(len((e.prompt + e.response).encode()) for e in examples),
        },
    )


def _fit(
    ids: list[int],
    mask: list[int],
    open_rows: list[tuple[list[int], list[int]]],
    packed: list[tuple[list[int], list[int]]],
    seq_len: int,
) -> None:
    """Put an example into the fullest open row that still holds it."""
    room = [row for row in open_rows if len(row[0]) + len(ids) <= seq_len]
    if room:
        row = max(room, key=lambda r: len(r[0]))
        row[0].extend(ids)
        row[1].extend(mask)
        return
    open_rows.append((list(ids), list(mask)))
    if len(open_rows) > OPEN_ROWS:
        fullest = max(range(len(open_rows)), key=lambda i: len(open_rows[i][0]))
        packed.append(open_rows.pop(fullest))


def _chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))


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
