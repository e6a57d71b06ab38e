"""Means of arms with their intervals, and whether they are above chance."""

from typing import Any

import numpy as np

from codestage.analyse.effects import Parts, combine, holm, make_test, moderation, task_parts
from codestage.analyse.records import Records
from codestage.analyse.scales import ALPHA, levels, six

Row = dict[str, Any]


def arm_rows(records: Records, *, stage: str, cot: str, metric: str) -> list[Row]:
    """Mean of every arm at every level, level by level."""
    tasks = records.tasks(stage, cot, metric)
    groups = _by_seeds(records, stage)
    parts = {
        task: [
            task_parts(records.scores[stage, cot, task, metric][np.ix_(arms, seeds)])
            for arms, seeds in groups
        ]
        for task in tasks
    }
    rows: list[Row] = []
    for level, name, members in levels(records, tasks):
        chance = float(np.mean([records.chance(t) for t in members])) if metric == "acc" else None
        group: list[tuple[int, Row]] = []
        for i, (arms, _) in enumerate(groups):
            part = combine([parts[t][i] for t in members])
            shared = {"stage": stage, "cot": cot, "level": level, "name": name, "metric": metric}
            group += [
                (arm, {"arm": records.arms[arm], **shared, **told})
                for arm, told in zip(arms.tolist(), _told(part, chance), strict=True)
                if told["mean"] is not None
            ]
        found = [row for _, row in sorted(group, key=lambda pair: pair[0])]
        if metric == "acc":
            for row, p in zip(found, holm([r["p_chance"] for r in found]), strict=True):
                row["p_chance"], row["above_chance"] = six(p), p < ALPHA
        rows += found
    return rows


def _by_seeds(records: Records, stage: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(arms, their seeds) of arms that have the same seeds."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for arm, ran in enumerate(records.ran(stage)):
        if ran.any():
            groups.setdefault(tuple(np.flatnonzero(ran).tolist()), []).append(arm)
    return [(np.array(arms), np.array(seeds)) for seeds, arms in groups.items()]


def _told(part: Parts, chance: float | None) -> list[Row]:
    """A row for each arm of `part`, without its name."""
    test = make_test(part, moderation(part.seed_variance, part.seeds))
    low, high = test.interval(ALPHA)
    p = test.p_above(chance) if chance is not None else np.full(len(low), np.nan)
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
