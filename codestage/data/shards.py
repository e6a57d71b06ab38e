"""Prepared sources: rows of token ids on disk, memory-mapped.

A folder with `meta.json`, `rows.tokens` (`[rows, seq_len + 1]`, uint16 or uint32) and, for instruction
data, `rows.mask` (uint8: `LOSS` where a token is predicted with loss, `BEGIN` where an example begins) and
`counts.npy` (tokens a row). Documents begin with the begin token and end with the end token; where these
are one, it stands once between two of them, and is what the last token before it predicts.
"""

import json
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from codestage.data.encode import BEGIN, LOSS, DocumentTokens, Encoder, ExampleTokens, PackedRow
from codestage.data.mixture import RowCounts
from codestage.data.tokenizer import Marks
from codestage.errors import UserError

OPEN_ROWS = 64
"""Rows kept open while packing examples: more would waste less padding and look longer."""


class Shard:
    """A prepared source, memory-mapped; the last `held_out` rows are not among its `rows`."""

    def __init__(
        self, folder: Path, held_out: Callable[[int, int], int] = lambda rows, seq_len: 0
    ) -> None:
        """`held_out` says how many rows of how many, and of which length, are kept for validation."""
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        whole, self.seq_len = self.meta["rows"], self.meta["seq_len"]
        self.marks = Marks(**self.meta["marks"])
        self.rows = whole - held_out(whole, self.seq_len)
        shape = (whole, self.seq_len + 1)
        self.tokens: np.ndarray = np.memmap(folder / "rows.tokens", self.meta["dtype"], "r", shape=shape)
        self.mask: np.ndarray | None = None
        self._counts: np.ndarray | None = None
        if self.meta["format"] == "instruct":
            self.mask = np.memmap(folder / "rows.mask", np.uint8, "r", shape=shape)
            self._counts = np.load(folder / "counts.npy")

    @property
    def counts(self) -> RowCounts:
        counts = None if self._counts is None else self._counts[: self.rows]
        return RowCounts(self.rows, self.seq_len, counts)

    def held_out(self) -> "Shard":
        """The rows at the end that are kept for validation, as a source of their own."""
        rest = copy(self)
        rest.rows = len(self.tokens) - self.rows
        rest.tokens = self.tokens[self.rows :]
        rest.mask = None if self.mask is None else self.mask[self.rows :]
        rest._counts = None if self._counts is None else self._counts[self.rows :]
        return rest


def write_documents(parts: Iterable[DocumentTokens], encoder: Encoder, out: Path) -> dict[str, Any]:
    """Write a document source as full rows cut from one stream; the unfilled last row is left out."""
    seq_len, marks = encoder.seq_len, encoder.marks
    rows, count, size, pairs, held = 0, 0, 0, 0, np.empty(0, dtype=encoder.dtype)
    with (out / "rows.tokens").open("wb") as file:
        for part in parts:
            count += part.documents
            size += part.bytes
            written, held = _write_rows(np.concatenate([held, part.tokens]), seq_len, file)
            rows += len(written)
            pairs += _pairs(written[:, :-1] == marks.begin)
        if marks.begin == marks.end:
            written, held = _write_rows(np.append(held, held.dtype.type(marks.end)), seq_len, file)
            rows += len(written)
            pairs += _pairs(written[:, :-1] == marks.begin)
    _require_rows(rows, len(held), seq_len)
    return _write_meta(
        out,
        {
            "format": "document",
            "rows": rows,
            "seq_len": seq_len,
            "dtype": encoder.dtype,
            "marks": asdict(marks),
            "tokens": rows * seq_len,
            "attended": pairs,
            "documents": count,
            "dropped_too_long": 0,
            "tokens_left_over": len(held) - 1,
            "bytes": size,
        },
    )


def _write_rows(stream: np.ndarray, seq_len: int, file: IO[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Write all whole rows of `stream`; (they, what is left: the last token stands in both)."""
    rows = max(0, len(stream) - 1) // seq_len
    if not rows:
        return np.empty((0, seq_len + 1), stream.dtype), stream
    whole = np.lib.stride_tricks.sliding_window_view(stream, seq_len + 1)[::seq_len][:rows]
    whole.tofile(file)
    return whole, stream[rows * seq_len :]


def _pairs(begins: np.ndarray) -> int:
    """Pairs of a token and one that it looks at, itself included, in rows with `begins` `[rows, seq]`."""
    if not begins.size:
        return 0
    begins = begins.copy()
    begins[:, 0] = True
    lengths = np.diff(np.append(np.flatnonzero(begins), begins.size)).astype(np.int64)
    return int((lengths * (lengths + 1) // 2).sum())


def write_examples(parts: Iterable[ExampleTokens], encoder: Encoder, out: Path) -> dict[str, Any]:
    """Write an instruction source as rows of whole examples, best fit first, loss on responses."""
    open_rows: list[PackedRow] = []
    seq_len = encoder.seq_len
    count, size, too_long, shortened, refused = 0, 0, 0, 0, 0
    with _RowWriter(out, encoder.dtype, seq_len, encoder.marks) as writer:
        for part in parts:
            for ids, mask in part.rows:
                writer.write(_fit(ids, mask, open_rows, seq_len))
            count += len(part.rows)
            size += part.bytes
            too_long += part.too_long
            shortened += part.shortened
            refused += part.refused
        writer.write(open_rows)
        _require_rows(len(writer.counts), too_long, seq_len)
    return _write_meta(
        out,
        {
            "format": "instruct",
            "rows": len(writer.counts),
            "seq_len": seq_len,
            "dtype": encoder.dtype,
            "marks": asdict(encoder.marks),
            "tokens": sum(writer.counts),
            "attended": writer.pairs,
            "documents": count,
            "dropped_too_long": too_long,
            "dropped_markers": refused,
            "shortened": shortened,
            "tokens_left_over": 0,
            "bytes": size,
        },
    )


class _RowWriter:
    """Appends packed rows, their masks and counts to a shard's files."""

    def __init__(self, out: Path, dtype: str, seq_len: int, marks: Marks) -> None:
        self.out, self.dtype, self.seq_len, self.marks = out, dtype, seq_len, marks
        self.counts: list[int] = []
        self.pairs = 0

    def __enter__(self) -> "_RowWriter":
        self._tokens = (self.out / "rows.tokens").open("wb")
        self._masks = (self.out / "rows.mask").open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._tokens.close()
        self._masks.close()
        np.save(self.out / "counts.npy", np.array(self.counts, dtype=np.int32))

    def write(self, rows: Iterable[PackedRow]) -> None:
        """After the last example stands an end token: that of its response is learned too."""
        for ids, mask in rows:
            tokens = np.full(self.seq_len + 1, self.marks.pad, dtype=self.dtype)
            masks = np.zeros(self.seq_len + 1, dtype=np.uint8)
            tokens[: len(ids) + 1] = [*ids, self.marks.end]
            masks[: len(ids) + 1] = [*mask, mask[0] & LOSS]  # none where examples bring their own end
            tokens.tofile(self._tokens)
            masks.tofile(self._masks)
            self.counts.append(len(ids))
            self.pairs += _pairs((masks[None, : len(ids)] & BEGIN) > 0)


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


def _require_rows(rows: int, held: int, seq_len: int) -> None:
    if rows == 0:
        raise UserError(
            f"holds too little for one row of seq_len {seq_len} ({held:,} tokens or examples seen); "
            "give it more data or lower seq_len"
        )


def _write_meta(out: Path, meta: dict[str, Any]) -> dict[str, Any]:
    (out / "meta.json").write_text(json.dumps(meta, indent=1))
    return meta
