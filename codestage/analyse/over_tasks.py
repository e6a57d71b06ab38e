"""Mean, variance and quartiles of the scores over tasks: of two sides of a contrast, and along doses.

Two sides. A task's scores are averaged over items and seeds, so that each side has one number a task. If it made no
difference which side is which, the two numbers of a task might as well stand the other way round, whatever the task's
own difficulty: the sides are swapped task by task (Fisher 1935; Pitman 1937), all ways there are up to `EXACT` tasks.
All seeds of a task are swapped together, because what a recipe does to a task it does on every seed: to swap them
one by one would count one task's effect as many. What the swaps hold for chance is which task gains, not
which training got lucky: a lucky run lifts many tasks at once. Hence the seeds that agree are counted beside it.

Along doses. Each run has its own mean, variance and quartiles over tasks. If the dose made no difference, the runs of
a seed might as well have had each other's doses: they are dealt out anew within each seed, and the slope is compared.
That asks of other trainings, on these tasks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from codestage.analyse.contrasts import Contrast
from codestage.analyse.dose import FEWEST, stage_doses
from codestage.analyse.effects import benjamini_hochberg, holm
from codestage.analyse.records import Records
from codestage.analyse.scales import MARGINS, SCALE, UNITS, places, six
from codestage.study.identity import digest

STATISTICS = ("mean", "variance", "lower quartile", "upper quartile")
FEWEST_TASKS = 6
"""Five can be swapped in 32 ways, of which the outermost two already make p = 0.0625."""
EXACT = 13
"""Tasks up to which all swaps are made: at most 8,192, which are 4,096 and their mirror images."""
DRAWN = 9_999
"""Swaps, or deals of doses, that are drawn where there are more."""
MOST = 125
"""Pairs in a family. Of more, no p of one in ten thousand stays below 0.05 once it is corrected for four statistics each."""
ROUNDING = 1e-9

Row = dict[str, Any]


def over_tasks(records: Records, asked: Sequence[Contrast]) -> dict[str, list[Row]]:
    """`pairs` and `doses`, measured after the last stage; see docs/formats.md."""
    last = records.study["stages"][-1]
    ran = records.ran(last)
    pairs = [*(c for c in asked if two_sided(c)), *_settings(records.study)]
    families: dict[str, list[Contrast]] = {}
    for pair in pairs:
        families.setdefault(pair.family, []).append(pair)
    found: dict[str, list[Row]] = {"pairs": [], "doses": []}
    for metric in MARGINS:
        for stage, cot in [(s, c) for s, c in places(records, metric) if s == last]:
            where = {"stage": stage, "cot": cot, "metric": metric}
            for family in families.values():
                if len(family) <= MOST:
                    found["pairs"] += _corrected(_pair_rows(records, family, ran, where))
            found["doses"] += _corrected(_dose_rows(records, ran, where))
    return found


def two_sided(contrast: Contrast) -> bool:
    """Whether the contrast sets a mean of arms against a mean of others, which an interaction does not."""
    gains = sum(w for w in contrast.weights.values() if w > 0)
    losses = sum(w for w in contrast.weights.values() if w < 0)
    return contrast.cot is None and abs(gains - 1) < ROUNDING and abs(losses + 1) < ROUNDING


def _settings(study: Mapping[str, Any]) -> list[Contrast]:
    """Code on top of all the text against as large a share of code in place of text."""
    found = []
    for added in (a for a in study["arms"] if a["control"] == "additive"):
        for arm in study["arms"]:
            replaces = arm["role"] == "grid" or arm["control"] == "competitive"
            if replaces and _options(arm) == _options(added):
                name = f"{added['name']} against {arm['name']}"
                weights = {added["name"]: 1.0, arm["name"]: -1.0}
                found.append(Contrast(name, f"{name} (on top, in place)", "setting", weights))
    return found


def _options(arm: Mapping[str, Any]) -> dict[str, str]:
    """Stage -> option, without what a control adds to its name."""
    return {stage: option.partition("@")[0] for stage, option in arm["factors"].items()}


def statistics(scores: np.ndarray) -> np.ndarray:
    """`[..., statistic]` of scores `[..., task]`: `STATISTICS`, the variance that of a sample (n - 1)."""
    quartiles = np.quantile(scores, [0.25, 0.75], axis=-1)
    return np.stack([scores.mean(axis=-1), scores.var(axis=-1, ddof=1), *quartiles], axis=-1)


def swaps(tasks: Sequence[str]) -> np.ndarray:
    """`[swap, task]` bool, the first that of none: every way, or `DRAWN` from a generator seeded by the tasks' names.

    The last of up to `EXACT` tasks always stays: to swap all the others instead turns a difference's sign and no more.
    """
    n = len(tasks)
    if n <= EXACT:
        return (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1 == 1
    rng = np.random.default_rng(int(digest(list(tasks)), 16))
    return np.vstack([np.zeros((1, n), dtype=bool), rng.random((DRAWN, n)) < 0.5])


def swapped(plus: np.ndarray, minus: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Two-sided p `[pair, statistic]` of scores `[pair, task]`: the share of `ways` that part the sides as far."""
    p = np.empty((len(plus), len(STATISTICS)))
    for i, (a, b) in enumerate(zip(plus, minus, strict=True)):
        parted = np.abs(statistics(np.where(ways, b, a)) - statistics(np.where(ways, a, b)))
        p[i] = (parted >= parted[0] - ROUNDING).mean(axis=0)
    return p


def dealt(doses: np.ndarray, of_runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(slope, two-sided p) `[statistic]` of runs' statistics `[dose, seed, statistic]` on `doses` `[dose]`.

    Doses are dealt out anew within each seed, `DRAWN` times; the same deals for as many doses and seeds.
    """
    k, seeds = of_runs.shape[:2]
    centred = doses - doses.mean()
    weights = centred / (centred @ centred) / seeds
    rng = np.random.default_rng([4, k, seeds])
    slope = np.einsum("d,dsv->v", weights, of_runs)
    beyond = np.zeros(len(slope))
    for start in range(0, DRAWN, 1111):
        deals = rng.random((min(1111, DRAWN - start), k, seeds)).argsort(axis=1)
        anew = np.einsum("nds,dsv->nv", weights[deals], of_runs)
        beyond += (np.abs(anew) >= np.abs(slope) - ROUNDING).sum(axis=0)
    return slope, (beyond + 1) / (DRAWN + 1)


def _pair_rows(
    records: Records, pairs: Sequence[Contrast], ran: np.ndarray, where: Mapping[str, str]
) -> list[Row]:
    """A row for each pair that has six tasks and a seed, p not yet corrected."""
    number = {arm: i for i, arm in enumerate(records.arms)}
    groups: dict[tuple[Any, ...], list[Contrast]] = {}
    for pair in pairs:
        seeds = np.flatnonzero(ran[[number[arm] for arm in pair.weights]].all(axis=0))
        groups.setdefault((pair.outside, tuple(seeds.tolist())), []).append(pair)
    rows = []
    for (outside, seeds), members in groups.items():
        tasks = [t for t in records.tasks(*where.values()) if records.domain(t) != outside]
        if seeds and len(tasks) >= FEWEST_TASKS:
            ways = swaps(tasks)
            groups_of_two = [_two_sides(pair, number) for pair in members]
            scores = _scores(records, groups_of_two, np.array(seeds), tasks, where)
            rows += _told(members, scores, ways, where)
    place = {pair.name: i for i, pair in enumerate(pairs)}
    return sorted(rows, key=lambda row: place[row["contrast"]])


def _two_sides(pair: Contrast, number: Mapping[str, int]) -> list[dict[int, float]]:
    """Arm -> share of the side with weights above zero, and of that below."""
    return [{number[a]: s * w for a, w in pair.weights.items() if s * w > 0} for s in (1, -1)]


def _scores(
    records: Records,
    groups: Sequence[Sequence[Mapping[int, float]]],
    seeds: np.ndarray,
    tasks: Sequence[str],
    where: Mapping[str, str],
) -> np.ndarray:
    """`[group, side, seed, task]`: means over items of groups of as many sides, each with its shares of arms.

    Points above chance, other shares as points, or bits with the sign turned. An item that one side of a group does not
    know is left out of them all; NaN where no item is left.
    """
    metric = where["metric"]
    sides = [side for group in groups for side in group]
    at = [(i, arm, share) for i, side in enumerate(sides) for arm, share in side.items()]
    row, column, share = zip(*at, strict=True)
    shares = sparse.csr_array((share, (row, column)), shape=(len(sides), len(records.arms)))
    found = []
    for task in tasks:
        used = records.scores[where["stage"], where["cot"], task, metric][:, seeds].astype(np.float64)
        told = (shares @ used.reshape(len(used), -1)).reshape(len(groups), -1, *used.shape[1:])
        known = ~np.isnan(told).any(axis=(1, 2), keepdims=True)
        with np.errstate(invalid="ignore"):
            mean = np.where(known, told, 0.0).sum(axis=-1) / known.sum(axis=-1)
        found.append(SCALE[metric] * (mean - (records.chance(task) if metric == "acc" else 0.0)))
    return np.stack(found, axis=-1)


def _told(
    pairs: Sequence[Contrast], scores: np.ndarray, ways: np.ndarray, where: Mapping[str, str]
) -> list[Row]:
    """Rows of pairs from their scores `[pair, side, seed, task]`; those with an unknown task are left out."""
    kept = np.flatnonzero(~np.isnan(scores).any(axis=(1, 2, 3))).tolist()
    scores = scores[kept]
    plus, minus = np.moveaxis(scores.mean(axis=2), 1, 0)
    of_plus, of_minus = statistics(plus), statistics(minus)
    by_seed = statistics(scores[:, 0]) - statistics(scores[:, 1])
    p = swapped(plus, minus, ways)
    rows = []
    for i, pair in enumerate(pairs[k] for k in kept):
        apart = of_plus[i] - of_minus[i]
        agree = (np.sign(by_seed[i]) == np.sign(apart)).sum(axis=0)
        told = [
            {
                "statistic": name,
                "plus": six(float(of_plus[i, v])),
                "minus": six(float(of_minus[i, v])),
                "difference": six(float(apart[v])),
                "p": six(float(p[i, v])),
                "seeds_agree": int(agree[v]),
            }
            for v, name in enumerate(STATISTICS)
        ]
        row: Row = {
            "contrast": pair.name,
            "label": pair.label,
            "family": pair.family,
            **where,
            "unit": UNITS[where["metric"]],
        }
        row |= {"tasks": scores.shape[3], "seeds": scores.shape[2], "smallest_p": six(1 / len(ways))}
        rows.append(row | {"statistics": told})
    return rows


def _dose_rows(records: Records, ran: np.ndarray, where: Mapping[str, str]) -> list[Row]:
    """A row for each stage with three doses or more and two seeds that ran them all, p not yet corrected."""
    tasks = records.tasks(*where.values())
    rows = []
    for stage in records.study["stages"] if len(tasks) >= FEWEST_TASKS else ():
        doses = [d for d in stage_doses(records, stage) if ran[list(d.arms)].any()]
        arms = [arm for dose in doses for arm in dose.arms]
        seeds = np.flatnonzero(ran[arms].all(axis=0))
        if len(doses) < FEWEST or len(seeds) < 2:
            continue
        sides = [dict.fromkeys(dose.arms, 1 / len(dose.arms)) for dose in doses]
        (scores,) = _scores(records, [sides], seeds, tasks, where)
        if np.isnan(scores).any():
            continue
        of_runs = statistics(scores)
        slope, p = dealt(np.array([d.share for d in doses]), of_runs)
        told = [
            {
                "statistic": name,
                "means": [six(float(x)) for x in of_runs[..., v].mean(axis=1)],
                "slope": six(float(slope[v]) / 10),
                "p": six(float(p[v])),
            }
            for v, name in enumerate(STATISTICS)
        ]
        row: Row = {
            "varied": stage,
            **where,
            "unit": UNITS[where["metric"]],
            "doses": [six(d.share) for d in doses],
        }
        rows.append(row | {"tasks": len(tasks), "seeds": len(seeds), "statistics": told})
    return rows


def _corrected(rows: list[Row]) -> list[Row]:
    """With Holm's and Benjamini and Hochberg's p over all statistics of all rows."""
    told = [entry for row in rows for entry in row["statistics"]]
    ps = [entry["p"] for entry in told]
    for entry, adjusted, q in zip(told, holm(ps), benjamini_hochberg(ps), strict=True):
        entry["p_adjusted"], entry["q"] = six(adjusted), six(q)
    return rows
