"""Which row of which source stands where in a stage: a function of one integer.

A stage takes whole rows; the last row of each source in a phase is cut so that the phase's tokens are
exact. Rows of the sources are interleaved so that every beginning of a phase is within one and a half
rows of each source's share of its tokens (within one for up to three sources), and the rows of one
source come in an order that no other source's dose can change. Where all rows are full, everything is in
closed form; a phase that draws on packed rows, which differ in their tokens, is laid out in a table.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from codestage.errors import UserError
from codestage.study.schedule import Phase
from codestage.study.seeds import child


@dataclass(frozen=True)
class RowCounts:
    """What a prepared source holds: `rows` rows; tokens of each, or None where all are full."""

    rows: int
    seq_len: int
    counts: np.ndarray | None = None

    @property
    def tokens(self) -> int:
        return self.rows * self.seq_len if self.counts is None else int(self.counts.sum())


class RowTable(NamedTuple):
    """A range of a stage's rows. All `[n]`."""

    source: np.ndarray
    """int16: index into the plan's `names`."""
    ordinal: np.ndarray
    """int64: the how-manieth row of its source, counted from the arm's first stage on."""
    tokens: np.ndarray
    """int32: tokens counted in this row; less than it holds where a phase ends."""


@lru_cache(maxsize=4096)
def _keys(seed: int) -> tuple[np.uint64, ...]:
    return tuple(np.uint64(child(seed, "feistel", str(i))) for i in range(4))


def permute(seed: int, index: np.ndarray, n: int) -> np.ndarray:
    """A keyed permutation of `range(n)` at `index` `[m]`, without a table.

    A four-round Feistel network on the smallest even number of bits that holds `n`, walked until it
    lands inside (Black and Rogaway 2002, cycle walking).
    """
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = _keys(seed)

    def once(value: np.ndarray) -> np.ndarray:
        left, right = value >> np.uint64(half), value & mask
        for key in keys:
            mixed = (right ^ key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(32))) & mask)
        return (left << np.uint64(half)) | right

    result = once(index.astype(np.uint64))
    while (outside := result >= n).any():
        result[outside] = once(result[outside])
    return result.astype(np.int64)


def row_of(seed: int, source: str, ordinal: np.ndarray, rows: int) -> np.ndarray:
    """Row in the shard of the source's `ordinal`-th draws `[m]`; a new order every epoch."""
    epoch, place = np.divmod(ordinal, rows)
    result = np.empty_like(ordinal)
    for e in np.unique(epoch):
        here = epoch == e
        result[here] = permute(child(seed, "order", source, str(e)), place[here], rows)
    return result


Join = tuple[tuple[int, ...], tuple[int, ...], int, int]
"""(smaller group of sources, larger group, rows of the smaller, rows of both)"""


def joins(counts: Sequence[int]) -> list[Join]:
    """Sources joined two by two, the smallest first (Huffman 1952); the last join first."""
    heap: list[tuple[int, int, tuple[int, ...]]] = [(n, s, (s,)) for s, n in enumerate(counts) if n]
    heapq.heapify(heap)
    made: list[Join] = []
    while len(heap) > 1:
        (n, s, small), (m, t, large) = heapq.heappop(heap), heapq.heappop(heap)
        made.append((small, large, n, n + m))
        heapq.heappush(heap, (n + m, min(s, t), small + large))
    return made[::-1]


def interleave(
    counts: Sequence[int], index: np.ndarray, tree: Sequence[Join] | None = None
) -> np.ndarray:
    """How many rows of each source stand before row `index` `[m]`: `[m, sources]`.

    Rows are parted down the tree of `joins` at the nearest whole count: closed form, never going down,
    and exact at the end. Each level adds half a row of error and passes on its part of the error above.
    """
    result = np.zeros((len(index), len(counts)), dtype=np.int64)
    present = tuple(s for s, n in enumerate(counts) if n)
    tree = joins(counts) if tree is None else tree
    top = tree[0][0] + tree[0][1] if tree else present
    before = {top: index.astype(np.int64)}
    for small, large, part, whole in tree:
        there = before.pop(small + large)
        before[small] = taken = _nearest(there, part, whole)
        before[large] = there - taken
    for sources, rows in before.items():
        if sources:
            result[:, sources[0]] = rows
    return result


def _nearest(there: np.ndarray, part: int, whole: int) -> np.ndarray:
    """`there * part / whole` to the nearest whole number, halves up, for up to 10^11 rows: the product itself
    would not fit 64 bits, so the upper bits of `there` are parted first.
    """
    high, low = there >> 16, there & 0xFFFF
    quotient, rest = np.divmod(high * (2 * part), 2 * whole)
    return (quotient << 16) + ((rest << 16) + low * (2 * part) + whole) // (2 * whole)


def merge(sizes: Mapping[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(source, tokens) `[rows]` of an order in which every source keeps to its share of the tokens.

    `sizes` is the tokens of each source's rows, in their order. The sources are joined two by two as in
    `joins`, by tokens; in a join each row comes when the middle of its tokens is due.
    """
    present = {s: tokens for s, tokens in sizes.items() if len(tokens)}
    laid: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]] = {
        (s,): (np.full(len(t), s, np.int16), t.astype(np.int64)) for s, t in present.items()
    }
    totals = [int(sizes[s].sum()) if s in present else 0 for s in range(max(sizes, default=-1) + 1)]
    for small, large, _, _ in joins(totals)[::-1]:
        (s, t), (u, v) = laid.pop(small), laid.pop(large)
        due = [(tokens.cumsum() - tokens / 2) / tokens.sum() for tokens in (t, v)]
        order = np.argsort(np.concatenate(due), kind="stable")
        laid[small + large] = (np.concatenate([s, u])[order], np.concatenate([t, v])[order])
    return next(iter(laid.values()), (np.empty(0, np.int16), np.empty(0, np.int64)))


class _Table(NamedTuple):
    """A phase laid out row by row. All `[rows]`."""

    source: np.ndarray
    nth: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class _Block:
    """One phase laid out in rows."""

    first: int
    counts: tuple[int, ...]
    base: tuple[int, ...]
    last: tuple[int, ...]
    """Tokens of each source's last row."""
    tree: tuple[Join, ...]
    tokens: int
    """Tokens of all phases before this one."""
    table: _Table | None
    """Where some row is not full."""


class MixturePlan:
    """The rows of one stage of one run, in order. Any range can be asked for alone."""

    def __init__(
        self,
        phases: Sequence[Phase],
        order: Literal["even", "random"],
        rows: Mapping[str, RowCounts],
        *,
        seed: int,
        skip: Mapping[str, int] | None = None,
    ) -> None:
        self.names = list(dict.fromkeys(n for p in phases for n, t in p.by_source.items() if t))
        self.order, self.seed = order, seed
        self._rows = rows
        self.start = {name: (skip or {}).get(name, 0) for name in self.names}
        self._next = dict(self.start)
        self._blocks: list[_Block] = []
        self._cumulative: np.ndarray | None = None
        self.n_rows = self.tokens = 0
        for phase in phases:
            self._add(phase)
        self._firsts = np.array([block.first for block in self._blocks], dtype=np.int64)

    def _add(self, phase: Phase) -> None:
        counts, base, last = [], [], []
        for name in self.names:
            tokens = phase.by_source.get(name, 0)
            n, rest = self._take(name, tokens)
            counts.append(n)
            base.append(self._next[name])
            last.append(rest)
            self._next[name] += n
        tree = tuple(joins(counts))
        packed = any(
            n and self._rows[name].counts is not None for name, n in zip(self.names, counts, strict=True)
        )
        table = self._table(counts, base, last) if packed else None
        self._blocks.append(
            _Block(self.n_rows, tuple(counts), tuple(base), tuple(last), tree, self.tokens, table)
        )
        self.n_rows += sum(counts)
        self.tokens += sum(phase.by_source.get(name, 0) for name in self.names)

    def _table(self, counts: Sequence[int], base: Sequence[int], last: Sequence[int]) -> _Table:
        sizes = {}
        for s, name in enumerate(self.names):
            sizes[s] = self._sizes(name, np.arange(base[s], base[s] + counts[s])).astype(np.int32)
            sizes[s][counts[s] - 1 :] = last[s]
        source, tokens = merge(sizes)
        nth = np.zeros(len(source), np.int64)
        for s, count in enumerate(counts):
            nth[source == s] = np.arange(count)
        return _Table(source, nth, tokens.astype(np.int32))

    def _take(self, name: str, tokens: int) -> tuple[int, int]:
        """Rows needed for `tokens` tokens of a source from where it stands, and the last row's part."""
        held = self._rows[name]
        if tokens == 0:
            return 0, 0
        if held.counts is None:
            n = -(-tokens // held.seq_len)
            return n, tokens - (n - 1) * held.seq_len
        done, n = 0, 0
        while True:  # a stretch of rows at a time: nearly always one is enough
            guess = (tokens - done) // max(1, held.tokens // held.rows) + 2
            size = self._sizes(name, np.arange(self._next[name] + n, self._next[name] + n + guess))
            total = done + np.cumsum(size)
            if total[-1] >= tokens:
                k = int(np.searchsorted(total, tokens))
                return n + k + 1, int(tokens - (total[k] - size[k]))
            done, n = int(total[-1]), n + guess

    def _sizes(self, name: str, ordinals: np.ndarray) -> np.ndarray:
        held = self._rows[name]
        if held.counts is None:
            return np.full(len(ordinals), held.seq_len, dtype=np.int32)
        return held.counts[row_of(self.seed, name, ordinals, held.rows)]

    def rows(self, start: int, stop: int) -> RowTable:
        """Rows `start` to `stop` of the stage."""
        index = np.arange(start, min(stop, self.n_rows), dtype=np.int64)
        if self.order == "random":
            index = permute(child(self.seed, "random-order"), index, self.n_rows)
        source = np.zeros(len(index), dtype=np.int16)
        ordinal = np.zeros(len(index), dtype=np.int64)
        tokens = np.zeros(len(index), dtype=np.int32)
        block_of = np.searchsorted(self._firsts, index, side="right") - 1
        for b in np.unique(block_of):
            here, block = block_of == b, self._blocks[b]
            place = index[here] - block.first
            if block.table is not None:
                source[here] = which = block.table.source[place]
                ordinal[here] = np.array(block.base)[which] + block.table.nth[place]
                tokens[here] = block.table.tokens[place]
                continue
            before = interleave(block.counts, place, block.tree)
            after = interleave(block.counts, place + 1, block.tree)
            source[here] = which = np.argmax(after - before, axis=1)
            nth = before[np.arange(len(place)), which]
            ordinal[here] = np.array(block.base)[which] + nth
            final = nth == np.array(block.counts)[which] - 1
            lengths = np.array([self._rows[name].seq_len for name in self.names])
            tokens[here] = np.where(final, np.array(block.last)[which], lengths[which])
        return RowTable(source, ordinal, tokens)

    def tokens_before(self, row: int) -> int:
        """Tokens in the rows before `row`: in closed form where all rows are full and in order."""
        return int(self.tokens_at(np.array([row]))[0])

    def tokens_at(self, rows: np.ndarray) -> np.ndarray:
        """`tokens_before` of each of `rows` `[m]`: `[m]` int64."""
        if self.order == "random" or any(self._rows[n].counts is not None for n in self.names):
            if self._cumulative is None:
                per_row = self.rows(0, self.n_rows).tokens
                self._cumulative = np.concatenate([[0], np.cumsum(per_row, dtype=np.int64)])
            return self._cumulative[np.minimum(rows, self.n_rows)]
        total = np.full(len(rows), self.tokens, dtype=np.int64)
        block_of = np.searchsorted(self._firsts, rows, side="right") - 1
        lengths = np.array([self._rows[name].seq_len for name in self.names])
        inside = rows < self.n_rows
        for b in np.unique(block_of[inside]):
            here, block = (block_of == b) & inside, self._blocks[b]
            before = interleave(block.counts, rows[here] - block.first, block.tree)
            cut = np.where((before == block.counts) & (before > 0), lengths - np.array(block.last), 0)
            total[here] = block.tokens + (before * lengths - cut).sum(axis=1)
        return total

    def place(self, row: int) -> int:
        """Where the stage's row stands in the order of its phases: elsewhere only in random order."""
        if self.order == "even":
            return row
        return int(permute(child(self.seed, "random-order"), np.array([row]), self.n_rows)[0])

    def phase_rows(self) -> list[int]:
        """Rows of each phase."""
        return [sum(block.counts) for block in self._blocks]

    def used(self) -> dict[str, int]:
        """Rows of each source used up to the end of this stage: the next stage's `skip`."""
        return dict(self._next)

    def epochs(self) -> dict[str, float]:
        """Passes over each source in this stage."""
        return {n: (self._next[n] - self.start[n]) / self._rows[n].rows for n in self.names}


def check_supply(
    used: Mapping[str, int], rows: Mapping[str, RowCounts], epochs: Mapping[str, float]
) -> None:
    """Refuse an arm that needs more of a source than its `epochs` allow.

    Raises:
        UserError: naming the source, what it must give, what it has, and mends that work.
    """
    for name, need in used.items():
        held = rows[name]
        most = int(held.rows * Fraction(str(epochs[name])))
        if need > most:
            enough = -(-need * 100 // held.rows) / 100
            raise UserError(
                f"source {name!r} must give {need:,} rows of {held.seq_len} tokens but holds "
                f"{held.rows:,} ({held.tokens:,} tokens), so at most {most:,} "
                f"at epochs: {epochs[name]:.12g}. Do one of: set its epochs to {enough:.12g} or more; "
                f"lower the stage's tokens or its share; give {name!r} more data"
            )
