"""Batches of a stage: a plan of rows, and the shards that hold them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from codestage.data.encode import BEGIN, LOSS
from codestage.data.mixture import MixturePlan, row_of
from codestage.data.shards import Shard

IGNORE = -100
CHUNK = 4096
"""Rows whose places are worked out at once."""


@dataclass(frozen=True)
class Batch:
    """One optimiser step's rows; every batch of a stage has the same shape."""

    tokens: np.ndarray
    """`[rows, seq_len]` int32 inputs."""
    labels: np.ndarray
    """`[rows, seq_len]` int32, already shifted; -100 = no loss."""
    documents: np.ndarray
    """`[rows, seq_len]` int32, number of the document within the row; padding -1."""
    positions: np.ndarray
    """`[rows, seq_len]` int32, from 0 in each document."""
    sources: np.ndarray
    """`[rows]` int16 index into the plan's names; -1 = a row of padding."""


class Batches:
    """All batches of one stage of one run. `batches[i]` needs no other batch."""

    def __init__(self, plan: MixturePlan, sources: Mapping[str, Shard], *, rows_per_batch: int) -> None:
        self.plan = plan
        self.names = plan.names
        self.rows_per_batch = rows_per_batch
        self._shards = [sources[name] for name in plan.names]
        self.seq_len = self._shards[0].seq_len
        self.n_batches = -(-plan.n_rows // rows_per_batch)
        self._chunk: tuple[int, _Rows] | None = None

    @property
    def total_tokens(self) -> int:
        return self.plan.tokens

    def tokens_before(self, batch: int) -> int:
        """Tokens in the batches before `batch`, padding excluded."""
        return self.plan.tokens_before(batch * self.rows_per_batch)

    def __getitem__(self, batch: int) -> Batch:
        return self.part(batch, 0, 1)

    def part(self, batch: int, rank: int, world: int) -> Batch:
        """The rows of a batch that fall to one of `world` ranks: all parts together are the batch.

        No rank makes another's rows, and the number of ranks changes no content.
        """
        if not 0 <= batch < self.n_batches:
            raise IndexError(batch)
        first, last = (self.rows_per_batch * r // world for r in (rank, rank + 1))
        start = batch * self.rows_per_batch
        return self._make(self._rows(start + first, start + last), last - first)

    def _rows(self, start: int, stop: int) -> "_Rows":
        """Where rows `start` to `stop` of the stage lie, looked up a stretch of rows at a time."""
        at = start // CHUNK
        if self._chunk is None or self._chunk[0] != at:
            self._chunk = (at, self._look_up(at * CHUNK, (at + 1) * CHUNK))
        rows = self._chunk[1]
        low, high = start - at * CHUNK, stop - at * CHUNK
        if high > CHUNK:
            rows = self._look_up(start, stop)
            low, high = 0, stop - start
        return _Rows(rows.source[low:high], rows.row[low:high], rows.tokens[low:high])

    def _look_up(self, start: int, stop: int) -> "_Rows":
        table = self.plan.rows(start, stop)
        row = np.zeros(len(table.source), dtype=np.int64)
        for s, shard in enumerate(self._shards):
            mine = table.source == s
            row[mine] = row_of(self.plan.seed, self.names[s], table.ordinal[mine], shard.rows)
        return _Rows(table.source, row, table.tokens)

    def _make(self, rows: "_Rows", n: int) -> Batch:
        """`n` rows, of which those that `rows` lacks are padding."""
        length = self.seq_len
        window = np.empty((n, length + 1), dtype=np.int32)
        sources = np.full(n, -1, dtype=np.int16)
        counted = np.zeros(n, dtype=np.int32)
        sources[: len(rows.source)] = rows.source
        counted[: len(rows.tokens)] = rows.tokens
        marks = self._shards[0].marks
        masks: list[tuple[np.ndarray, np.ndarray]] = []
        for s, shard in enumerate(self._shards):
            mine = np.flatnonzero(rows.source == s)
            if len(mine):
                window[mine] = shard.tokens[rows.row[mine]]
                if shard.mask is not None:
                    masks.append((mine, shard.mask[rows.row[mine]]))
        labels = window[:, 1:].copy()
        tokens = window[:, :-1]
        begins = tokens == marks.begin
        for mine, mask in masks:
            labels[mine] = np.where(mask[:, 1:] & LOSS, labels[mine], IGNORE)
            begins[mine] = mask[:, :-1] & BEGIN
        short = np.flatnonzero(counted < length)
        if len(short):
            outside = np.arange(length) >= counted[short, None]
            tokens[short] = np.where(outside, marks.pad, tokens[short])
            labels[short] = np.where(outside, IGNORE, labels[short])
        documents, positions = split_documents(begins, counted)
        return Batch(tokens, labels, documents, positions, sources)

    def by_source(self, start: int = 0, stop: int | None = None) -> dict[str, int]:
        """Tokens of each source in batches `start` to `stop`, counted from the batches themselves."""
        total = dict.fromkeys(self.names, 0)
        for i in range(start, self.n_batches if stop is None else stop):
            batch = self[i]
            held = (batch.documents >= 0).sum(axis=1)
            for s, name in enumerate(self.names):
                total[name] += int(held[batch.sources == s].sum())
        return total


@dataclass(frozen=True)
class Validation:
    """Batches of each source that nothing is trained on, and how often a stage looks at them."""

    batches: Mapping[str, Batches]
    times: int


class _Rows(NamedTuple):
    """A stretch of rows: source number, row in its shard, tokens counted. All `[n]`."""

    source: np.ndarray
    row: np.ndarray
    tokens: np.ndarray


def split_documents(begins: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Document numbers (padding -1) and positions, both `[rows, seq_len]`, from where documents begin.

    `counted` `[rows]`: the tokens of each row that are no padding. Written as runs, since documents
    are long: a tenth of the time of running sums.
    """
    rows, length = begins.shape
    begins[:, 0] = True
    at = np.flatnonzero(begins)
    row, column = np.divmod(at, length)
    lengths = np.diff(np.append(at, rows * length))
    first = np.searchsorted(row, np.arange(rows))
    number = np.arange(len(at)) - first[row]
    documents = np.repeat(number.astype(np.int32), lengths).reshape(rows, length)
    started = np.repeat(column.astype(np.int32), lengths).reshape(rows, length)
    positions = np.arange(length, dtype=np.int32) - started
    short = np.flatnonzero(counted < length)
    if len(short):
        outside = np.arange(length) >= counted[short, None]
        documents[short] = np.where(outside, -1, documents[short])
        positions[short] = np.where(outside, 0, positions[short])
    return documents, positions
