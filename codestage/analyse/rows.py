"""Rows of `effects.json`: every contrast at every level, for one stage, mode and metric.

Contrasts that are alike (family, mode, seeds) are computed together, task by task, so that a study of thousands of
arms takes seconds and memory for one task.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from codestage.analyse.bootstrap import Resamples, percentile_interval
from codestage.analyse.contrasts import Contrast
from codestage.analyse.effects import (
    Parts,
    Prior,
    Test,
    alike,
    benjamini_hochberg,
    combine,
    holm,
    make_test,
    moderated,
    moderation,
    task_parts,
)
from codestage.analyse.paired import flips, item_p
from codestage.analyse.records import Records
from codestage.analyse.scales import ALPHA, MARGINS, SCALE, UNITS, levels, six, snapped

Row = dict[str, Any]
NON_INFERIOR = "transfer"
"""The family that asks for harm: there it is enough to rule out harm, a gain may be of any size."""


@dataclass
class Batch:
    """Contrasts of one family, asked of the same tasks, modes and seeds."""

    contrasts: list[Contrast]
    order: list[int]
    """Place of each contrast among all that are asked."""
    seeds: np.ndarray
    weights: sparse.csr_array
    """`[contrast, arm]`"""
    parts: dict[str, Parts] = field(default_factory=dict)
    draws: dict[str, np.ndarray] = field(default_factory=dict)
    """Task -> deviations `[contrast, draw]` that come from its items."""
    items: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=dict)
    """Task -> (gained, lost, p) `[contrast]`, of right and wrong answers only."""

    @property
    def first(self) -> Contrast:
        return self.contrasts[0]

    def difference(
        self, records: Records, stage: str, cot: str, task: str, metric: str
    ) -> np.ndarray | None:
        """D `[contrast, seed, item]` on a task; None if the task has no such scores or is not asked."""
        scores = records.scores.get((stage, cot, task, metric))
        if self.first.cot is not None:
            before, after = (records.scores.get((stage, c, task, metric)) for c in self.first.cot)
            scores = None if before is None or after is None else after - before
        if scores is None or records.domain(task) == self.first.outside:
            return None
        used = scores[:, self.seeds]
        flat = self.weights @ used.reshape(len(used), -1)
        return snapped(np.asarray(flat)).reshape(len(self.contrasts), *used.shape[1:])


@dataclass(frozen=True)
class Level:
    """A batch over some of the tasks."""

    batch: Batch
    level: str
    name: str
    parts: Parts
    tasks: Sequence[str]


def effect_rows(
    records: Records, asked: Sequence[Contrast], *, stage: str, cot: str, metric: str
) -> list[Row]:
    """Rows of all contrasts at all levels for one stage, mode and metric, contrast by contrast."""
    batches = _batches(records, asked, stage)
    resamples: dict[int, Resamples] = {}
    for number, task in enumerate(records.tasks(stage, cot, metric)):
        for batch in batches:
            d = batch.difference(records, stage, cot, task, metric)
            if d is None:
                continue
            part = batch.parts[task] = task_parts(d)
            drawn = resamples.setdefault(len(batch.seeds), Resamples(len(batch.seeds)))
            items = drawn.from_items(number, d, part.item_variance)
            batch.draws[task] = items.astype(np.float32)
            if metric == "acc" and batch.first.cot is None:
                batch.items[task] = (*flips(d), item_p(d))
    found = [level for batch in batches for level in _levels(records, batch, metric)]
    priors = _priors(found)
    rows: list[tuple[int, Row]] = []
    for level in found:
        prior = priors[_kind(level)]
        rows += _rows(level, prior, resamples[len(level.batch.seeds)], metric)
    rows.sort(key=lambda row: row[0])
    told = [{**row, "stage": stage, "cot": row.pop("cot") or cot} for _, row in rows]
    _adjust(told)
    return told


def _batches(records: Records, asked: Sequence[Contrast], stage: str) -> list[Batch]:
    """Contrasts that can be computed together; those whose arms share no seed are left out."""
    ran, number = records.ran(stage), {arm: i for i, arm in enumerate(records.arms)}
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, contrast in enumerate(asked):
        arms = [number[arm] for arm, weight in contrast.weights.items() if weight]
        seeds = np.flatnonzero(ran[arms].all(axis=0))
        if len(seeds):
            key = (contrast.family, contrast.cot, contrast.outside, tuple(seeds.tolist()))
            groups.setdefault(key, []).append(i)
    batches = []
    for (_, _, _, seeds), members in groups.items():
        chosen = [asked[i] for i in members]
        cells = [(k, number[a], w) for k, c in enumerate(chosen) for a, w in c.weights.items() if w]
        row, column, weight = zip(*cells, strict=True)
        matrix = sparse.csr_array((weight, (row, column)), shape=(len(chosen), len(records.arms)))
        batches.append(Batch(chosen, members, np.array(seeds), matrix))
    return batches


def _levels(records: Records, batch: Batch, metric: str) -> Iterator[Level]:
    names = [task["name"] for task in records.study["tasks"] if task["name"] in batch.parts]
    for level, name, tasks in levels(records, names):
        if tasks:
            parts = combine([batch.parts[t] for t in tasks], bounded=metric != "bpb")
            yield Level(batch, level, name, parts, tasks)


def _kind(level: Level) -> tuple[str, str, int]:
    return level.batch.first.family, level.level, level.parts.seeds


def _priors(found: Sequence[Level]) -> Mapping[tuple[str, str, int], Prior | None]:
    """What the seeds' variances of like tests have in common: by family, level and number of seeds."""
    groups: dict[tuple[str, str, int], list[np.ndarray]] = {}
    for level in found:
        groups.setdefault(_kind(level), []).append(level.parts.by_seed[np.unique(alike(level.parts))])
    return {
        kind: None if kind[1] == "overall" else moderation(np.concatenate(tests))
        for kind, tests in groups.items()
    }


def _rows(level: Level, prior: Prior | None, resamples: Resamples, metric: str) -> list[tuple[int, Row]]:
    """(place, row) of every contrast of the batch that has an estimate here."""
    batch, test, scale = level.batch, make_test(level.parts, prior), SCALE[metric]
    margin = MARGINS[metric] / abs(scale)
    numbers = {
        "estimate": scale * test.estimate,
        **_ends(test.interval(ALPHA), scale),
        "p": test.p,
        "p_equivalent": test.p_equivalent(margin),
        "p_not_worse": test.p_above(-margin) if scale > 0 else _p_below(test, margin),
        "mde": abs(scale) * test.detectable(ALPHA),
    }
    told = {key: [six(v) for v in values.tolist()] for key, values in numbers.items()}
    bootstrap = _bootstrap(level, test, prior, resamples, scale)
    items = batch.items.get(level.name) if level.level == "task" else None
    rows = []
    for i, contrast in enumerate(batch.contrasts):
        if told["estimate"][i] is None:
            continue
        row = {
            "contrast": contrast.name,
            "label": contrast.label,
            "family": contrast.family,
            "level": level.level,
            "name": level.name,
            "metric": metric,
            "cot": contrast.cot[1] if contrast.cot else None,
            **{key: values[i] for key, values in told.items()},
            "bootstrap": bootstrap[i],
            "n_items": int(test.items[i]),
            "seeds": test.seeds,
            "unit": UNITS[metric],
            "items": None if items is None else _flipped(contrast, items, i),
        }
        rows.append((batch.order[i], row))
    return rows


def _ends(interval: tuple[np.ndarray, np.ndarray], scale: float) -> dict[str, np.ndarray]:
    low, high = (scale * end for end in interval)
    return {"low": np.minimum(low, high), "high": np.maximum(low, high)}


def _p_below(test: Test, margin: float) -> np.ndarray:
    """p of being more than `margin` above, where lower is better."""
    turned = Test(-test.estimate, test.variances, test.seeds, test.items)
    return turned.p_above(-margin)


def _bootstrap(
    level: Level, test: Test, prior: Prior | None, resamples: Resamples, scale: float
) -> list[list[float | None] | None]:
    """Percentile intervals; None where no resample differs from another."""
    draws = np.asarray(np.mean([level.batch.draws[t] for t in level.tasks], axis=0, dtype=np.float32))
    if level.parts.seeds > 1:
        variance, df = moderated(level.parts, prior)
        draws = draws + resamples.from_seeds(level.parts.by_seed, variance, df).astype(np.float32)
    low, high = (end + test.estimate for end in percentile_interval(draws, ALPHA))
    ends = _ends((low, high), scale)
    same = draws.max(axis=1) == draws.min(axis=1)
    return [
        None if still else [six(a), six(b)]
        for still, a, b in zip(same, ends["low"].tolist(), ends["high"].tolist(), strict=True)
    ]


def _flipped(
    contrast: Contrast, items: tuple[np.ndarray, np.ndarray, np.ndarray], i: int
) -> dict[str, Any]:
    """What happened to single items; how many changed is told of two arms only."""
    gained, lost, p = items
    two = len([w for w in contrast.weights.values() if w]) == 2
    return {
        "gained": int(gained[i]) if two else None,
        "lost": int(lost[i]) if two else None,
        "p": six(float(p[i])),
    }


def _adjust(rows: list[Row]) -> None:
    """Holm and Benjamini-Hochberg within each family and level; then the verdict in one word."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["family"], row["level"]), []).append(row)
    for group in groups.values():
        adjusted = {
            key: holm([row[key] for row in group]) for key in ("p", "p_equivalent", "p_not_worse")
        }
        discoveries = benjamini_hochberg([row["p"] for row in group])
        for i, row in enumerate(group):
            row["p_adjusted"], row["q"] = six(adjusted["p"][i]), six(discoveries[i])
            row["verdict"] = verdict(row, adjusted["p_equivalent"][i], adjusted["p_not_worse"][i])


def verdict(row: Mapping[str, Any], p_equivalent: float, p_not_worse: float) -> str:
    """up | down (a difference), equivalent (within the margin), not_worse (harm beyond the margin is ruled out;
    only of negative transfer), or open (cannot be told). All p adjusted."""
    if row["p_adjusted"] < ALPHA:
        return "up" if row["estimate"] > 0 else "down"
    if p_equivalent < ALPHA:
        return "equivalent"
    return "not_worse" if row["family"] == NON_INFERIOR and p_not_worse < ALPHA else "open"
