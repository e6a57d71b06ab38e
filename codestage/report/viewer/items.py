"""Two arms item by item: which items flipped. Reads columns and rows that are asked for, never the table.

`items.parquet` of a large study has tens of millions of rows. A comparison needs one metric of two
runs of arms: the filter skips row groups by their statistics, the rest is read in batches, and what
stays is one number for each item, seed and side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from codestage.errors import UserError
from codestage.report.viewer.studies import Folder

NAMES = ("arm", "stage", "cot", "metric", "task", "gold", "status", "prompt_hash")
"""Columns that repeat few values, or are compared: read as codes into a dictionary."""
LOWER_IS_BETTER = ("bpb",)
BATCH = 65_536
DIRECTIONS = ("all", "gained", "lost", "changed", "same")


@dataclass(frozen=True)
class Side:
    """One of the two things that are compared: an arm of a study after a stage."""

    folder: Folder
    arm: str
    stage: str


@dataclass(frozen=True)
class Asked:
    """A comparison: `b` against `a` in one mode and metric; `seed` None means all that both have."""

    a: Side
    b: Side
    cot: str
    metric: str
    seed: int | None = None

    def stamps(self) -> tuple[Any, ...]:
        """Changes when either table does."""
        return self.a.folder.stamp("items.parquet"), self.b.folder.stamp("items.parquet")


@dataclass(frozen=True)
class Comparison:
    """Scores of the items that both sides have. Arrays: `[item]` and `[item, seed]`, NaN = unknown."""

    tasks: list[str]
    task: np.ndarray
    """`[item]` place in `tasks`."""
    item: pa.Array
    seeds: list[int]
    a: np.ndarray
    b: np.ndarray
    binary: bool
    """Every known score is 0 or 1: items flip. Otherwise they get better or worse."""
    only_a: int
    only_b: int
    gold_differs: int

    def change(self, metric: str) -> np.ndarray:
        """`[item, seed]` b less a, positive where b is better, NaN where either is unknown."""
        return (self.a - self.b) if metric in LOWER_IS_BETTER else (self.b - self.a)


def scan(folder: Folder, columns: Sequence[str], wanted: Mapping[str, Any]) -> pa.Table:
    """Some columns of the rows of `items.parquet` that equal `wanted`; one batch at a time is decoded.

    Raises:
        UserError: there is no such table, or it is being written just now.
    """
    stamp = folder.stamp("items.parquet")
    if stamp is None:
        raise UserError(f"{folder.path}: no results yet; they come when the study is done")
    options = ds.ParquetReadOptions(dictionary_columns=[n for n in NAMES if n in columns])
    lean = ds.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True)
    form = ds.ParquetFileFormat(read_options=options, default_fragment_scan_options=lean)
    where = pc.scalar(True)
    for column, value in wanted.items():
        where &= pc.field(column) == value
    try:
        groups = folder.kept(("groups", stamp), lambda: _row_groups(folder))
        arm, stage = wanted.get("arm"), wanted.get("stage")
        held = {g for (a, s), found in groups.items() for g in found if a == arm and stage in (None, s)}
        whole = next(iter(ds.dataset(folder.items, format=form).get_fragments()))
        scanner = whole.subset(row_group_ids=sorted(held)).scanner(
            columns=list(columns), filter=where, batch_size=BATCH, batch_readahead=2
        )
        kept = [batch for batch in scanner.to_batches() if len(batch)] if held else []
        return pa.Table.from_batches(kept, scanner.projected_schema).unify_dictionaries()
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(
            f"{folder.items}: cannot be read just now ({error}); try again in a moment"
        ) from None


def _row_groups(folder: Folder) -> dict[tuple[str, str], list[int]]:
    """(arm, stage) -> the row groups with rows of it: rows are in the order of runs, so they are few."""
    found: dict[tuple[str, str], list[int]] = {}
    with pq.ParquetFile(folder.items, read_dictionary=["arm", "stage"]) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=["arm", "stage"])
            for pair in rows.group_by(["arm", "stage"], use_threads=False).aggregate([]).to_pylist():
                found.setdefault((pair["arm"], pair["stage"]), []).append(group)
    return found


def places(folder: Folder) -> list[dict[str, str]]:
    """Each (stage, cot, metric) that the first arm was scored in, in the order of the study."""
    study = folder.told()
    if not study["arms"] or not study["seeds"]:
        return []
    keys = ["stage", "cot", "metric"]
    first = {"arm": study["arms"][0]["name"], "seed": study["seeds"][0]}
    rows = scan(folder, keys, first).cast(pa.schema([(k, pa.string()) for k in keys]))
    found = rows.group_by(keys, use_threads=False).aggregate([]).to_pylist()
    order = {
        name: i
        for i, name in enumerate([*study["stages"], "off", "supplied", "generated", "acc", "prob"])
    }
    rank = {k: order.get(k, len(order)) for row in found for k in row.values()}
    return sorted(found, key=lambda row: [(rank[row[k]], row[k]) for k in keys])


def compare(asked: Asked) -> Comparison:
    """The scores of both sides, matched by task and item; only where both name the same right answer.

    Raises:
        UserError: an arm has no such scores, or the two have no seed in common.
    """
    sides = [_scores(asked, side) for side in (asked.a, asked.b)]
    seeds = sorted(set(sides[0]["seed"].to_pylist()) & set(sides[1]["seed"].to_pylist()))
    if asked.seed is not None:
        seeds = [seed for seed in seeds if seed == asked.seed]
    if not seeds:
        which = (
            "no seed in common"
            if asked.seed is None
            else f"no scores at seed {asked.seed} on both sides"
        )
        raise UserError(f"{asked.a.arm!r} and {asked.b.arm!r} have {which}")
    both = {name: _codes([side[name] for side in sides]) for name in ("task", "item", "gold")}
    wide = len(both["item"][1]) + 1
    keys = [both["task"][0][i].astype(np.int64) * wide + both["item"][0][i] for i in (0, 1)]
    unique = [np.unique(key, return_index=True) for key in keys]
    common, at_a, at_b = np.intersect1d(
        unique[0][0], unique[1][0], assume_unique=True, return_indices=True
    )
    gold = [both["gold"][0][i][unique[i][1][at]] for i, at in ((0, at_a), (1, at_b))]
    agree = gold[0] == gold[1]
    kept, first = common[agree], unique[0][1][at_a][agree]
    study = {str(task["name"]): i for i, task in enumerate(asked.a.folder.told()["tasks"])}
    names = [str(name) for name in both["task"][1].to_pylist()]
    rank = np.array([study.get(name, len(study)) for name in names], dtype=np.int64)
    order = np.lexsort((first, rank[kept // wide])) if len(kept) else np.zeros(0, np.int64)
    kept = kept[order]
    a, b = (_matrix(kept, key, side, seeds) for key, side in zip(keys, sides, strict=True))
    known = np.concatenate([a[~np.isnan(a)], b[~np.isnan(b)]])
    return Comparison(
        tasks=names,
        task=(kept // wide).astype(np.int32),
        item=both["item"][1].take(pa.array(kept % wide)),
        seeds=seeds,
        a=a,
        b=b,
        binary=bool(np.isin(known, (0.0, 1.0)).all()),
        only_a=len(unique[0][0]) - len(common),
        only_b=len(unique[1][0]) - len(common),
        gold_differs=int((~agree).sum()),
    )


def _scores(asked: Asked, side: Side) -> pa.Table:
    """Rows task, item, gold, seed, value of one side."""
    wanted: dict[str, Any] = {
        "arm": side.arm,
        "stage": side.stage,
        "cot": asked.cot,
        "metric": asked.metric,
    }
    at = {} if asked.seed is None else {"seed": asked.seed}
    rows = scan(side.folder, ["task", "item", "gold", "seed", "value"], wanted | at)
    if not len(rows):
        told = ", ".join(f"{column} {value!r}" for column, value in wanted.items())
        raise UserError(f"{side.folder.path}: no scores with {told}")
    return rows


def _codes(columns: Sequence[pa.ChunkedArray]) -> tuple[list[np.ndarray], pa.Array]:
    """Each column's `[row]` codes into one dictionary that both share; -1 = null."""
    plain = [column.cast(pa.string()) for column in columns]
    joined = pa.chunked_array([chunk for column in plain for chunk in column.chunks], pa.string())
    encoded = joined.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return [codes[: len(columns[0])], codes[len(columns[0]) :]], encoded.dictionary


def _matrix(kept: np.ndarray, key: np.ndarray, rows: pa.Table, seeds: Sequence[int]) -> np.ndarray:
    """`[item, seed]` scores; the mean where answers were drawn several times, NaN where unknown."""
    sorted_at = np.argsort(kept)
    found = np.searchsorted(kept, key, sorter=sorted_at)
    seed = np.searchsorted(np.array(seeds), rows["seed"].to_numpy())
    inside = (found < len(kept)) & (seed < len(seeds))
    found, seed = np.minimum(found, max(0, len(kept) - 1)), np.minimum(seed, len(seeds) - 1)
    if not len(kept):
        return np.full((0, len(seeds)), np.nan)
    item = sorted_at[found]
    inside &= (kept[item] == key) & (np.array(seeds)[seed] == rows["seed"].to_numpy())
    value = rows["value"].to_numpy().astype(np.float64)[inside]
    cell = (item * len(seeds) + seed)[inside]
    size = len(kept) * len(seeds)
    total, count = np.bincount(cell, value, size), np.bincount(cell, minlength=size)
    with np.errstate(invalid="ignore"):
        mean = np.where((count > 0) & np.isfinite(total), total / count, np.nan)
    return mean.reshape(len(kept), len(seeds))


def summary(found: Comparison, asked: Asked) -> dict[str, Any]:
    """Counts for each task and over all. Pairs are (item, seed); unknown ones are counted apart.

    `p` is McNemar's exact test (McNemar 1947), on one seed only: seeds answer the same items, so
    their flips are not independent.
    """
    change = found.change(asked.metric)
    domains = {str(t["name"]): str(t["domain"]) for t in asked.a.folder.told()["tasks"]}
    rows = []
    starts = (
        np.flatnonzero(np.diff(found.task, prepend=-1)) if len(found.task) else np.zeros(0, np.int64)
    )
    for start, end in zip(starts, [*starts[1:], len(found.task)], strict=True):
        name = found.tasks[found.task[start]]
        rows.append(
            {"task": name, "domain": domains.get(name)} | _counts(found, change, slice(start, end))
        )
    return {
        "kind": "flips" if found.binary else "graded",
        "lower_is_better": asked.metric in LOWER_IS_BETTER,
        "seeds": found.seeds,
        "matched": len(found.task),
        "only_a": found.only_a,
        "only_b": found.only_b,
        "gold_differs": found.gold_differs,
        "tasks": rows,
        "total": _counts(found, change, slice(None)),
    }


def _counts(found: Comparison, change: np.ndarray, rows: slice) -> dict[str, Any]:
    known = ~np.isnan(change[rows])
    gained, lost = int((change[rows] > 0).sum()), int((change[rows] < 0).sum())
    single = found.binary and len(found.seeds) == 1
    return {
        "items": change[rows].shape[0],
        "pairs": int(known.sum()),
        "unknown": int((~known).sum()),
        "mean_a": _mean(found.a[rows][known]),
        "mean_b": _mean(found.b[rows][known]),
        "gained": gained,
        "lost": lost,
        "same": int((change[rows] == 0).sum()),
        "p": mcnemar(gained, lost) if single else None,
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p that gains and losses are equally likely."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def page(
    found: Comparison, metric: str, *, task: str | None, direction: str, offset: int, limit: int
) -> dict[str, Any]:
    """Items `offset` … of those that go in `direction` at one seed or more; the largest changes
    over all seeds first.
    """
    change = found.change(metric)
    gained, lost = (change > 0).sum(axis=1), (change < 0).sum(axis=1)
    wanted = {
        "all": np.ones(len(change), bool),
        "gained": gained > 0,
        "lost": lost > 0,
        "changed": (gained + lost) > 0,
        "same": ((gained + lost) == 0) & (~np.isnan(change)).any(axis=1),
    }[direction]
    if task is not None:
        wanted = wanted & (found.task == (found.tasks.index(task) if task in found.tasks else -1))
    at = np.flatnonzero(wanted)
    if direction in ("gained", "lost", "changed"):
        net, moved = np.nansum(change[at], axis=1), np.nansum(np.abs(change[at]), axis=1)
        most = {"gained": net, "lost": -net, "changed": np.abs(net)}[direction]
        at = at[np.lexsort((-moved, -most))]
    here = at[offset : offset + limit]
    rows = [
        {
            "task": found.tasks[found.task[i]],
            "item": found.item[i].as_py(),
            "a": _numbers(found.a[i]),
            "b": _numbers(found.b[i]),
            "gained": int(gained[i]),
            "lost": int(lost[i]),
        }
        for i in here.tolist()
    ]
    return {"total": len(at), "offset": offset, "seeds": found.seeds, "rows": rows}


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(v) for v in values]


def describe(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arms for choosing: name, role, options, and the stages where each has code."""
    code = study["code_options"]
    return [
        {
            "name": arm["name"],
            "role": arm["role"],
            "factors": arm["factors"],
            "code": [stage for stage, option in arm["factors"].items() if option in code.get(stage, ())],
        }
        for arm in study["arms"]
    ]
