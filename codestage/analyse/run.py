"""The whole analysis: records in, `effects.json` out. A pure function of the records."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codestage.analyse.contrasts import Contrast, contrasts
from codestage.analyse.effects import Parts, Test, holm, make_test, moderation, parts
from codestage.analyse.records import Records, read_records

ALPHA = 0.05
MARGINS = {"acc": 2.0, "prob": 2.0, "bpb": 0.05}
"""Differences that nobody would act on: points for acc and prob, bits per byte for bpb."""
SCALE = {"acc": 100.0, "prob": 100.0, "bpb": -1.0}
"""Of effects: into points; bits per byte with the sign turned, so that positive is better everywhere."""
UNITS = {"acc": "points", "prob": "points", "bpb": "bits"}

Row = dict[str, Any]


def analyse(folder: Path) -> dict[str, Any]:
    """Effects and arm means of the study in `folder`; see docs/formats.md for the form."""
    records = read_records(folder)
    rows: list[Row] = []
    last = records.study["stages"][-1]
    for metric in MARGINS:
        for stage, cot in _places(records, metric):
            asked = [
                c
                for c in contrasts(records.study)
                if c.cot is None and (stage == last or c.family == stage)
            ]
            rows += _effects(records, asked, stage=stage, cot=cot, metric=metric)
        asked = [c for c in contrasts(records.study) if c.cot is not None]
        rows += _effects(records, asked, stage=last, cot="off", metric=metric)
    arms = [
        row
        for metric in MARGINS
        for stage, cot in _places(records, metric)
        for row in _arm_means(records, stage=stage, cot=cot, metric=metric)
    ]
    return {
        "study": records.study["name"],
        "seeds": records.seeds,
        "alpha": ALPHA,
        "margins": MARGINS,
        "arms": arms,
        "effects": rows,
        "notes": _notes(records),
    }


def _places(records: Records, metric: str) -> list[tuple[str, str]]:
    """(stage, cot) pairs with scores of `metric`, in the study's order."""
    found = {(s, c) for s, c, _, m in records.scores if m == metric}
    cots = ["off", "supplied", "generated"]
    return [(s, c) for s in records.study["stages"] for c in cots if (s, c) in found]


def _levels(records: Records, tasks: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """(level, name, tasks): overall, each domain, each task."""
    domains: dict[str, list[str]] = {}
    for task in tasks:
        domains.setdefault(records.domain(task), []).append(task)
    return [
        ("overall", "all tasks", list(tasks)),
        *(("domain", name, members) for name, members in domains.items()),
        *(("task", task, [task]) for task in tasks),
    ]


def _difference(
    records: Records, contrast: Contrast, stage: str, cot: str, task: str, metric: str
) -> np.ndarray | None:
    """D `[seed, item]` of a contrast on a task; None if the task has no such scores."""
    scores = records.scores.get((stage, cot, task, metric))
    if contrast.cot is not None:
        before = records.scores.get((stage, contrast.cot[0], task, metric))
        after = records.scores.get((stage, contrast.cot[1], task, metric))
        if before is None or after is None or before.shape != after.shape:
            return None
        scores = after - before
    if scores is None:
        return None
    weights = np.array([contrast.weights.get(arm, 0.0) for arm in records.arms])
    used = weights != 0
    return np.tensordot(weights[used], scores[used], axes=1)


def _effects(
    records: Records, asked: Iterable[Contrast], *, stage: str, cot: str, metric: str
) -> list[Row]:
    """Rows of all contrasts at all levels for one stage, mode and metric."""
    found: list[tuple[Contrast, str, str, Parts]] = []
    for contrast in asked:
        tasks = records.tasks(stage, cot, metric)
        d = {t: _difference(records, contrast, stage, cot, t, metric) for t in tasks}
        tasks = [t for t in tasks if d[t] is not None and records.domain(t) != contrast.outside]
        levels = _levels(records, tasks)
        for level, name, members in levels if contrast.outside is None else levels[:1]:
            part = parts([d[t] for t in members], bounded=metric != "bpb")  # type: ignore[misc]
            if part is not None:
                found.append((contrast, level, name, part))
    rows = []
    for (contrast, level, name, _), test in zip(found, _tests(found), strict=True):
        rows.append(_row(contrast, level, name, test, stage=stage, cot=cot, metric=metric))
    _adjust(rows)
    return rows


def _tests(found: Sequence[tuple[Contrast, str, str, Parts]]) -> list[Test]:
    """Tests with seeds' variances moderated within (family, level)."""
    groups: dict[tuple[str, str], list[Parts]] = {}
    for contrast, level, _, part in found:
        groups.setdefault((contrast.family, level), []).append(part)
    priors = {key: moderation(group) for key, group in groups.items()}
    return [make_test(part, priors[c.family, level]) for c, level, _, part in found]


def _row(
    contrast: Contrast, level: str, name: str, test: Test, *, stage: str, cot: str, metric: str
) -> Row:
    scale = SCALE[metric]
    low, high = sorted(scale * x for x in test.interval(ALPHA))
    if contrast.cot is not None:
        cot = contrast.cot[1]
    return {
        "contrast": contrast.name,
        "label": contrast.label,
        "family": contrast.family,
        "level": level,
        "name": name,
        "metric": metric,
        "stage": stage,
        "cot": cot,
        "estimate": _round(scale * test.estimate),
        "low": _round(low),
        "high": _round(high),
        "p": _round(test.p),
        "p_equivalent": _round(test.p_equivalent(MARGINS[metric] / abs(scale))),
        "n_items": test.items,
        "seeds": test.seeds,
        "mde": _round(abs(scale) * test.detectable(ALPHA)),
        "unit": UNITS[metric],
    }


def _adjust(rows: list[Row]) -> None:
    """Holm within each family and level; then the verdict in one word."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["family"], row["level"]), []).append(row)
    for group in groups.values():
        for row, p in zip(group, holm([r["p"] for r in group]), strict=True):
            row["p_adjusted"] = _round(p)
            row["verdict"] = verdict(row)


def verdict(row: Mapping[str, Any]) -> str:
    """up | down (a difference), equivalent (within the margin), or open (cannot be told)."""
    if row["p_adjusted"] < ALPHA:
        return "up" if row["estimate"] > 0 else "down"
    return "equivalent" if row["p_equivalent"] < ALPHA else "open"


def _arm_means(records: Records, *, stage: str, cot: str, metric: str) -> list[Row]:
    """Mean of every arm at every level, with its interval, and whether it is above chance."""
    rows: list[Row] = []
    tasks = records.tasks(stage, cot, metric)
    for level, name, members in _levels(records, tasks):
        chance = float(np.mean([records.chance(t) for t in members]))
        group: list[Row] = []
        found = []
        for a, arm in enumerate(records.arms):
            part = parts([records.scores[stage, cot, t, metric][a] for t in members])
            if part is not None:
                found.append((arm, part))
        prior = moderation([part for _, part in found])
        for arm, part in found:
            test = make_test(part, prior)
            low, high = test.interval(ALPHA)
            row = {
                "arm": arm,
                "stage": stage,
                "cot": cot,
                "level": level,
                "name": name,
                "metric": metric,
                "mean": _round(test.estimate),
                "low": _round(low),
                "high": _round(high),
                "n_items": test.items,
                "seeds": test.seeds,
                "chance": None,
                "above_chance": None,
            }
            if metric == "acc":
                row |= {"chance": _round(chance), "p_chance": test.p_above(chance)}
            group.append(row)
        if metric == "acc":
            for row, p in zip(group, holm([r["p_chance"] for r in group]), strict=True):
                row["p_chance"] = _round(p)
                row["above_chance"] = p < ALPHA
        rows += group
    return rows


def _notes(records: Records) -> list[str]:
    """What a reader must know beside the numbers."""
    notes = []
    if len(records.seeds) == 1:
        notes.append(
            "One seed: intervals cover the choice of items only, not how runs differ by chance."
        )
    unknown = {k: int(np.isnan(v).sum()) for k, v in records.scores.items()}
    for (stage, cot, task, metric), count in sorted(unknown.items()):
        if count:
            notes.append(f"{task} ({metric}, {stage}, {cot}): {count} scores are unknown, left out.")
    return notes


def _round(value: float) -> float | None:
    """Six significant digits, so that the file does not change with the last bit; NaN is null."""
    return None if not np.isfinite(value) else float(f"{value:.6g}")
