"""A stage's mixture as an order of rows: exact doses, any range alone, nothing stored per row.

Place -> phase -> (source, number of the row in the source's own order) -> row of the shard. The
first step is in `interleave`, the last a keyed permutation (`permute`), a new one each epoch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from codestage.data.interleave import FullRows, ListedRows, Rows
from codestage.data.permute import permute, unpermute
from codestage.data.shards import RowCounts
from codestage.errors import UserError

if TYPE_CHECKING:
    from codestage.study.schedule import Phase

COUNTS_AT_A_TIME = 65536  # rows whose token counts are read in one go


@dataclass(frozen=True)
class RowTable:
    """A range of a stage's rows, in order."""

    source: np.ndarray
    """int16 `[n]`: number of the source, in the order of the mapping given to the plan."""
    ordinal: np.ndarray
    """int64 `[n]`: number of the row in its source's order, over all stages and epochs."""
    tokens: np.ndarray
    """int32 `[n]`: tokens taken from the row, its first ones; the others are padding."""


class MixturePlan:
    """Which row of which source stands where in a stage.

    `phases` and `rows` (source -> RowCounts, every one with the same seq_len) say what to mix;
    `skip` is what `used()` of the stage before says: rows already taken. Raises UserError for a
    source that is asked for but not in `rows` or without rows.
    """

    def __init__(
        self,
        phases: "Sequence[Phase]",
        order: Literal["even", "random"],
        rows: Mapping[str, RowCounts],
        *,
        seed: int,
        skip: Mapping[str, int] | None = None,
    ) -> None:
        self.sources = list(rows)
        self.order, self.seed, self.counts = order, seed, dict(rows)
        lengths = {count.seq_len for count in rows.values()}
        assert len(lengths) <= 1, f"sources prepared with different row lengths: {lengths}"
        self.seq_len = lengths.pop() if lengths else 1
        self._taken = dict.fromkeys(rows, 0) | dict(skip or {})
        self._phases: list[FullRows | ListedRows] = []
        self._first: list[np.ndarray] = []  # each phase: number of each source's first row
        for phase in phases:
            self._add(phase.by_source)
        self._starts = np.cumsum([0, *(phase.n_rows for phase in self._phases)])
        self.n_rows = int(self._starts[-1])
        self.tokens = sum(phase.tokens for phase in phases)
        self._short, self._lacking = self._short_rows()

    def _add(self, by_source: Mapping[str, int]) -> None:
        for name, tokens in by_source.items():
            if tokens and (name not in self.counts or not self.counts[name].tokens):
                raise UserError(
                    f"source {name!r}: {tokens:,} tokens are asked of it, but it holds none. "
                    "Add documents to it, or take it out of the mix."
                )
        first = np.array([self._taken[name] for name in self.sources], np.int64)
        budget = [by_source.get(name, 0) for name in self.sources]
        uneven = any(t and self.counts[name].counts is not None for name, t in by_source.items())
        phase: FullRows | ListedRows
        if uneven:
            listed = [self._row_tokens(n, b) for n, b in zip(self.sources, budget, strict=True)]
            phase = ListedRows(listed, self.seq_len)
        else:
            phase = FullRows(budget, self.seq_len)
        self._phases.append(phase)
        self._first.append(first)
        for name, n_rows in zip(self.sources, phase.by_source, strict=True):
            self._taken[name] += n_rows

    def _row_tokens(self, name: str, budget: int) -> np.ndarray:
        """Tokens of the source's next rows, until they make up the budget; the last one is cut."""
        pieces, start = [np.zeros(0, np.int64)], self._taken[name]
        mean = self.counts[name].tokens / max(1, self.counts[name].rows)
        while budget > 0:
            some = min(COUNTS_AT_A_TIME, int(budget / mean) + 16)  # near what is needed
            ordinal = np.arange(start, start + some)
            tokens = self._held(name, ordinal)
            done = np.cumsum(tokens)
            enough = int(np.searchsorted(done, budget))  # the row with which the budget is met
            piece = tokens[: enough + 1]
            if enough < len(tokens):
                piece[enough] -= done[enough] - budget
            pieces.append(piece)
            budget -= int(piece.sum())
            start += some
        return np.concatenate(pieces)

    def _held(self, name: str, ordinal: np.ndarray) -> np.ndarray:
        counts = self.counts[name].counts
        if counts is None:
            return np.full(len(ordinal), self.seq_len, np.int64)
        return counts[self.shard_rows(name, ordinal)].astype(np.int64)

    def shard_rows(self, source: str, ordinal: np.ndarray) -> np.ndarray:
        """Rows of the source's shard that stand at `ordinal` (int64 `[n]`) in its order."""
        n = self.counts[source].rows
        out = np.empty(len(ordinal), np.int64)
        epochs = ordinal // n
        for epoch in np.unique(epochs).tolist():
            where = epochs == epoch
            out[where] = permute(source, self.seed, epoch, ordinal[where] - epoch * n, n)
        return out

    def rows(self, start: int, stop: int) -> RowTable:
        """Rows `start` to `stop` of the stage, this range alone."""
        place = np.arange(start, min(stop, self.n_rows))
        if self.order == "random":
            place = permute("random order", self.seed, 0, place, self.n_rows)
        table = RowTable(
            np.empty(len(place), np.int16),
            np.empty(len(place), np.int64),
            np.empty(len(place), np.int32),
        )
        number = np.searchsorted(self._starts, place, side="right") - 1
        for phase in np.unique(number).tolist():
            where = number == phase
            found: Rows = self._phases[phase].rows(place[where] - self._starts[phase])
            table.source[where], table.tokens[where] = found.source, found.tokens
            table.ordinal[where] = found.ordinal + self._first[phase][found.source]
        return table

    def used(self) -> dict[str, int]:
        """Rows taken from each source up to the end of this stage, `skip` included.

        This is the `skip` of the next stage.
        """
        return dict(self._taken)

    def tokens_before(self, row: int) -> int:
        """Tokens of the rows before `row`, padding excluded, without looking at those rows."""
        row = min(row, self.n_rows)
        return row * self.seq_len - int(self._lacking[np.searchsorted(self._short, row)])

    def most_off(self) -> float:
        """Rows by which a source can be off its share at any place of a phase (order `even`)."""
        return max((phase.most_off for phase in self._phases), default=0.0)

    def _short_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of rows that are not full, and the tokens lacking in the first 0, 1, … of them."""
        shorts = [phase.short() for phase in self._phases]
        places = [p + start for (p, _), start in zip(shorts, self._starts[:-1], strict=True)]
        place = np.concatenate([np.zeros(0, np.int64), *places])
        lacks = np.concatenate([np.zeros(0, np.int64), *(lack for _, lack in shorts)])
        if self.order == "random":
            place = unpermute("random order", self.seed, 0, place, self.n_rows)
            order = np.argsort(place)
            place, lacks = place[order], lacks[order]
        return place, np.concatenate([[0], np.cumsum(lacks)])


def check(
    phases: "Sequence[Phase]",
    rows: Mapping[str, RowCounts],
    epochs: Mapping[str, float],
    *,
    seed: int = 0,
    skip: Mapping[str, int] | None = None,
) -> None:
    """Refuse a stage that would repeat a source more often than `epochs` (source -> passes) allows.

    The UserError gives what is asked and held, and mends that work when followed.
    """
    plan = MixturePlan(phases, "even", rows, seed=seed, skip=skip)
    before = dict.fromkeys(rows, 0) | dict(skip or {})
    for name, used in plan.used().items():
        if name not in rows or used == before[name]:
            continue
        held, allowed = rows[name], math.floor(rows[name].rows * epochs[name] + 1e-9)
        if used <= allowed:
            continue
        asked = sum(phase.by_source.get(name, 0) for phase in phases)
        earlier = f" after the {before[name]:,} rows of earlier stages" if before[name] else ""
        least = int(held.counts.min()) if held.counts is not None else held.seq_len
        # Every phase may cut a row of the source, and rounding may give it one more token.
        usable = max(0, (allowed - before[name] - len(phases)) * least - len(phases))
        tokens = math.floor(usable * plan.tokens / asked)
        mends = [f"set its epochs to {math.ceil(100 * used / held.rows) / 100:g} or more"]
        if tokens:
            mends.append(f"set the tokens of the stage to {tokens:,} or fewer")
        raise UserError(
            f"source {name!r}: {asked:,} tokens are asked of it{earlier}, which takes "
            f"{used - before[name]:,} rows; it holds {held.tokens:,} tokens in {held.rows:,} rows "
            f"of {held.seq_len} and may be seen {epochs[name]:g} times: {allowed:,} rows.\n"
            f"  Do one of: {'; '.join(mends)}; add documents to {name!r}; lower its share."
        )
