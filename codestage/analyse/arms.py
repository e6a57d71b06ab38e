"""Means of arms with their intervals, and whether they are above chance."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from codestage.analyse.effects import Parts, combine, holm, make_test, moderation, task_parts
from codestage.analyse.records import Records
from codestage.analyse.scales import ALPHA, levels, six

Row = dict[str, Any]


def arm_rows(records: Records, *, stage: str, cot: str, metric: str) -> list[Row]:
    """Mean of every arm at every level, level by level.

    After a stage that arms share they have one checkpoint, which counts once where tests are taken together.
    """
    tasks = records.tasks(stage, cot, metric)
    groups = _by_seeds(records, stage)
    parts = {
        task: [
            task_parts(records.scores[stage, cot, task, metric][np.ix_(arms, seeds)])
            for arms, seeds in groups
        ]
        for task in tasks
    }
    checkpoints = [
        _checkpoints([records.scores[stage, cot, t, metric][np.ix_(arms, seeds)] for t in tasks])
        for arms, seeds in groups
    ]
    rows: list[Row] = []
    for level, name, members in levels(records, tasks):
        chance = float(np.mean([records.chance(t) for t in members])) if metric == "acc" else None
        group: list[tuple[int, tuple[int, int], Row]] = []
        for i, (arms, _) in enumerate(groups):
            part = combine([parts[t][i] for t in members], bounded=metric != "bpb")
            shared = {"stage": stage, "cot": cot, "level": level, "name": name, "metric": metric}
            group += [
                (arm, (i, first), {"arm": records.arms[arm], **shared, **told})
                for arm, first, told in zip(
                    arms.tolist(), checkpoints[i], _told(part, checkpoints[i], chance), strict=True
                )
                if told["mean"] is not None
            ]
        if metric == "acc":
            measured = {checkpoint: row["p_chance"] for _, checkpoint, row in group}
            adjusted = dict(zip(measured, holm(list(measured.values())), strict=True))
            for _, checkpoint, row in group:
                p = adjusted[checkpoint]
                row["p_chance"], row["above_chance"] = six(p), p < ALPHA
        rows += [row for _, _, row in sorted(group, key=lambda told: told[0])]
    return rows


def _by_seeds(records: Records, stage: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(arms, their seeds) of arms that have the same seeds."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for arm, ran in enumerate(records.ran(stage)):
        if ran.any():
            groups.setdefault(tuple(np.flatnonzero(ran).tolist()), []).append(arm)
    return [(np.array(arms), np.array(seeds)) for seeds, arms in groups.items()]


def _checkpoints(scores: Sequence[np.ndarray]) -> list[int]:
    """Of each arm the first with the same scores `[arm, seed, item]` on every item: they share their checkpoints."""
    first: dict[tuple[bytes, ...], int] = {}
    keys = [tuple(task[arm].tobytes() for task in scores) for arm in range(len(scores[0]))]
    return [first.setdefault(key, arm) for arm, key in enumerate(keys)]


def _told(part: Parts, checkpoints: Sequence[int], chance: float | None) -> list[Row]:
    """A row for each arm of `part`, without its name."""
    apart = np.unique(checkpoints)
    test = make_test(part, moderation(part.by_seed[apart]))
    low, high = test.interval(ALPHA)
    p = np.full(len(low), np.nan)
    if chance is not None:
        blind = chance**test.items  # so often a blind answer to every item is right
        p = np.where(test.estimate == 1, np.maximum(test.p_above(chance), blind), test.p_above(chance))
    return [
        {
            "mean": six(mean),
            "low": six(lowest),
            "high": six(highest),
            "n_items": int(items),
            "seeds": test.seeds,
            "chance": None if chance is None else six(chance),
            "above_chance": None,
            **({} if chance is None else {"p_chance": above}),
        }
        for mean, lowest, highest, items, above in zip(
            test.estimate.tolist(),
            low.tolist(),
            high.tolist(),
            test.items.tolist(),
            p.tolist(),
            strict=True,
        )
    ]
