"""The whole analysis: records in, `effects.json` out. A pure function of the records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codestage.analyse.agreement import decisions
from codestage.analyse.arms import arm_rows
from codestage.analyse.contrasts import Contrast, contrasts
from codestage.analyse.dose import dose_response
from codestage.analyse.losses import loss_rows, read_losses
from codestage.analyse.mixed import block_means, fit, second_opinion
from codestage.analyse.mixtures import mixture_laws
from codestage.analyse.over_tasks import over_tasks
from codestage.analyse.records import Records, read_records
from codestage.analyse.rows import Row, effect_rows
from codestage.analyse.scales import ALPHA, MARGINS, SCALE, levels, places, six
from codestage.analyse.scaling import scaling
from codestage.analyse.sequential import sequential
from codestage.analyse.shrink import shrink

WHOLE = (-100.0, 100.0)
"""Points that a difference of two shares can have."""


def analyse(folder: Path) -> dict[str, Any]:
    """Effects and arm means of the study in `folder`; see docs/formats.md for the form."""
    records = read_records(folder)
    losses = read_losses(folder / "results" / "validation.parquet")
    asked, rows = contrasts(records.study), []
    last = records.study["stages"][-1]
    for metric in MARGINS:
        for stage, cot in places(records, metric):
            here = [c for c in asked if c.cot is None and (stage == last or c.family == stage)]
            rows += effect_rows(records, here, stage=stage, cot=cot, metric=metric)
        modes = [c for c in asked if c.cot is not None]
        rows += effect_rows(records, modes, stage=last, cot="off", metric=metric)
    _second_opinions(records, asked, rows)
    _shrunk(rows, records.study["stages"])
    arms = [
        row
        for metric in MARGINS
        for stage, cot in places(records, metric)
        for row in arm_rows(records, stage=stage, cot=cot, metric=metric)
    ]
    return {
        "study": records.study["name"],
        "seeds": records.seeds,
        "alpha": ALPHA,
        "margins": MARGINS,
        "arms": arms,
        "effects": rows,
        "sequential": _sequential(records, rows),
        "doses": dose_response(records),
        "losses": loss_rows(records, asked, losses),
        "scaling": scaling(records, losses),
        "mixtures": mixture_laws(records),
        "decisions": decisions(records),
        "over_tasks": over_tasks(records, asked),
        "notes": _notes(records),
    }


def _second_opinions(records: Records, asked: Sequence[Contrast], rows: list[Row]) -> None:
    """`mixed` of every row: (estimate, low, high, p) by the mixed model of the grid, or None.

    It is asked after the last stage: over all tasks, and in accuracy by domain too.
    """
    weights, grid = _grid_weights(records, asked)
    last, options = records.study["stages"][-1], records.study["options"]
    found: dict[tuple[str, ...], list[float | None]] = {}
    for metric in MARGINS if len(weights) else ():
        for stage, cot in [(s, c) for s, c in places(records, metric) if s == last]:
            for level, name, members in levels(records, records.tasks(stage, cot, metric)):
                if level == "task" or (level == "domain" and (metric, cot) != ("acc", "off")):
                    continue
                blocks = block_means([records.scores[stage, cot, t, metric][grid] for t in members])
                fitted = None if blocks is None else fit(blocks, [len(options[s]) for s in options])
                if fitted is None:
                    continue
                test = second_opinion(fitted, np.array(list(weights.values())))
                low, high = (SCALE[metric] * end for end in test.interval(ALPHA))
                for i, contrast in enumerate(weights):
                    ends = sorted((float(low[i]), float(high[i])))
                    told = [SCALE[metric] * float(test.estimate[i]), *ends, float(test.p[i])]
                    found[contrast, level, name, metric, stage, cot] = [six(v) for v in told]
    for row in rows:
        place = ("contrast", "level", "name", "metric", "stage", "cot")
        row["mixed"] = found.get(tuple(row[key] for key in place))


def _grid_weights(
    records: Records, asked: Sequence[Contrast]
) -> tuple[dict[str, list[float]], list[int]]:
    """(contrast -> weights of the grid's arms, their numbers): of contrasts that the whole grid is seen for."""
    grid = [a["name"] for a in records.study["arms"] if a["role"] == "grid"]
    numbers = [records.arms.index(name) for name in grid]
    if not records.ran(records.study["stages"][-1])[numbers].all():
        return {}, numbers
    inside = {
        c.name: [c.weights.get(arm, 0.0) for arm in grid]
        for c in asked
        if c.cot is None and c.outside is None and set(c.weights) <= set(grid)
    }
    return inside, numbers


def _shrunk(rows: list[Row], families: Sequence[str]) -> None:
    """`shrunk` of every row: (mean, low, high) of a task's effect drawn towards those of the other tasks."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        row["shrunk"] = None
        if row["level"] == "task" and row["family"] in families and row["high"] > row["low"]:
            key = tuple(row[k] for k in ("contrast", "metric", "stage", "cot"))
            groups.setdefault(key, []).append(row)
    for group in groups.values():
        if len(group) < 3:
            continue
        # An interval of few seeds is wider than two standard errors: the error that gives its width.
        errors = np.array([row["high"] - row["low"] for row in group]) / 3.92
        estimates = np.array([row["estimate"] for row in group])
        scale = 5 * MARGINS[group[0]["metric"]]
        for row, *told in zip(group, *shrink(estimates, errors, scale=scale, alpha=ALPHA), strict=True):
            row["shrunk"] = [six(float(v)) for v in told]


def _sequential(records: Records, rows: list[Row]) -> dict[str, Any] | None:
    """Of a study whose seeds were added until it was resolved: intervals and p that allow for having looked.

    They take the place of those of a fixed number of seeds in the rows that decided.
    """
    if not records.study.get("until"):
        return None
    found = sequential(records, alpha=ALPHA, margin=MARGINS["acc"])
    decided = {c["contrast"]: c for c in found["contrasts"]}
    place = (found["stage"], found["cot"], found["metric"], "overall")
    for row in rows:
        told = decided.get(row["contrast"])
        if told is None or tuple(row[k] for k in ("stage", "cot", "metric", "level")) != place:
            continue
        shared = min(1.0, told["p"] * len(decided))
        # Before two or three seeds nothing bounds the mean but the score itself.
        low, high = (
            e if e is not None else b for e, b in zip((told["low"], told["high"]), WHOLE, strict=True)
        )
        row |= {"fixed": [row["low"], row["high"]]}
        row |= {"low": low, "high": high, "p": told["p"], "p_adjusted": six(shared)}
        row["verdict"] = told["state"]
    return found


def _notes(records: Records) -> list[str]:
    """What a reader must know beside the numbers."""
    notes = []
    if len(records.seeds) == 1:
        notes.append(
            "One seed: intervals cover the choice of items only, not how runs differ by chance."
        )
    if records.study.get("until"):
        notes.append(
            "Seeds were added until the questions over all tasks were settled. Their intervals and p allow for "
            "that; those of single domains, tasks and other questions are of a fixed number of seeds and do not."
        )
    for (stage, cot, task, metric), scores in sorted(records.scores.items()):
        lacking = records.ran(stage) & np.isnan(scores).all(axis=2)
        if lacking.any():
            arm, seed = np.argwhere(lacking)[0]
            notes.append(
                f"{task} ({metric}, {stage}, {cot}): no scores of {int(lacking.sum())} runs that have others "
                f"({records.arms[arm]}#{records.seeds[seed]} first); comparisons that need them are left out."
            )
    for (stage, cot, task, metric), count in sorted(records.unknown.items()):
        notes.append(f"{task} ({metric}, {stage}, {cot}): {count} scores are unknown, left out.")
    return notes
