"""Batches of a stage: the position in the data is one integer, and each batch stands alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from codestage.data.mixture import MixturePlan, RowTable
from codestage.data.shards import END_OF_TEXT, PAD, Shard

NO_LOSS = -100
ROWS_AT_A_TIME = (
    8192  # rows whose places are worked out together, to spread the cost of numpy calls
)


@dataclass(frozen=True)
class Batch:
    """Rows of a step. Every batch has the same shape; rows that are missing are padding."""

    tokens: np.ndarray
    """int32 `[rows, seq_len]`: inputs; `<|pad|>` where there is none."""
    labels: np.ndarray
    """int32 `[rows, seq_len]`: the token to predict at each place; -100 = no loss."""
    documents: np.ndarray
    """int32 `[rows, seq_len]`: number of the document within the row; padding -1."""
    positions: np.ndarray
    """int32 `[rows, seq_len]`: place within the document, from 0; padding 0."""
    sources: np.ndarray
    """int16 `[rows]`: number of the row's source; padding row -1."""


class Batches:
    """The batches of a stage: `batches[i]` depends on i alone, not on what was read before.

    `sources` gives the open shard of every source of the plan.
    """

    def __init__(
        self, plan: MixturePlan, sources: Mapping[str, Shard], *, rows_per_batch: int
    ) -> None:
        self.plan, self.rows_per_batch = plan, rows_per_batch
        self._shards = [sources[name] for name in plan.sources]
        self.n_batches = -(-plan.n_rows // rows_per_batch)
        self._block = max(1, ROWS_AT_A_TIME // rows_per_batch)  # batches
        self._table: tuple[int, RowTable, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.n_batches

    def tokens_before(self, batch: int) -> int:
        """Tokens of the batches before `batch`, padding excluded: exact, without reading them."""
        return self.plan.tokens_before(batch * self.rows_per_batch)

    def __getitem__(self, batch: int) -> Batch:
        if not 0 <= batch < self.n_batches:
            raise IndexError(f"batch {batch} of {self.n_batches}")
        number, within = divmod(batch, self._block)
        if self._table is None or self._table[0] != number:
            self._table = (number, *self._located(number))
        _, table, shard_row = self._table
        here = slice(within * self.rows_per_batch, (within + 1) * self.rows_per_batch)
        return self._gather(table.source[here], shard_row[here], table.tokens[here])

    def by_source(self, start: int = 0, stop: int | None = None) -> dict[str, int]:
        """Tokens of each source in batches `start` to `stop`, counted in the batches themselves."""
        total = np.zeros(len(self.plan.sources), np.int64)
        for number in range(start, self.n_batches if stop is None else stop):
            batch = self[number]
            tokens = (batch.documents >= 0).sum(axis=1)
            real = batch.sources >= 0
            np.add.at(total, batch.sources[real], tokens[real])
        return dict(zip(self.plan.sources, total.tolist(), strict=True))

    def _located(self, block: int) -> tuple[RowTable, np.ndarray]:
        rows = self._block * self.rows_per_batch
        table = self.plan.rows(block * rows, (block + 1) * rows)
        shard_row = np.empty(len(table.source), np.int64)
        for source in np.unique(table.source).tolist():
            where = table.source == source
            name = self.plan.sources[source]
            shard_row[where] = self.plan.shard_rows(name, table.ordinal[where])
        return table, shard_row

    def _gather(self, source: np.ndarray, shard_row: np.ndarray, tokens: np.ndarray) -> Batch:
        """Rows `shard_row` `[n]` of their sources, the first `tokens` `[n]` places of each."""
        shape = (self.rows_per_batch, self.plan.seq_len)
        inputs = np.full(shape, PAD, np.int32)
        labels = np.full(shape, NO_LOSS, np.int32)
        sources = np.full(self.rows_per_batch, -1, np.int16)
        sources[: len(source)] = source
        length = np.zeros(self.rows_per_batch, np.int64)
        length[: len(source)] = tokens
        for number in np.unique(source).tolist():
            shard, where = self._shards[number], np.flatnonzero(source == number)
            taken = shard.tokens[shard_row[where]]
            inputs[where], labels[where] = taken[:, :-1], taken[:, 1:]
            if shard.mask is not None:
                answered = shard.mask[shard_row[where]][:, 1:] != 0
                labels[where] = np.where(answered, labels[where], NO_LOSS)
        place = np.arange(shape[1], dtype=np.int32)
        starts = inputs == END_OF_TEXT
        documents = np.cumsum(starts, axis=1, dtype=np.int32)
        documents -= documents[:, :1].copy()  # a row may begin within a document: that is number 0
        positions = place - np.maximum.accumulate(np.where(starts, place, 0), axis=1)
        if int(length.min()) < shape[1]:
            for row in np.flatnonzero(length < shape[1]).tolist():
                rest = slice(int(length[row]), None)
                inputs[row, rest], labels[row, rest] = PAD, NO_LOSS
                documents[row, rest], positions[row, rest] = -1, 0
        return Batch(inputs, labels, documents, positions, sources)
