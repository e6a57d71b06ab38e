"""What a study could detect, before anything is spent."""

from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

SEED_SD = 3.0
"""Assumed standard deviation, in points, of a task's difference between two arms from seed to seed:
sqrt(2) times the 2 points that DataDecide (Magnusson et al. 2025) reports as the most between runs at 1B."""
DISAGREEMENT = 0.3
"""Assumed share of items on which two arms differ: the variance of an item's paired difference."""


def minimum_detectable(
    tasks: Sequence[Mapping[str, Any]], *, seeds: int, alpha: float = 0.05, power: float = 0.8
) -> dict[str, Any]:
    """Smallest difference of two arms found with `power`: overall, by domain, by task, in points.

    `tasks` need name, domain and items. The seeds' part assumes `SEED_SD` on each task and independent
    tasks; with one seed only items count, which is stated.
    """
    domains: dict[str, list[Mapping[str, Any]]] = {}
    for task in tasks:
        domains.setdefault(str(task["domain"]), []).append(task)
    groups = [("overall", "all tasks", list(tasks))]
    groups += [("domain", name, members) for name, members in domains.items()]
    groups += [("task", str(t["name"]), [t]) for t in tasks]
    rows = [
        {
            "level": level,
            "name": name,
            "points": round(_points(members, seeds, alpha, power), 2),
            "points_one_seed_more": round(_points(members, seeds + 1, alpha, power), 2),
        }
        for level, name, members in groups
    ]
    return {
        "rows": rows,
        "seeds": seeds,
        "assumed": {"seed_sd_points": SEED_SD, "items_that_differ": DISAGREEMENT},
    }


def _points(tasks: Sequence[Mapping[str, Any]], seeds: int, alpha: float, power: float) -> float:
    k = len(tasks)
    items = sum(DISAGREEMENT * 1e4 / t["items"] for t in tasks) / k**2
    from_seeds = SEED_SD**2 / k / seeds if seeds > 1 else 0.0
    df = max(1, seeds - 1) * k if seeds > 1 else sum(t["items"] for t in tasks) - k
    t = stats.t.ppf(1 - alpha / 2, df) + stats.t.ppf(power, df)
    return float(t) * float(from_seeds + items) ** 0.5
