"""Effects on held-out loss: what each contrast does to how well each source is predicted.

The rows that a source holds out are the same for every arm, and each loss is their mean, so a difference is paired by
seed and row; what is left is how trainings differ, and Student's t over seeds speaks of that alone. It says nothing of
other rows of the source. Small models differ here long before they answer differently.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codestage.analyse.contrasts import Contrast
from codestage.analyse.effects import Test, benjamini_hochberg, holm, make_test, task_parts
from codestage.analyse.records import Records
from codestage.analyse.scales import ALPHA, six, snapped
from codestage.errors import UserError

COLUMNS = ("arm", "seed", "stage", "tokens", "source", "domain", "loss")
Row = dict[str, Any]
Losses = Mapping[tuple[str, str, str], np.ndarray]
"""(stage, source, domain) -> losses at the end of the stage `[arm, seed]`, in nats a token; NaN = unknown."""


def read_losses(path: Path) -> list[Row]:
    """Every measurement of a study's `results/validation.parquet`; none where there is no such file.

    Raises:
        UserError: the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        return list(pq.read_table(path, columns=list(COLUMNS)).to_pylist())
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{path}: no readable losses ({error}); run the study again") from None


def loss_rows(records: Records, asked: Sequence[Contrast], measured: Sequence[Row]) -> list[Row]:
    """A row for each contrast and source after the last stage; those of an earlier stage after that stage too.

    Positive: the side named first predicts the source better, by so many nats a token. p is corrected (Holm, and
    Benjamini and Hochberg) over the contrasts of a family and the sources, stage by stage.
    """
    ends, stages = _ends(records, measured), records.study["stages"]
    rows: list[Row] = []
    for after in stages:
        for contrast in asked:
            if contrast.cot or contrast.outside or (after != stages[-1] and contrast.family != after):
                continue
            for (stage, source, domain), losses in ends.items():
                test = _test(records, contrast, losses) if stage == after else None
                if test is not None:
                    place = {"stage": stage, "source": source, "domain": domain}
                    rows.append(_told(contrast, test) | place)
    _adjust(rows)
    return rows


def _ends(records: Records, measured: Sequence[Row]) -> Losses:
    """The last measurement of each run in each stage; of runs that the study does not know, nothing."""
    arms = {arm: i for i, arm in enumerate(records.arms)}
    seeds = {seed: i for i, seed in enumerate(records.seeds)}
    order = {stage: i for i, stage in enumerate(records.study["stages"])}
    found: dict[tuple[str, str, str], np.ndarray] = {}
    known = [r for r in measured if r["arm"] in arms and r["seed"] in seeds and r["stage"] in order]
    for row in sorted(known, key=lambda row: (order[row["stage"]], row["tokens"])):
        key = (row["stage"], row["source"], row["domain"])
        losses = found.setdefault(key, np.full((len(arms), len(seeds)), np.nan))
        losses[arms[row["arm"]], seeds[row["seed"]]] = row["loss"]
    return found


def _test(records: Records, contrast: Contrast, losses: np.ndarray) -> Test | None:
    """The test of what the contrast saves, over the seeds that all its arms have; None where there is none."""
    weights = {arm: weight for arm, weight in contrast.weights.items() if weight}
    used = losses[[records.arms.index(arm) for arm in weights]]
    saved = -np.array(list(weights.values())) @ used
    saved = snapped(saved[~np.isnan(saved)])
    return make_test(task_parts(saved[None, :, None])) if len(saved) else None


def _told(contrast: Contrast, test: Test) -> Row:
    """What a test of one contrast says; of a single seed nothing but the difference is known."""
    low, high = test.interval(ALPHA)
    known = test.seeds > 1
    return {
        "contrast": contrast.name,
        "label": contrast.label,
        "family": contrast.family,
        "estimate": six(float(test.estimate[0])),
        "low": six(float(low[0])) if known else None,
        "high": six(float(high[0])) if known else None,
        "p": six(float(test.p[0])) if known else None,
        "mde": six(float(test.detectable(ALPHA)[0])) if known else None,
        "seeds": test.seeds,
        "unit": "nats",
    }


def _adjust(rows: Sequence[Row]) -> None:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        row |= {"p_adjusted": None, "q": None, "verdict": "open"}
        if row["p"] is not None:
            groups.setdefault((row["family"], row["stage"]), []).append(row)
    for group in groups.values():
        ps = [row["p"] for row in group]
        for row, p, q in zip(group, holm(ps), benjamini_hochberg(ps), strict=True):
            row |= {"p_adjusted": six(p), "q": six(q)}
            if p < ALPHA:
                row["verdict"] = "up" if row["estimate"] > 0 else "down"
