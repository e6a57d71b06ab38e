"""What a study would cost and could detect, without touching its data."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from codestage.analyse.power import minimum_detectable, read_pilot
from codestage.data.mixture import RowCounts
from codestage.data.sources import source_files
from codestage.engine.graph import Supply, arms_of, training_steps
from codestage.engine.model_steps import model_shape
from codestage.engine.run import evaluation_tasks
from codestage.errors import UserError
from codestage.study.expand import runs
from codestage.study.load import line_of, load_study
from codestage.study.models import memory_bytes, train_flops_per_token
from codestage.study.schema import MATCHED, Study

SHARE_OF_PEAK = 0.5
"""Training speed assumed, as a share of this machine's float32 matrix-product speed."""
UNKNOWN_ROWS = 10**9
"""Rows assumed of each source: sharing is planned before any is counted, as if all rows were full."""


def plan(study_path: Path, *, pilot: Path | None = None) -> dict[str, Any]:
    """Arms, runs, steps, tokens, cost and detectable effect of a study, with and without sharing.

    `pilot` is the folder of a finished study, whose tasks tell how much runs and items vary.

    Raises:
        UserError: anything wrong with the study that can be known before its data is read.
    """
    study = load_study(study_path)
    tasks = [t.summary() for t in evaluation_tasks(study, study_path)]
    for task in tasks:
        known = [n for n in (task["items"], study.evaluate.items) if n is not None]
        task["items"] = min(known) if known else None
    counted = [task for task in tasks if task["items"] is not None]
    before = read_pilot(pilot) if pilot else None
    mde = minimum_detectable(counted, seeds=len(study.seeds), pilot=before) if counted else None
    _check_paths(study, study_path)
    size = model_shape(study, study_path)
    all_runs = runs(study)
    arms = arms_of(all_runs)
    supply = {
        stage.seq_len: Supply(
            {n: RowCounts(UNKNOWN_ROWS, stage.seq_len) for n in study.sources},
            dict.fromkeys(study.sources, "unknown"),
        )
        for stage in study.stages.values()
    }
    works = training_steps(all_runs, supply, size, max(supply), count=True)
    segments = {s.hash: s for stages in works.values() for w in stages for s in w.segments}
    ends = {w.segments[-1].hash for stages in works.values() for w in stages}
    stages = [stage for run in all_runs for stage in run.arm.stages]
    kinds = list({id(stage): stage for stage in stages}.values())
    tokens_unshared = sum(stage.tokens for stage in stages)
    tokens = round(sum(s.cost for s in segments.values()))
    used = {n for s in kinds for p in s.phases for n, t in p.by_source.items() if t}
    data = 2 + 2 * len(used)
    per_token = max(train_flops_per_token(size, stage.seq_len) for stage in kinds)
    cores = len(psutil.Process().cpu_affinity() or [1])
    speed = SHARE_OF_PEAK * matmul_flops()
    memory = max(
        memory_bytes(size, s.micro_batch_tokens, s.seq_len, adapter=s.adapter is not None) for s in kinds
    )
    return {
        "study": study.name,
        "arms": len(arms),
        "runs": len(all_runs),
        "steps": data + len(segments) + len(ends),
        "steps_unshared": data + 2 * len(stages),
        "tokens": tokens,
        "tokens_unshared": tokens_unshared,
        "flops": tokens * per_token,
        "hours": round(tokens * per_token / speed / 3600, 3),
        "hours_unshared": round(tokens_unshared * per_token / speed / 3600, 3),
        "flops_per_second": round(speed),
        "memory_gb": round(memory * cores / 1e9, 2),
        "minimum_detectable_effect": mde,
        "arm_names": [arm.name for arm in arms],
        "warnings": _warnings(study, tasks, mde),
    }


def detectable_lines(mde: Mapping[str, Any] | None) -> tuple[list[str], list[list[Any]], list[str]]:
    """The detectable effects as people read them: columns, rows, and what stands under the table."""
    if mde is None:
        return [""], [], ["what could be detected is not known before the tasks are read"]
    planned = mde["seeds"]
    each = [
        {planned: r["points"], planned + 1: r["points_one_seed_more"]}
        | {int(n): points for n, points in r["by_seeds"].items()}
        for r in mde["rows"]
    ]
    seeds = sorted(each[0])
    columns = [
        "",
        "items",
        *(f"{n} seeds" if n == planned else str(n) for n in seeds),
        "never below",
        "from",
    ]
    rows = [
        [r["name"] if r["level"] != "domain" else f"{r['name']} (domain)", f"{r['items']:,}"]
        + [f"{points[n]:.1f}" for n in seeds]
        + [f"{r['floor']:.1f}", r["from"]]
        for r, points in zip(mde["rows"], each, strict=True)
    ]
    told = mde["assumed"]
    lines = [
        "Points of accuracy between two arms. Never below: what these items allow with any number of seeds.",
        f"Assumed: {told['seed_sd_points']:g} points from seed to seed, {told['items_that_differ']:.0%} of items "
        f"differ, {told['of_these_on_every_seed']:.0%} of these on every seed.",
    ]
    if mde["pilot"] is not None and all(r["from"] == "pilot" for r in mde["rows"]):
        lines.pop()
    return columns, rows, lines


def matmul_flops(size: int = 768, seconds: float = 0.1) -> float:
    """This machine's float32 matrix-product speed on all cores, measured: FLOP/s."""
    matrix = np.ones((size, size), dtype=np.float32)
    matrix @ matrix
    start, products = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        matrix @ matrix
        products += 1
    return 2 * size**3 * products / elapsed


def _check_paths(study: Study, path: Path) -> None:
    for name, source in study.sources.items():
        try:
            source_files(source, path.parent)
        except UserError as error:
            line = line_of(path, ("sources", name))
            raise UserError(f"{path}:{line}: source {name!r}: {error}") from None


def _warnings(study: Study, tasks: list[dict[str, Any]], mde: Mapping[str, Any] | None) -> list[str]:
    found = []
    if unknown := [control for control in study.controls if control in MATCHED]:
        found.append(
            f"{' and '.join(unknown)} arms get their size from the prepared data; here they count as large as "
            "the option they are made from"
        )
    if len(study.seeds) < 3:
        found.append(
            f"{len(study.seeds)} seed(s): how runs differ by chance is hardly known; use 3 or more"
        )
    if uncounted := [t["name"] for t in tasks if t["items"] is None]:
        found.append(
            f"how many items {', '.join(uncounted)} have is not known before they are read; the detectable "
            "effect is that of the other tasks"
        )
    small = [t["name"] for t in tasks if t["items"] is not None and t["items"] < 50]
    if small:
        found.append(f"under 50 items, so only large effects can be seen: {', '.join(small)}")
    if mde is None:
        return found
    assumed = [r["name"] for r in mde["rows"] if r["level"] == "task" and r["from"] == "assumed"]
    if mde["pilot"] is not None and assumed:
        found.append(f"not in the pilot, so their variances are assumed: {', '.join(assumed)}")
    if weak := [f"{t['name']} ({t['mend']})" for t in mde["unresolvable"] if not t["at_chance"]]:
        found.append(
            f"above {mde['plausible']} points, the largest gain of code reported, so by themselves they can resolve nothing "
            f"as planned; what would do: {'; '.join(weak)}"
        )
    if lost := [t["name"] for t in mde["unresolvable"] if t["at_chance"]]:
        found.append(
            "at chance in every arm of the pilot, so that no number of items or seeds shows help or harm: "
            + ", ".join(lost)
        )
    return found
