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
WORDS = ("arm", "stage", "cot", "task", "metric", "item")
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

    def codes(self, column: pa.Array) -> np.ndarray:
        """The number of each row's word.

        Raises:
            ValueError: for a word that is not among the known ones, where these are given.
        """
        words = column.dictionary.to_pylist()
        if self.closed and (strange := [w for w in words if w not in self.numbers]):
            raise ValueError(f"arm {strange[0]!r} is not in study.json")
        table = [self.numbers.setdefault(word, len(self.numbers)) for word in words]
        return np.array(table, dtype=np.int64)[column.indices.to_numpy()]

    def __len__(self) -> int:
        return len(self.numbers)


class _Reader:
    """Two passes: which items each task has, then every score to its place."""

    def __init__(self, file: pq.ParquetFile, arms: list[str], seeds: list[int]) -> None:
        self.file, self.shape = file, (len(arms), len(seeds))
        self.words = {column: _Words() for column in WORDS} | {"arm": _Words(arms)}
        self.seeds = np.array(seeds, dtype=np.int64)

    def read(self) -> tuple[dict[Key, np.ndarray], dict[Key, int]]:
        groups, place, size = self._items()
        keys = np.array(sorted(groups), dtype=np.int64)
        lengths = size[[groups[int(key)] for key in keys]]
        per_item = int(np.prod(self.shape))
        base = np.concatenate([[0], np.cumsum(lengths * per_item)]).astype(np.int64)
        values = np.full(base[-1], np.nan, dtype=np.float32)
        unknown = np.zeros(len(keys), dtype=np.int64)
        for codes, batch in self._batches([*WORDS, "seed", "value"]):
            group = self._group(codes)
            wanted = np.isin(group, keys)
            at = np.searchsorted(keys, group[wanted])
            run = codes["arm"] * self.shape[1] + self._seed(batch["seed"])
            task, item = codes["task"][wanted], codes["item"][wanted]
            score = batch["value"].to_numpy(zero_copy_only=False).astype(np.float32)[wanted]
            values[base[at] + run[wanted] * lengths[at] + place[task, item]] = score
            unknown += np.bincount(at[np.isnan(score)], minlength=len(keys))
        names = {column: list(words.numbers) for column, words in self.words.items()}
        result, missing = {}, {}
        for i, number in enumerate(keys):
            key = self._key(int(number), names)
            result[key] = values[base[i] : base[i + 1]].reshape(*self.shape, -1)
            missing[key] = int(unknown[i])
        return result, {key: n for key, n in missing.items() if n}

    def _items(self) -> tuple[dict[int, int], np.ndarray, np.ndarray]:
        """(group -> its task, place of every item in its task `[task, item]`, items of each task)."""
        groups: dict[int, int] = {}
        seen: set[int] = set()
        for codes, _ in self._batches(["stage", "cot", "task", "metric", "item"]):
            key = self._group(codes)
            known = {number for name, number in self.words["metric"].numbers.items() if name in METRICS}
            for number in np.unique(key):
                if int(number) % 64 in known:
                    groups[int(number)] = (int(number) >> 6) & 0xFFFF
            pair = (codes["task"] << 32) | codes["item"]
            seen.update(np.unique(pair[np.diff(pair, prepend=-1) != 0]).tolist())
        tasks, items = len(self.words["task"]), len(self.words["item"])
        found = np.zeros((tasks, items), dtype=bool)
        pairs = np.array(sorted(seen), dtype=np.int64)
        found[pairs >> 32, pairs & 0xFFFFFFFF] = True
        return groups, np.cumsum(found, axis=1) - 1, found.sum(axis=1)

    def _batches(self, columns: Sequence[str]) -> Iterator[tuple[dict[str, np.ndarray], pa.RecordBatch]]:
        for batch in self.file.iter_batches(BATCH, columns=list(columns)):
            yield {c: self.words[c].codes(batch[c]) for c in columns if c in WORDS}, batch

    @staticmethod
    def _group(codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """One number for (stage, cot, task, metric): 6 bits of metric, 16 of task, 6 of mode, the stage."""
        group = (codes["stage"] << 28) | (codes["cot"] << 22) | (codes["task"] << 6) | codes["metric"]
        return np.asarray(group)

    @staticmethod
    def _key(group: int, names: Mapping[str, list[str]]) -> Key:
        stage, cot = names["stage"][group >> 28], names["cot"][(group >> 22) & 63]
        return stage, cot, names["task"][(group >> 6) & 0xFFFF], names["metric"][group & 63]

    def _seed(self, column: pa.Array) -> np.ndarray:
        order = np.argsort(self.seeds)
        seeds = column.to_numpy()
        at = np.searchsorted(self.seeds[order], seeds).clip(max=len(order) - 1)
        if (strange := seeds[self.seeds[order][at] != seeds]).size:
            raise ValueError(f"seed {strange[0]} is not in study.json")
        return np.asarray(order[at])
