"""What the analyses of doses, budgets and mixtures share: units, margins, levels, rounding."""

from collections.abc import Sequence

import numpy as np

from codestage.analyse.records import Records

ALPHA = 0.05
MARGINS = {"acc": 2.0, "prob": 2.0, "bpb": 0.05}
"""Differences that nobody would act on: points for acc and prob, bits per byte for bpb."""
SCALE = {"acc": 100.0, "prob": 100.0, "bpb": -1.0}
"""Of effects: into points; bits per byte with the sign turned, so that positive is better everywhere."""
UNITS = {"acc": "points", "prob": "points", "bpb": "bits"}
MODES = ("off", "supplied", "generated")
ROUNDING = 1e-9


def places(records: Records, metric: str) -> list[tuple[str, str]]:
    """(stage, cot) pairs with scores of `metric`, in the study's order."""
    found = {(s, c) for s, c, _, m in records.scores if m == metric}
    return [(s, c) for s in records.study["stages"] for c in MODES if (s, c) in found]


def levels(records: Records, tasks: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """(level, name, tasks): overall, each domain, each task."""
    domains: dict[str, list[str]] = {}
    for task in tasks:
        domains.setdefault(records.domain(task), []).append(task)
    return [
        ("overall", "all tasks", list(tasks)),
        *(("domain", name, members) for name, members in domains.items()),
        *(("task", task, [task]) for task in tasks),
    ]


def snapped(x: np.ndarray) -> np.ndarray:
    """Differences that are rounding of equal scores are none, or else they would be compared with each other."""
    return np.where(np.abs(x) < ROUNDING, 0.0, x)


def six(value: float | None) -> float | None:
    """Six significant digits, so that a file does not change with the last bit; unknown is null."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")
