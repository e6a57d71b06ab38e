"""Prepared sources: rows of token ids on disk, memory-mapped.

A folder with `meta.json`, `rows.tokens` (`[rows, seq_len + 1]`, uint16 or uint32) and, for instruction
data, `rows.mask` (uint8: `LOSS` where a token is predicted with loss, `BEGIN` where an example begins) and
`counts.npy` (tokens a row). Documents begin with the begin token and end with the end token; where these
are one, it stands once between two of them, and is what the last token before it predicts.
"""

import json
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from tokenizers import Encoding, Tokenizer

from codestage.data.instruct import PLAIN, Piece, Template
from codestage.data.mixture import RowCounts
from codestage.data.sources import Document, Example
from codestage.data.tokenizer import OWN, Marks
from codestage.errors import UserError

LOSS, BEGIN = 1, 2
"""Bits of a mask."""
CHUNK = 500
"""Documents tokenised at a time, by all the tokenizer's threads."""
PackedRow = tuple[list[int], list[int]]
"""Token ids, and the mask of each."""
T = TypeVar("T")
OPEN_ROWS = 64
"""Rows kept open while packing examples: more would waste less padding and look longer."""


class Shard:
    """A prepared source, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        self.rows, self.seq_len = self.meta["rows"], self.meta["seq_len"]
        self.marks = Marks(**self.meta["marks"])
        shape = (self.rows, self.seq_len + 1)
        self.tokens = np.memmap(folder / "rows.tokens", self.meta["dtype"], "r", shape=shape)
        self.mask: np.ndarray | None = None
        counts = None
        if self.meta["format"] == "instruct":
            self.mask = np.memmap(folder / "rows.mask", np.uint8, "r", shape=shape)
            counts = np.load(folder / "counts.npy")
        self.counts = RowCounts(self.rows, self.seq_len, counts)


def prepare_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, *, seq_len: int, out: Path, marks: Marks = OWN
) -> dict[str, Any]:
    """Write a document source as full rows cut from one stream; the unfilled last row is left out."""
    dtype = _dtype(tokenizer)
    apart = marks.begin != marks.end
    rows, count, size, held = 0, 0, 0, np.empty(0, dtype=dtype)
    pairs = 0
    with (out / "rows.tokens").open("wb") as file:
        for chunk, encoded in _encoded(documents, tokenizer, lambda d: [d.text]):
            flat = array("H" if dtype == "uint16" else "I")  # fills twice as fast as NumPy from lists
            for encoding in encoded:
                flat.append(marks.begin)
                flat.fromlist(encoding.ids)
                if apart:
                    flat.append(marks.end)
            count += len(chunk)
            size += sum(len(d.text.encode()) for d in chunk)
            stream = np.concatenate([held, np.frombuffer(flat, dtype=dtype)])
            written, held = _write_rows(stream, seq_len, file)
            rows += len(written)
            pairs += _pairs(written[:, :-1] == marks.begin)
        if not apart:
            written, held = _write_rows(np.append(held, np.array([marks.end], dtype)), seq_len, file)
            rows += len(written)
            pairs += _pairs(written[:, :-1] == marks.begin)
    _require_rows(rows, len(held), seq_len)
    return _write_meta(
        out,
        {
            "format": "document",
            "rows": rows,
            "seq_len": seq_len,
            "dtype": dtype,
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


def prepare_examples(
    examples: Iterable[Example],
    tokenizer: Tokenizer,
    *,
    seq_len: int,
    out: Path,
    marks: Marks = OWN,
    template: Template = PLAIN,
) -> dict[str, Any]:
    """Write an instruction source as rows of whole examples, best fit first, loss on responses.

    A conversation that is too long for a row loses its last exchanges; one whose first does not fit is
    left out, and so is one that holds the chat template's own special tokens as text. All are counted.
    """
    open_rows: list[PackedRow] = []
    told = _Teller(template)
    tokenizer.encode_special_tokens = not template.marked
    count, dropped, shortened, size = 0, 0, 0, 0
    with _RowWriter(out, _dtype(tokenizer), seq_len, marks) as writer:
        for chunk, encoded in _encoded(told.known(examples), tokenizer, told.texts):
            ids = iter(encoded)
            for example in chunk:
                exchanges = [
                    [(next(ids).ids, learned) for _, learned in pieces] for pieces in told.pieces()
                ]
                kept, row = _join(exchanges, marks, seq_len, marked=template.marked)
                size += sum(len((p + r).encode()) for p, r in example.exchanges[:kept])
                dropped += kept == 0
                shortened += 0 < kept < len(exchanges)
                if kept:
                    count += 1
                    writer.write(_fit(*row, open_rows, seq_len))
        writer.write(open_rows)
        _require_rows(len(writer.counts), dropped, seq_len)
    return _write_meta(
        out,
        {
            "format": "instruct",
            "rows": len(writer.counts),
            "seq_len": seq_len,
            "dtype": writer.dtype,
            "marks": asdict(marks),
            "tokens": sum(writer.counts),
            "attended": writer.pairs,
            "documents": count,
            "dropped_too_long": dropped,
            "dropped_markers": told.refused,
            "shortened": shortened,
            "tokens_left_over": 0,
            "bytes": size,
        },
    )


class _Teller:
    """Puts examples into a template's words, once each."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.refused = 0
        self._told: deque[list[list[Piece]]] = deque()

    def known(self, examples: Iterable[Example]) -> Iterator[Example]:
        """The examples without those that hold the template's special tokens as text."""
        markers = getattr(self.template, "markers", ())
        for example in examples:
            if any(marker in example.content for marker in markers):
                self.refused += 1
            else:
                yield example

    def texts(self, example: Example) -> list[str]:
        told = self.template.told(example.exchanges, system=example.system, rationale=example.rationale)
        self._told.append(told)
        return [text for pieces in told for text, _ in pieces]

    def pieces(self) -> list[list[Piece]]:
        """Those of the example whose `texts` were asked for longest ago."""
        return self._told.popleft()


def _join(
    exchanges: list[list[tuple[list[int], bool]]], marks: Marks, seq_len: int, *, marked: bool
) -> tuple[int, PackedRow]:
    """(exchanges that fit into a row, their tokens and masks)."""
    apart = marks.begin != marks.end
    ids: list[int] = [] if marked else [marks.begin]
    mask: list[int] = [] if marked else [LOSS * (not apart)]
    close = [marks.end] if apart and not marked else []
    kept = 0
    for pieces in exchanges:
        if len(ids) + sum(len(part) for part, _ in pieces) + len(close) > seq_len:
            break
        for part, learned in pieces:
            ids += part
            mask += [LOSS * learned] * len(part)
        kept += 1
    mask[:1] = [m | BEGIN for m in mask[:1]]
    return kept, (ids + close, mask + [LOSS] * len(close))


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


def _encoded(
    items: Iterable[T], tokenizer: Tokenizer, texts: Callable[[T], list[str]]
) -> Iterator[tuple[list[T], list[Encoding]]]:
    """Chunks with the encodings of their texts; the next one is encoded while one is worked on."""

    def encode(chunk: list[T]) -> list[Encoding]:
        found: list[Encoding] = tokenizer.encode_batch_fast(
            [t for item in chunk for t in texts(item)], add_special_tokens=False
        )
        return found

    with ThreadPoolExecutor(1) as pool:
        waiting: deque[tuple[list[T], Future[list[Encoding]]]] = deque()
        for chunk in _chunks(items, CHUNK):
            waiting.append((chunk, pool.submit(encode, chunk)))
            if len(waiting) > 1:
                done, encoded = waiting.popleft()
                yield done, encoded.result()
        for done, encoded in waiting:
            yield done, encoded.result()


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
