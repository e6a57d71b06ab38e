"""What a stage draws, batch by batch, worked out only as far as somebody asks.

Arms of a large study draw the same in most of their stages. A layout is shared by all stages that draw the
same; two layouts are compared from their beginnings on, so that arms which part early cost next to nothing.
"""

import hashlib
from binascii import hexlify
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import numpy as np

from codestage.data.mixture import MixturePlan, RowCounts
from codestage.study.expand import StagePlan
from codestage.study.lr import lr_at

AT_ONCE = 1 << 18
"""Rows laid out at a time where all of a long stage are read: 6 MB."""
KEPT = 32
"""Plans of packed rows kept at a time: each holds a table of its rows."""


class Layout:
    """The rows and learning rates of one stage."""

    def __init__(
        self,
        stage: StagePlan,
        rows: Mapping[str, RowCounts],
        seed: int,
        skip: Mapping[str, int],
        numbers: Mapping[str, int],
        kept: "OrderedDict[int, MixturePlan]",
    ) -> None:
        self._stage, self._supply, self._seed = stage, rows, seed
        self._numbers, self._kept = numbers, kept
        self._skip = dict(skip)
        self._closed: MixturePlan | None = None
        plan = self._plan()
        if stage.order == "even" and all(rows[name].counts is None for name in plan.names):
            self._closed = kept.pop(id(self))  # holds next to nothing
        self.names = plan.names
        self.start = plan.start
        self.used = plan.used()
        self.width = stage.batch_tokens // stage.seq_len
        self.batches = -(-plan.n_rows // self.width)
        self._n_rows, self._phase_rows = plan.n_rows, plan.phase_rows()
        self._edges = plan.tokens_at(np.minimum(np.arange(self.batches + 1) * self.width, plan.n_rows))
        self._rates = np.empty(0)
        self._marks: dict[tuple[int, int], bytes] = {}
        self._told: dict[tuple[int, int], tuple[str, list[str]]] = {}

    def _plan(self) -> MixturePlan:
        if self._closed is not None:
            return self._closed
        kept = self._kept
        if id(self) not in kept:
            stage = self._stage
            kept[id(self)] = MixturePlan(
                stage.phases, stage.order, self._supply, seed=self._seed, skip=self._skip
            )
            if len(kept) > KEPT:
                kept.popitem(last=False)
        kept.move_to_end(id(self))
        return kept[id(self)]

    @property
    def rates(self) -> np.ndarray:
        """`[batches]` float64 learning rates."""
        return self._rates_to(self.batches)

    def _rates_to(self, stop: int) -> np.ndarray:
        """The learning rates of the batches before `stop`, worked out once."""
        known = len(self._rates)
        if known < stop:
            stage, whole = self._stage, int(self._edges[-1])
            edges = self._edges[known:stop].tolist()
            more = [lr_at(stage.lr, stage.optimizer.lr, t, whole) for t in edges]
            self._rates = np.concatenate([self._rates, more])
        return self._rates[:stop]

    def tokens(self, start: int, stop: int) -> int:
        """Tokens in batches `start` to `stop`."""
        return int(self._edges[stop] - self._edges[start])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """`[stop - start, rows, 3]` int64: source number, ordinal, tokens; -1 where a batch is not full."""
        first, last = start * self.width, min(stop * self.width, self._n_rows)
        plan = self._plan()
        table = plan.rows(first, last)
        number = np.array([self._numbers[name] for name in plan.names])
        laid = np.full(((stop - start) * self.width, 3), -1, dtype=np.int64)
        laid[: last - first, 0] = number[table.source]
        laid[: last - first, 1] = table.ordinal
        laid[: last - first, 2] = table.tokens
        return laid.reshape(stop - start, self.width, 3)

    def mark(self, start: int, stop: int) -> bytes:
        """The same for two layouts whose batches `start` to `stop` are the same."""
        place = (start, stop)
        if place not in self._marks:
            held = hashlib.blake2b(self._rates_to(stop)[start:].tobytes(), digest_size=16)
            for rows in self._chunks(start, stop):
                held.update(rows.tobytes())
            self._marks[place] = held.digest()
        return self._marks[place]

    def common(self, other: "Layout") -> int:
        """Batches from the beginning that are the same in both."""
        if self is other:
            return self.batches
        n = self._common_rows(other)
        same = self._rates_to(n) == other._rates_to(n)
        return n if same.all() else int(np.argmin(same))

    def _common_rows(self, other: "Layout") -> int:
        n = min(self.batches, other.batches)
        done, size = min(n, self._planned_alike(other) // self.width), 1
        while done < n:
            stop = min(n, done + size)
            equal = (self.rows(done, stop) == other.rows(done, stop)).all(axis=(1, 2))
            if not equal.all():
                return done + int(np.argmin(equal))
            done, size = stop, min(2 * size, max(1, AT_ONCE // self.width))
        return n

    def _planned_alike(self, other: "Layout") -> int:
        """Rows from the beginning that must be the same, since they are planned in the same way."""
        a, b = self._stage, other._stage
        alike = (
            a.order == b.order == "even"
            and (self.names, self.start, self.width) == (other.names, other.start, other.width)
            and self._supply is other._supply
            and self._seed == other._seed
        )
        rows = 0
        for mine, its, count in zip(a.phases, b.phases, self._phase_rows, strict=False):
            if not alike or mine != its:
                break
            rows += count
        return rows

    def told(self, start: int, stop: int) -> tuple[str, list[str]]:
        """The digest of the rows of these batches, and the names of the sources drawn from, sorted.

        Sources are numbered among those drawn from: one that a study has beside them does not change what
        these rows are.
        """
        place = (start, stop)
        if place not in self._told:
            whole = (stop - start) * self.width <= AT_ONCE
            held = list(self._chunks(start, stop)) if whole else None
            seen: set[int] = set()
            for rows in held or self._chunks(start, stop):
                seen.update(np.unique(rows[:, :, 0]).tolist())
            names = sorted(name for name in self.names if self._numbers[name] in seen)
            number = np.full(max(self._numbers.values()) + 2, -1, dtype=np.int64)
            number[[self._numbers[name] for name in names]] = np.arange(len(names))
            text = hashlib.blake2b(
                b'"', digest_size=16
            )  # as `identity.digest` of the rows' bytes in hex
            for rows in held or self._chunks(start, stop):
                rows[:, :, 0] = number[rows[:, :, 0]]  # -1 looks up the last place, which stays -1
                text.update(hexlify(rows.tobytes()))
            text.update(b'"')
            self._told[place] = (text.hexdigest(), names)
        return self._told[place]

    def _chunks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        step = max(1, AT_ONCE // self.width)
        for at in range(start, stop, step):
            yield self.rows(at, min(stop, at + step))
