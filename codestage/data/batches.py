"""Batches of a stage: a plan of rows, and the shards that hold them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from codestage.data.mixture import MixturePlan, row_of
from codestage.data.shards import END, PAD, Shard

IGNORE = -100


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
        table = self.plan.rows(start + first, start + last)
        n, length = last - first, self.seq_len
        window = np.full((n, length + 1), PAD, dtype=np.int32)
        loss = np.zeros((n, length + 1), dtype=bool)
        sources = np.full(n, -1, dtype=np.int16)
        sources[: len(table.source)] = table.source
        counted = np.zeros(n, dtype=np.int32)
        counted[: len(table.tokens)] = table.tokens
        for s, shard in enumerate(self._shards):
            mine = np.flatnonzero(sources == s)
            if len(mine):
                name = self.names[s]
                row = row_of(self.plan.seed, name, table.ordinal[mine], shard.rows)
                window[mine] = shard.tokens[row]
                loss[mine] = True if shard.mask is None else shard.mask[row].astype(bool)
        inside = np.arange(length) < counted[:, None]
        tokens = np.where(inside, window[:, :-1], PAD)
        labels = np.where(inside & loss[:, 1:], window[:, 1:], IGNORE)
        documents, positions = split_documents(tokens, inside)
        return Batch(tokens, labels.astype(np.int32), documents, positions, sources)

    def by_source(self, start: int = 0, stop: int | None = None) -> dict[str, int]:
        """Tokens of each source in batches `start` to `stop`, counted from the batches themselves."""
        total = dict.fromkeys(self.names, 0)
        for i in range(start, self.n_batches if stop is None else stop):
            batch = self[i]
            held = (batch.documents >= 0).sum(axis=1)
            for s, name in enumerate(self.names):
                total[name] += int(held[batch.sources == s].sum())
        return total


def split_documents(tokens: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Document numbers (padding -1) and positions, both `[rows, seq_len]`, from the end tokens."""
    starts = tokens == END
    documents = np.cumsum(starts, axis=1, dtype=np.int32) - starts[:, :1]
    index = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    begin = np.maximum.accumulate(np.where(starts, index, 0), axis=1)
    positions = (index - begin).astype(np.int32)
    documents = np.where(inside, documents, -1).astype(np.int32)
    return documents, np.where(inside, positions, 0)
