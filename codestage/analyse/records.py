"""Reading the records of a study into arrays, a batch of rows at a time: unknown stays unknown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codestage.errors import UserError

Key = tuple[str, str, str, str]
"""(stage, cot, task, metric)"""
METRICS = ("acc", "prob", "bpb")
"""Metrics that effects are asked of."""
KEY = ("stage", "cot", "task", "metric")
WORDS = ("arm", *KEY, "item")
BATCH = 1 << 20
"""Rows decoded at once."""


@dataclass(frozen=True)
class Records:
    """Item scores as dense arrays, with what the study says of arms and tasks."""

    study: Mapping[str, Any]
    runs: list[Mapping[str, Any]]
    arms: list[str]
    seeds: list[int]
    scores: Mapping[Key, np.ndarray]
    """`[arm, seed, item]` float32 in the metric's own unit; NaN = unknown. The items of a task stand in the same
    order under every stage, mode and metric."""
    unknown: Mapping[Key, int] = field(default_factory=dict)
    """How many scores were recorded as unknown."""

    def tasks(self, stage: str, cot: str, metric: str) -> list[str]:
        """Tasks scored there, in the study's order."""
        names = [task["name"] for task in self.study["tasks"]]
        return [n for n in names if (stage, cot, n, metric) in self.scores]

    def domain(self, task: str) -> str:
        return next(str(t["domain"]) for t in self.study["tasks"] if t["name"] == task)

    def chance(self, task: str) -> float:
        return next(float(t["chance"]) for t in self.study["tasks"] if t["name"] == task)

    def ran(self, stage: str) -> np.ndarray:
        """`[arm, seed]` bool: whether anything is known of that run after `stage`."""
        found = np.zeros((len(self.arms), len(self.seeds)), dtype=bool)
        for (where, *_), scores in self.scores.items():
            if where == stage:
                found |= ~np.isnan(scores).all(axis=2)
        return found


def read_records(folder: Path) -> Records:
    """The records in `folder/results`.

    Raises:
        UserError: if a file is missing or cannot be read.
    """
    results = folder / "results"
    try:
        study = json.loads((results / "study.json").read_text())
        runs = json.loads((results / "runs.json").read_text())
        arms = [arm["name"] for arm in study["arms"]]
        with pq.ParquetFile(results / "items.parquet", read_dictionary=list(WORDS)) as file:
            scores, unknown = _Reader(file, arms, study["seeds"]).read()
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{results}: no readable records ({error}); run the study again") from None
    return Records(study, runs, arms, list(study["seeds"]), scores, unknown)


class _Words:
    """Numbers for the words of a column, in order of appearance."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self.numbers = {word: i for i, word in enumerate(known)}
        self.closed = bool(known)
        self.last: tuple[pa.Array, np.ndarray] | None = None

    def codes(self, column: pa.Array) -> np.ndarray:
        """The number of each row's word.

        Raises:
            ValueError: for a word that is not among the known ones, where these are given.
        """
        if self.last is None or not column.dictionary.equals(self.last[0]):
            self.last = column.dictionary, self._table(column.dictionary.to_pylist())
        return np.asarray(self.last[1][column.indices.to_numpy()])

    def _table(self, words: list[str]) -> np.ndarray:
        if self.closed and (strange := [w for w in words if w not in self.numbers]):
            raise ValueError(f"arm {strange[0]!r} is not in study.json")
        table = [self.numbers.setdefault(word, len(self.numbers)) for word in words]
        return np.array(table, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.numbers)


class _Reader:
    """Two passes: which items each task has, then every score to its place."""

    def __init__(self, file: pq.ParquetFile, arms: list[str], seeds: list[int]) -> None:
        self.file, self.shape = file, (len(arms), len(seeds))
        self.words = {column: _Words() for column in WORDS} | {"arm": _Words(arms)}
        self.seeds = np.array(seeds, dtype=np.int64)

    def read(self) -> tuple[dict[Key, np.ndarray], dict[Key, int]]:
        place, size, keys = self._items()
        number = np.full([len(self.words[c]) for c in KEY], -1, dtype=np.int64)
        number[tuple(keys.T)] = np.arange(len(keys))
        lengths = size[keys[:, 2]]
        base = np.concatenate([[0], np.cumsum(lengths * int(np.prod(self.shape)))]).astype(np.int64)
        values = np.full(base[-1], np.nan, dtype=np.float32)
        unknown = np.zeros(len(keys), dtype=np.int64)
        for codes, batch in self._batches([*WORDS, "seed", "value"]):
            at = number[tuple(codes[c] for c in KEY)]
            run = codes["arm"] * self.shape[1] + self._seed(batch["seed"])
            item = place[codes["task"], codes["item"]]
            score = batch["value"].to_numpy(zero_copy_only=False).astype(np.float32)
            if not (at >= 0).all():
                at, run, item, score = (x[at >= 0] for x in (at, run, item, score))
            values[base[at] + run * lengths[at] + item] = score
            if (missing := np.isnan(score)).any():
                unknown += np.bincount(at[missing], minlength=len(keys))
        names = [list(self.words[column].numbers) for column in KEY]
        told: list[Key] = [
            (names[0][s], names[1][c], names[2][t], names[3][m]) for s, c, t, m in keys.tolist()
        ]
        result = {
            key: values[base[i] : base[i + 1]].reshape(*self.shape, -1) for i, key in enumerate(told)
        }
        return result, {key: int(n) for key, n in zip(told, unknown, strict=True) if n}

    def _items(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(place of every item in its task `[task, item]`, items of each task, keys `[key, 4]` that are asked for)."""
        pairs: set[int] = set()
        keys: set[int] = set()
        for codes, _ in self._batches([*KEY, "item"]):
            pairs.update(np.unique((codes["task"] << 32) | codes["item"]).tolist())
            packed = codes["stage"]
            for column in KEY[1:]:
                packed = (packed << 16) | codes[column]
            keys.update(np.unique(packed).tolist())
        found = np.zeros((len(self.words["task"]), len(self.words["item"])), dtype=bool)
        every = np.array(sorted(pairs), dtype=np.int64)
        found[every >> 32, every & 0xFFFFFFFF] = True
        asked = {self.words["metric"].numbers.get(name) for name in METRICS}
        unpacked = [tuple(key >> shift & 0xFFFF for shift in (48, 32, 16, 0)) for key in sorted(keys)]
        kept = np.array([k for k in unpacked if k[3] in asked], dtype=np.int64).reshape(-1, len(KEY))
        return np.cumsum(found, axis=1) - 1, found.sum(axis=1), kept

    def _batches(self, columns: Sequence[str]) -> Iterator[tuple[dict[str, np.ndarray], pa.RecordBatch]]:
        for batch in self.file.iter_batches(BATCH, columns=list(columns)):
            yield {c: self.words[c].codes(batch[c]) for c in columns if c in WORDS}, batch

    def _seed(self, column: pa.Array) -> np.ndarray:
        order, seeds = np.argsort(self.seeds), column.to_numpy()
        if seeds.min() == seeds.max() and (same := np.flatnonzero(self.seeds == seeds[0])).size:
            return same[:1]
        at = np.searchsorted(self.seeds[order], seeds).clip(max=len(order) - 1)
        if (strange := seeds[self.seeds[order][at] != seeds]).size:
            raise ValueError(f"seed {strange[0]} is not in study.json")
        return np.asarray(order[at])
