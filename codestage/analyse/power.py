"""What a study could detect, before anything is spent.

A difference of two arms on a task varies by seed, by item and by both, as `effects` takes it to. How much
comes from a pilot study, or is assumed. The smallest effect found with a power of 80 % is then solved for with the
test that the analysis will use: estimates of both parts of the variance are drawn from what they would be,
Student's t values are weighted as `effects.Test` weights them, and the power is averaged over the draws. That
matters with few seeds: where all varies by seed, two seeds find an effect of some sixteen standard errors, five of three and a half.

Two arms, because arms that share a stage share its luck: an effect at the first stage rests on one training a side
and seed, however many arms follow from it. Moderation, which the analysis uses where eight or more effects are
alike, is not counted on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from codestage.analyse.records import Records, read_records
from codestage.analyse.run import analyse
from codestage.analyse.scales import ALPHA
from codestage.errors import UserError

POWER = 0.8
SEED_SD = 3.0
"""Assumed standard deviation, in points, of a task's difference between two arms from seed to seed:
sqrt(2) times the 2 points that DataDecide (Magnusson et al. 2025) reports as the most between runs at 1B."""
DISAGREEMENT = 0.3
"""Assumed share of items on which two arms differ: the variance of an item's paired difference."""
LASTING = 1 / 3
"""Assumed share of that which is the same on every seed, so that only more items shrink it. In the quickstart, whose
models are small, it is below a tenth."""
PLAUSIBLE = 10.3
"""Points: the largest gain of code that Zhang et al. 2025 report (code at instruction tuning, Mistral 7B, mean of their tasks).
A task that would not even find that resolves nothing."""
LADDER = (2, 3, 5, 8)
MOST_SEEDS, MOST_ITEMS = 30, 100_000
"""Up to where it is asked what would mend a task."""
NEEDED = ("items_needed", "seeds_needed")
DRAWS = 2048


@dataclass(frozen=True)
class Spread:
    """How the difference of two arms on one task varies; variances of shares (0 to 1)."""

    seed: float
    """From seed to seed, beyond what items give."""
    item: float
    """Of one item, the same on every seed."""
    rest: float
    """Of one item on one seed, beyond both."""


ASSUMED = Spread((SEED_SD / 100) ** 2, LASTING * DISAGREEMENT, (1 - LASTING) * DISAGREEMENT)


@dataclass(frozen=True)
class Pilot:
    """What a finished study tells of the next one: tasks by name, in accuracy after its last stage."""

    name: str
    means: Mapping[str, np.ndarray]
    """`[arm, seed]` over items: grid arms, seeds that all of them have."""
    spreads: Mapping[str, Spread]
    items: Mapping[str, int]
    at_chance: frozenset[str]
    """Tasks on which no arm was above chance."""

    def seed_variance(self, tasks: Sequence[str]) -> float:
        """Of the mean over tasks from seed to seed, with what items of the pilot's size add."""
        means = np.mean([self.means[t] for t in tasks], axis=0)
        return _pairs((means - means.mean(axis=0)).var(axis=1, ddof=1))


def read_pilot(folder: Path) -> Pilot:
    """The pilot in a study's folder.

    Raises:
        UserError: if its records cannot be read, or hold too little to tell how arms differ by chance.
    """
    records = read_records(folder)
    means, spreads, items = {}, {}, {}
    last = records.study["stages"][-1]
    for task in records.tasks(last, "off", "acc"):
        scores = _whole(records, task)
        if scores is not None:
            means[task] = scores.mean(axis=2)
            spreads[task] = _spread(scores)
            items[task] = scores.shape[2]
    if not spreads:
        raise UserError(
            f"{folder}: a pilot tells how runs differ by chance, which takes two arms and two seeds with scores; "
            "give another study's folder, or plan without --pilot"
        )
    rows = [
        row
        for row in analyse(folder)["arms"]
        if (row["level"], row["metric"], row["cot"], row["stage"]) == ("task", "acc", "off", last)
    ]
    able = {row["name"] for row in rows if row["above_chance"]}
    at_chance = frozenset(spreads.keys() - able)
    return Pilot(str(records.study["name"]), means, spreads, items, at_chance)


def _whole(records: Records, task: str) -> np.ndarray | None:
    """`[arm, seed, item]`: grid arms, the seeds that all have on all tasks, items known in all of these."""
    last = records.study["stages"][-1]
    grid = [arm["role"] == "grid" for arm in records.study["arms"]]
    kept = np.ones(len(records.seeds), dtype=bool)
    for name in records.tasks(last, "off", "acc"):
        kept &= ~np.isnan(records.scores[last, "off", name, "acc"][grid]).all(axis=2).any(axis=0)
    scores = records.scores[last, "off", task, "acc"][grid][:, kept].astype(np.float64)
    scores = scores[:, :, ~np.isnan(scores).any(axis=(0, 1))]
    return scores if min(scores.shape) > 1 else None


def _pairs(of_arms: np.ndarray) -> float:
    """Mean over all pairs of arms of a sum of squares of their difference.

    From the same sum for each arm `[arm]` less the mean of arms: over pairs, (a - b)² is on average 2 / (arms - 1) times
    the sum over arms of (a - mean)².
    """
    return float(2 * of_arms.sum() / (len(of_arms) - 1))


def _spread(scores: np.ndarray) -> Spread:
    """Analysis of variance of two arms' differences, all pairs together; `[arm, seed, item]`."""
    z = scores - scores.mean(axis=0)
    _, seeds, items = z.shape
    by_seed, by_item = z.mean(axis=2, keepdims=True), z.mean(axis=1, keepdims=True)
    rest = z - by_seed - by_item + z.mean(axis=(1, 2), keepdims=True)
    within = _pairs((rest**2).sum(axis=(1, 2)) / ((seeds - 1) * (items - 1)))
    between = _pairs(by_item[:, 0].var(axis=1, ddof=1))
    seed = _pairs(by_seed[:, :, 0].var(axis=1, ddof=1))
    return Spread(max(0.0, seed - within / items), max(0.0, between - within / seeds), within)


@dataclass(frozen=True)
class Level:
    """A mean over tasks: what its difference of two arms varies by."""

    seed: float
    """Variance of the mean from seed to seed, beyond what items give."""
    tasks: tuple[tuple[Spread, int], ...]
    """(spread, items)"""

    @cached_property
    def floor(self) -> float:
        """Smallest effect found, in points, with seeds without end."""
        parts = np.array([s.item / n / len(self.tasks) ** 2 for s, n in self.tasks])
        if parts.sum() == 0:
            return 0.0
        df = parts.sum() ** 2 / sum(
            v**2 / max(1, n - 1) for v, (_, n) in zip(parts, self.tasks, strict=True)
        )
        return float(
            100 * parts.sum() ** 0.5 * (stats.t.isf(ALPHA / 2, df) + stats.t.isf(1 - POWER, df))
        )

    def points(self, seeds: int) -> float:
        """Smallest effect found with the power, in points; with one seed as far as items go."""
        rng = np.random.default_rng(
            0
        )  # the same draws for all, so that more seeds are never told as worse
        k, items = len(self.tasks), np.zeros(DRAWS)
        true, spread = 0.0, np.zeros(DRAWS)
        from_seeds = self.seed + sum(s.rest / n for s, n in self.tasks) / k**2 if seeds > 1 else 0.0
        for s, n in self.tasks:
            df = max(1, n - 1)
            between = (s.item + s.rest / seeds) * rng.chisquare(df, DRAWS) / df
            within = (
                s.rest / seeds * rng.chisquare(df * (seeds - 1), DRAWS) / df / (seeds - 1)
                if seeds > 1
                else 0.0
            )
            own = np.maximum(0.0, between - within) / n / k**2
            items, spread = items + own, spread + own**2 / df
            true += (s.item if seeds > 1 else s.item + s.rest) / n / k**2
        df = np.divide(
            items**2, spread, out=np.full(DRAWS, float(sum(n for _, n in self.tasks))), where=spread > 0
        )
        reach = items * -special.stdtrit(df, ALPHA / 2)
        total, sd = items, (true + from_seeds / seeds) ** 0.5
        if seeds > 1:
            strata = (rng.permutation(DRAWS) + 0.5) / DRAWS
            drawn = from_seeds / seeds * special.chdtri(seeds - 1, strata) / (seeds - 1)
            reach = reach + drawn * -special.stdtrit(seeds - 1, ALPHA / 2)
            total = total + drawn
        return 100 * _solve(reach / np.maximum(total, 1e-300) ** 0.5, sd)


def _solve(reach: np.ndarray, sd: float) -> float:
    """The effect that an estimate of standard deviation `sd` puts beyond `reach` `[draw]` with the power."""
    if sd == 0:
        return 0.0

    def short(effect: float) -> float:
        beyond = special.ndtr((effect - reach) / sd) + special.ndtr((-effect - reach) / sd)
        return float(beyond.mean()) - POWER

    return float(optimize.brentq(short, 0.0, float(reach.max()) + 10 * sd, xtol=1e-9))


def minimum_detectable(
    tasks: Sequence[Mapping[str, Any]], *, seeds: int, pilot: Pilot | None = None
) -> dict[str, Any]:
    """Smallest difference of two arms found in four of five studies: overall, by domain, by task, in points.

    `tasks` need name, domain and items. A row has: level, name, items, points, points_one_seed_more, by_seeds (what other
    numbers of seeds would find), floor (what no number of seeds gets below with these items) and from: pilot, assumed or
    both. Tasks that are not in the pilot are taken as `ASSUMED` and independent of the others.
    `unresolvable` names tasks that could not even find `PLAUSIBLE` points, or were at chance in the pilot: name, why,
    mend, at_chance, and one of items_needed and seeds_needed would do (null: none up to 100,000 and 30 does).
    """
    domains: dict[str, list[Mapping[str, Any]]] = {}
    for task in tasks:
        domains.setdefault(str(task["domain"]), []).append(task)
    groups = [("overall", "all tasks", list(tasks))]
    groups += [("domain", name, members) for name, members in domains.items()]
    groups += [("task", str(t["name"]), [t]) for t in tasks]
    known = pilot.spreads.keys() if pilot else set()
    rows: list[dict[str, Any]] = []
    unresolvable: list[dict[str, Any]] = []
    for level, name, members in groups:
        made = _level(members, pilot)
        here = {str(t["name"]) in known for t in members}
        row: dict[str, Any] = {
            "level": level,
            "name": name,
            "items": sum(int(t["items"]) for t in members),
            "points": round(made.points(seeds), 2),
            "points_one_seed_more": round(made.points(seeds + 1), 2),
            "by_seeds": {str(n): round(made.points(n), 2) for n in LADDER},
            "floor": round(made.floor, 2),
            "from": "both" if len(here) > 1 else "pilot" if here == {True} else "assumed",
        }
        rows.append(row)
        if level == "task":
            chance = pilot is not None and name in pilot.at_chance
            if chance or row["points"] > PLAUSIBLE:
                unresolvable.append(_unresolvable(row, made, seeds, chance))
    return {
        "rows": rows,
        "seeds": seeds,
        "plausible": PLAUSIBLE,
        "unresolvable": unresolvable,
        "pilot": pilot.name if pilot else None,
        "assumed": {
            "seed_sd_points": SEED_SD,
            "items_that_differ": DISAGREEMENT,
            "of_these_on_every_seed": round(LASTING, 3),
        },
    }


def _level(members: Sequence[Mapping[str, Any]], pilot: Pilot | None) -> Level:
    known = [str(t["name"]) for t in members if pilot and str(t["name"]) in pilot.spreads]
    spreads = pilot.spreads if pilot else {}
    k = len(members)
    seed = (k - len(known)) * ASSUMED.seed / k**2
    if pilot and known:
        m = len(known)
        among = sum(spreads[t].rest / pilot.items[t] for t in known) / m**2
        seed += max(0.0, pilot.seed_variance(known) - among) * (m / k) ** 2
    return Level(seed, tuple((spreads.get(str(t["name"]), ASSUMED), int(t["items"])) for t in members))


def _unresolvable(row: Mapping[str, Any], level: Level, seeds: int, chance: bool) -> dict[str, Any]:
    """Why a task resolves nothing, and what would mend it."""
    name = row["name"]
    if chance:
        why = "at chance in every arm of the pilot, so that it can show neither help nor harm"
        mend = "neither more items nor more seeds: an easier task, or a larger model"
        return {"name": name, "why": why, "mend": mend, "at_chance": True} | dict.fromkeys(NEEDED)
    needed = dict(zip(NEEDED, (_items_needed(level, seeds), _seeds_needed(level, seeds)), strict=True))
    mends = [f"{n:,} {what.partition('_')[0]}" for what, n in needed.items() if n is not None]
    return {
        "name": name,
        "why": f"{row['points']:.1f} points with {row['items']:,} items and {seeds} seed{'s' * (seeds > 1)}, above "
        f"{PLAUSIBLE} points, the largest gain reported",
        "mend": " or ".join(mends) or "neither more items nor more seeds",
        "at_chance": False,
    } | needed


def _items_needed(level: Level, seeds: int) -> int | None:
    """Fewest items with which one task finds what is plausible; None: not with `MOST_ITEMS`."""
    spread = level.tasks[0][0]

    def enough(n: int) -> bool:
        return Level(level.seed, ((spread, n),)).points(seeds) <= PLAUSIBLE

    low, high = level.tasks[0][1], MOST_ITEMS
    if not enough(high):
        return None
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    coarse = 10 ** max(0, len(str(high)) - 2)
    return -(-high // coarse) * coarse


def _seeds_needed(level: Level, seeds: int) -> int | None:
    more = range(max(2, seeds + 1), MOST_SEEDS + 1)
    return next((n for n in more if level.points(n) <= PLAUSIBLE), None)
