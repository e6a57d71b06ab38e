"""Reading the records of a study into arrays: unknown stays unknown."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codestage.errors import UserError

Key = tuple[str, str, str, str]
"""(stage, cot, task, metric)"""


@dataclass(frozen=True)
class Records:
    """Item scores as dense arrays, with what the study says of arms and tasks."""

    study: Mapping[str, Any]
    runs: list[Mapping[str, Any]]
    arms: list[str]
    seeds: list[int]
    scores: Mapping[Key, np.ndarray]
    """`[arm, seed, item]` float64 in the metric's own unit; NaN = unknown."""

    def tasks(self, stage: str, cot: str, metric: str) -> list[str]:
        """Tasks scored there, in the study's order."""
        names = [task["name"] for task in self.study["tasks"]]
        return [n for n in names if (stage, cot, n, metric) in self.scores]

    def domain(self, task: str) -> str:
        return next(str(t["domain"]) for t in self.study["tasks"] if t["name"] == task)

    def chance(self, task: str) -> float:
        return next(float(t["chance"]) for t in self.study["tasks"] if t["name"] == task)


def read_records(folder: Path) -> Records:
    """The records in `folder/results`.

    Raises:
        UserError: if a file is missing or cannot be read.
    """
    results = folder / "results"
    try:
        study = json.loads((results / "study.json").read_text())
        runs = json.loads((results / "runs.json").read_text())
        columns = ["arm", "seed", "stage", "cot", "task", "metric", "item", "value"]
        table = pq.read_table(results / "items.parquet", columns=columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{results}: no readable records ({error}); run the study again") from None
    arms = [arm["name"] for arm in study["arms"]]
    return Records(study, runs, arms, list(study["seeds"]), _arrays(table, arms, study["seeds"]))


def _arrays(table: pa.Table, arms: list[str], seeds: list[int]) -> dict[Key, np.ndarray]:
    codes, names = {}, {}
    for column in ("arm", "stage", "cot", "task", "metric", "item"):
        encoded = table[column].combine_chunks().dictionary_encode()
        codes[column] = encoded.indices.to_numpy()
        names[column] = encoded.dictionary.to_pylist()
    value = table["value"].to_numpy(zero_copy_only=False).astype(np.float64)
    seed_at = {s: i for i, s in enumerate(seeds)}
    arm_at = {a: i for i, a in enumerate(arms)}
    seed = np.array([seed_at[s] for s in table["seed"].to_pylist()], dtype=np.int64)
    arm = np.array([arm_at[a] for a in names["arm"]], dtype=np.int64)[codes["arm"]]
    sizes = [len(names[c]) for c in ("stage", "cot", "task", "metric")]
    group = np.ravel_multi_index(
        tuple(codes[c] for c in ("stage", "cot", "task", "metric")), tuple(sizes)
    )
    order = np.argsort(group, kind="stable")
    result: dict[Key, np.ndarray] = {}
    bounds = np.flatnonzero(np.diff(group[order])) + 1
    for rows in np.split(order, bounds) if len(order) else []:
        items, item = np.unique(codes["item"][rows], return_inverse=True)
        scores = np.full((len(arms), len(seeds), len(items)), np.nan)
        scores[arm[rows], seed[rows], item] = value[rows]
        stage, cot, task, metric = np.unravel_index(group[rows[0]], tuple(sizes))
        key = (
            str(names["stage"][stage]),
            str(names["cot"][cot]),
            str(names["task"][task]),
            str(names["metric"][metric]),
        )
        result[key] = scores
    return result
