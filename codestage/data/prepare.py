"""Documents or examples to rows of tokens: shuffled once, tokenised in batches, cut or packed."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from codestage.data import instruct
from codestage.data.shards import END_OF_TEXT, PAD, ShardMeta, append, write_meta
from codestage.data.sources import Document, Example
from codestage.data.tokenizer import Tokenizer
from codestage.errors import UserError

Record = TypeVar("Record", Document, Example)
Item = TypeVar("Item")
TEXTS_AT_A_TIME = 2000


@dataclass(frozen=True)
class _Target:
    """Where rows go, and what `meta.json` needs beside what is counted."""

    out: Path
    tokenizer: Tokenizer
    seq_len: int
    domain: str

    @property
    def token_type(self) -> str:
        return "uint16" if self.tokenizer.vocab_size <= 1 << 16 else "uint32"

    def meta(self, **counted: int) -> ShardMeta:
        meta = ShardMeta(
            domain=self.domain,
            seq_len=self.seq_len,
            vocabulary=self.tokenizer.digest,
            token_type=self.token_type,
            **counted,
        )
        write_meta(self.out, meta)
        return meta


def prepare(
    records: Sequence[Document] | Sequence[Example],
    *,
    out: Path,
    tokenizer: Tokenizer,
    seq_len: int,
    domain: str,
    seed: int = 0,
) -> ShardMeta:
    """Write the records as rows of `seq_len` + 1 tokens into the new or empty folder `out`.

    Documents form one stream that is cut every `seq_len` tokens; what is left over at its end fills
    no row and is counted as dropped tokens. Examples stay whole: they are packed into rows, and one
    that is longer than a row is dropped and counted. Order depends on the texts and `seed`
    alone, not on files. Raises UserError if no row can be filled, RunError if the disk is full.
    """
    target = _Target(out, tokenizer, seq_len, domain)
    out.mkdir(parents=True, exist_ok=True)
    examples = [record for record in records if isinstance(record, Example)]
    if examples:
        assert len(examples) == len(records), "documents and examples do not mix in a source"
        return _prepare_examples(_shuffled(examples, seed), target)
    documents = [record for record in records if isinstance(record, Document)]
    return _prepare_documents(_shuffled(documents, seed), target)


def _shuffled(records: list[Record], seed: int) -> list[Record]:
    key = seed.to_bytes(16, "little", signed=True)

    def place(record: Record) -> bytes:
        return hashlib.blake2b(record.text.encode(), digest_size=16, key=key).digest()

    return sorted(records, key=place)


def _prepare_documents(documents: Sequence[Document], target: _Target) -> ShardMeta:
    row, rows, stream_tokens, longest = target.seq_len + 1, 0, 0, 0
    left = np.zeros(0, target.token_type)
    for texts in _some([document.text for document in documents]):
        ids = target.tokenizer.encode_batch(texts)
        longest = max(longest, *map(len, ids))
        left = np.concatenate([left, *(_started(one, left.dtype) for one in ids)])
        stream_tokens += sum(map(len, ids)) + len(ids)
        rows += _cut(left, target)
        left = left[(len(left) - 1) // target.seq_len * target.seq_len :]
    last = np.append(left, left.dtype.type(END_OF_TEXT))  # the last document's end is predicted too
    rows += _cut(last, target)
    if rows == 0:
        raise UserError(
            f"a source of domain {target.domain!r} holds {stream_tokens:,} tokens in "
            f"{len(documents):,} documents, which fill no row of {target.seq_len:,}. Add documents "
            f"to it, or set seq_len to {max(1, stream_tokens):,} or less."
        )
    size = sum(len(document.text.encode()) for document in documents)
    return target.meta(
        rows=rows,
        tokens=rows * (row - 1),
        documents=len(documents),
        dropped=0,
        dropped_tokens=stream_tokens - rows * (row - 1),
        bytes=size,
        longest=longest,
    )


def _started(ids: list[int], dtype: np.dtype) -> np.ndarray:
    return np.array([END_OF_TEXT, *ids], dtype)


def _cut(stream: np.ndarray, target: _Target) -> int:
    """Write every full row of the stream; a row's last token is also the next row's first."""
    rows = max(0, (len(stream) - 1) // target.seq_len)
    if rows:
        windows = np.lib.stride_tricks.sliding_window_view(stream, target.seq_len + 1)
        append(target.out / "rows.tokens", windows[:: target.seq_len][:rows])
    return rows


def _prepare_examples(examples: Sequence[Example], target: _Target) -> ShardMeta:
    encoded = list(_encoded(examples, target.tokenizer))
    lengths = np.array([len(prompt) + len(answer) + 1 for prompt, answer in encoded])
    fits = np.flatnonzero(lengths <= target.seq_len)
    if not len(fits):
        raise UserError(
            f"a source of domain {target.domain!r}: none of its {len(examples):,} examples fits in "
            f"a row of {target.seq_len:,} tokens. Set seq_len to {lengths.min():,} or more "
            f"({lengths.max():,} holds all of them)."
        )
    packed = pack(lengths[fits], target.seq_len)
    counts = np.zeros(len(packed), np.uint32)
    for first in range(0, len(packed), TEXTS_AT_A_TIME):
        some = packed[first : first + TEXTS_AT_A_TIME]
        tokens = np.full((len(some), target.seq_len + 1), PAD, target.token_type)
        mask = np.zeros(tokens.shape, np.uint8)
        for row, members in enumerate(some):
            at = 0
            for prompt, answer in (encoded[fits[member]] for member in members):
                end = at + 1 + len(prompt) + len(answer)
                tokens[row, at:end] = [END_OF_TEXT, *prompt, *answer]
                mask[row, end - len(answer) : end + 1] = 1  # the answer, and the end after it
                at = end
            tokens[row, at] = END_OF_TEXT
            counts[first + row] = at
        append(target.out / "rows.tokens", tokens)
        append(target.out / "rows.mask", mask)
    append(target.out / "rows.counts", counts)
    kept = [examples[number] for number in fits.tolist()]
    return target.meta(
        rows=len(packed),
        tokens=int(counts.sum()),
        documents=len(kept),
        dropped=len(examples) - len(kept),
        dropped_tokens=int(lengths.sum() - lengths[fits].sum()),
        bytes=sum(
            len(prompt.encode()) + len(answer.encode()) for prompt, answer in map(told, kept)
        ),
        longest=int(lengths.max()) - 1,
    )


def told(example: Example) -> tuple[str, str]:
    """The example as the template tells it: (before the response, response)."""
    before = instruct.prompt(example.prompt, cot=example.rationale is not None)
    return before, instruct.response(example.response, rationale=example.rationale)


def _encoded(
    examples: Sequence[Example], tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[int]]]:
    for some in _some([told(example) for example in examples]):
        prompts = tokenizer.encode_batch([prompt for prompt, _ in some])
        answers = tokenizer.encode_batch([answer for _, answer in some])
        yield from zip(prompts, answers, strict=True)


def _some(items: list[Item]) -> Iterator[list[Item]]:
    for first in range(0, len(items), TEXTS_AT_A_TIME):
        yield items[first : first + TEXTS_AT_A_TIME]


def pack(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Best-fit decreasing: each example, longest first, into the fullest row that still holds it.

    `lengths` int `[n]`, each at most `capacity`. Returns the examples' numbers by row. Rows are
    found by a bit set of the free space that occurs, so the time is linear in n for rows of a
    given length.
    """
    rows: list[list[int]] = []
    by_space: list[list[int]] = [[] for _ in range(capacity + 1)]
    occurs = 0  # bit s is set if some row has s tokens free
    for number in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[number])
        roomy = occurs >> length
        if roomy:
            space = length + (roomy & -roomy).bit_length() - 1
            row = by_space[space].pop()
            if not by_space[space]:
                occurs ^= 1 << space
        else:
            row, space = len(rows), capacity
            rows.append([])
        rows[row].append(number)
        by_space[space - length].append(row)
        occurs |= 1 << (space - length)
    return rows
