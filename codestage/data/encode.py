"""From documents and examples to token ids, a chunk at a time: the same on any thread or machine."""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tokenizers import Tokenizer

from codestage.data.instruct import PLAIN, Template
from codestage.data.sources import Document, Example
from codestage.data.tokenizer import OWN, Marks

CHUNK, AHEAD = 500, 2
"""Documents tokenised at a time by all the tokenizer's threads, and chunks under way at once: while the ids
of one are read, the next is tokenised."""
LOSS, BEGIN = 1, 2
"""Bits of a mask: a token that is predicted with loss, one with which an example begins."""
PackedRow = tuple[list[int], list[int]]
"""Token ids, and the mask of each."""
Ids = list[int]
T = TypeVar("T")
R = TypeVar("R")


class DocumentTokens(NamedTuple):
    """A chunk of documents as one stream, marks included."""

    tokens: np.ndarray
    documents: int
    bytes: int


class ExampleTokens(NamedTuple):
    """A chunk of examples, each with its mask, and what became of the others."""

    rows: list[PackedRow]
    bytes: int
    too_long: int
    shortened: int
    refused: int


@dataclass(frozen=True)
class Encoder:
    """A study's tokenizer with its marks and its way to write instructions."""

    tokenizer: Tokenizer
    seq_len: int
    marks: Marks = OWN
    template: Template = PLAIN

    @property
    def dtype(self) -> str:
        return "uint16" if self.tokenizer.get_vocab_size() <= 1 << 16 else "uint32"

    def documents(self, chunk: Sequence[Document]) -> DocumentTokens:
        """Special tokens in a document's text are read as text."""
        apart = self.marks.begin != self.marks.end
        flat = array("H" if self.dtype == "uint16" else "I")  # fills twice as fast as NumPy from lists
        for encoding in self._encode([d.text for d in chunk], marked=False):
            flat.append(self.marks.begin)
            flat.fromlist(encoding.ids)
            if apart:
                flat.append(self.marks.end)
        size = sum(len(d.text.encode()) for d in chunk)
        return DocumentTokens(np.frombuffer(flat, dtype=self.dtype), len(chunk), size)

    def examples(self, chunk: Sequence[Example]) -> ExampleTokens:
        """A conversation that is too long for a row loses its last exchanges; one whose first does not
        fit is left out, and so is one that holds the template's own special tokens as text.
        """
        markers = getattr(self.template, "markers", ())
        known = [e for e in chunk if not any(marker in e.content for marker in markers)]
        told = [self.template.told(e.exchanges, system=e.system, rationale=e.rationale) for e in known]
        texts = [text for exchanges in told for pieces in exchanges for text, _ in pieces]
        ids = iter(self._encode(texts, marked=self.template.marked))
        rows, size, too_long, shortened = [], 0, 0, 0
        for example, exchanges in zip(known, told, strict=True):
            kept, row = self._join([[(next(ids).ids, learned) for _, learned in p] for p in exchanges])
            size += sum(len((asked + answer).encode()) for asked, answer in example.exchanges[:kept])
            too_long += kept == 0
            shortened += 0 < kept < len(exchanges)
            rows += [row] if kept else []
        return ExampleTokens(rows, size, too_long, shortened, len(chunk) - len(known))

    def _encode(self, texts: list[str], *, marked: bool) -> list[Any]:
        self.tokenizer.encode_special_tokens = not marked
        found: list[Any] = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return found

    def _join(self, exchanges: list[list[tuple[Ids, bool]]]) -> tuple[int, PackedRow]:
        """(exchanges that fit into a row, their tokens and masks)."""
        apart, marked = self.marks.begin != self.marks.end, self.template.marked
        ids: Ids = [] if marked else [self.marks.begin]
        mask = [] if marked else [LOSS * (not apart)]
        close = [self.marks.end] if apart and not marked else []
        kept = 0
        for pieces in exchanges:
            if len(ids) + sum(len(part) for part, _ in pieces) + len(close) > self.seq_len:
                break
            for part, learned in pieces:
                ids += part
                mask += [LOSS * learned] * len(part)
            kept += 1
        mask[:1] = [m | BEGIN for m in mask[:1]]
        return kept, (ids + close, mask + [LOSS] * len(close))


def ahead(function: Callable[[list[T]], R], items: Iterable[T]) -> Iterator[R]:
    """`function` of each chunk of the items, in order; the next chunks are worked on meanwhile."""
    stream = iter(items)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        while chunk := list(islice(stream, CHUNK)):
            waiting.append(pool.submit(function, chunk))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
