"""What a study would cost and could detect, without touching its data."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from codestage.analyse.power import minimum_detectable, read_pilot
from codestage.data.mixture import RowCounts
from codestage.data.sources import source_files
from codestage.engine.asked import evaluation_tasks, modes_after
from codestage.engine.data_steps import check_held_out, needs
from codestage.engine.graph import StageWork, Supply, arms_of, training_steps
from codestage.engine.model_steps import model_shape
from codestage.engine.results import code_options
from codestage.errors import UserError
from codestage.evaluate.documents import has_data
from codestage.evaluate.tasks import Task, longest_answer, modes
from codestage.study.expand import StagePlan, runs
from codestage.study.load import line_of, load_study
from codestage.study.models import ModelShape, memory_bytes, parameters, train_flops_per_token
from codestage.study.schema import MATCHED, Study

SHARE_OF_PEAK = 0.5
"""Training speed assumed, as a share of this machine's float32 matrix-product speed."""
GPU_SHARE_OF_PEAK = 0.4
"""Training speed assumed of a GPU, as a share of its peak: Llama 3 was trained at 38 to 43 % (Dubey et al. 2024)."""
UNKNOWN_ROWS = 10**9
"""Rows assumed of each source: sharing is planned before any is counted, as if all rows were full."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet has it."""

    title: str
    peak: float
    """FLOP/s of bf16 matrix products, without sparsity."""
    memory_gb: int


GPUS = {
    "a100": Gpu("A100 80 GB", 312e12, 80),
    "h100": Gpu("H100 SXM", 989e12, 80),
    "h200": Gpu("H200", 989e12, 141),
}


def plan(study_path: Path, *, pilot: Path | None = None, gpu: str = "h100") -> dict[str, Any]:
    """Arms, runs, steps, tokens, cost and detectable effect of a study, with and without sharing.

    `pilot` is the folder of a finished study, whose tasks tell how much runs and items vary; `gpu` one of
    `GPUS`, for hours on it at an assumed share of its peak.

    Raises:
        UserError: anything wrong with the study that can be known before its data is read.
    """
    study = load_study(study_path)
    asked = evaluation_tasks(study, study_path)
    tasks = [t.summary() | {"items": _items(t, study)} for t in asked]
    counted = [task for task in tasks if task["items"] is not None]
    before = read_pilot(pilot) if pilot else None
    mde = minimum_detectable(counted, seeds=len(study.seeds), pilot=before) if counted else None
    _check_paths(study, study_path)
    if study.validation:
        check_held_out(needs(study), study_path)
    size = model_shape(study, study_path)
    all_runs = runs(study)
    arms = arms_of(all_runs)
    supply = {
        stage.seq_len: Supply(
            {n: RowCounts(UNKNOWN_ROWS, stage.seq_len) for n in study.sources},
            hashes=dict.fromkeys(study.sources, "unknown"),
            contents=dict.fromkeys(study.sources, "unknown"),
        )
        for stage in study.stages.values()
    }
    works = training_steps(all_runs, supply, size, max(supply), count=True)
    trained = [w for stages in works.values() for w in stages]
    segments = {s.hash for w in trained for s in w.segments}
    ends = {w.segments[-1].hash for w in trained}
    stages = [stage for run in all_runs for stage in run.arm.stages]
    kinds = list({id(stage): stage for stage in stages}.values())
    used = {n for s in kinds for p in s.phases for n, t in p.by_source.items() if t}
    data = 2 + 2 * len(used)
    return {
        "study": study.name,
        "arms": len(arms),
        "runs": len(all_runs),
        "steps": data + len(segments) + len(ends),
        "steps_unshared": data + 2 * len(stages),
        **_cost(size, trained, stages, max(supply), GPUS[gpu]),
        "evaluation": _evaluation(study, asked, works.values()),
        "minimum_detectable_effect": mde,
        "arm_names": [arm.name for arm in arms],
        "warnings": [
            *_unanswered(study),
            *_unread(study, study_path, asked),
            *_warnings(study, tasks, mde),
        ],
    }


def _items(task: Task, study: Study) -> int | None:
    """How many items of a task are asked; None where that is not known before they are read."""
    known = [n for n in (task.items, study.evaluate.items) if n is not None]
    return min(known) if known else None


def _evaluation(
    study: Study, tasks: Sequence[Task], works: Iterable[Sequence[StageWork]]
) -> dict[str, int]:
    """What the models are asked: an item in a mode is a question. Items that are not counted yet are left out."""
    last_of = {work.segments[-1].hash: work is stages[-1] for stages in works for work in stages}
    questions = tokens = 0
    for last, times in Counter(last_of.values()).items():
        for task in tasks:
            for mode in modes(task, modes_after(study, last=last)):
                items = times * (_items(task, study) or 0)
                questions += items
                tokens += items * longest_answer(task, mode) * (1 + study.evaluate.samples)
    return {"checkpoints": len(last_of), "questions": questions, "written_tokens_at_most": tokens}


def _cost(
    size: ModelShape, works: Iterable[StageWork], stages: list[StagePlan], positions: int, gpu: Gpu
) -> dict[str, Any]:
    """Tokens, work, time and memory of the stages of all runs, with and without sharing."""
    shared = {s.hash: (s.cost, w.stage.seq_len) for w in works for s in w.segments}
    lengths = {stage.seq_len for stage in stages}
    each = {seq_len: train_flops_per_token(size, seq_len) for seq_len in lengths}
    flops = sum(tokens * each[seq_len] for tokens, seq_len in shared.values())
    flops_unshared = sum(stage.tokens * each[stage.seq_len] for stage in stages)
    cores = len(psutil.Process().cpu_affinity() or [1])
    here, there = SHARE_OF_PEAK * matmul_flops(), GPU_SHARE_OF_PEAK * gpu.peak
    memory = max(
        memory_bytes(size, s.micro_batch_tokens, s.seq_len, adapter=s.adapter is not None)
        for s in stages
    )
    return {
        "parameters": parameters(size, positions=positions),
        "tokens": round(sum(tokens for tokens, _ in shared.values())),
        "tokens_unshared": sum(stage.tokens for stage in stages),
        "flops": flops,
        "flops_unshared": flops_unshared,
        "flops_per_token": max(each.values()),
        "hours": round(flops / here / 3600, 3),
        "hours_unshared": round(flops_unshared / here / 3600, 3),
        "flops_per_second": round(here),
        "memory_gb": round(memory * cores / 1e9, 2),
        "gpu": {
            "name": gpu.title,
            "hours": round(flops / there / 3600, 3),
            "hours_unshared": round(flops_unshared / there / 3600, 3),
            "memory_gb": round(memory / 1e9, 2),
            "needed_for_memory": math.ceil(memory / (gpu.memory_gb * 1e9)),
            "assumed": {
                "peak_flops_per_second": gpu.peak,
                "share_of_peak": GPU_SHARE_OF_PEAK,
                "memory_gb": gpu.memory_gb,
            },
        },
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


def _unanswered(study: Study) -> list[str]:
    """Of a study that compares nothing about code."""
    ordered = any(
        len(option.pieces(stage.lr)) > 1
        for stage in study.stages.values()
        for option in stage.options.values()
    )
    if ordered or any(code_options(study).values()):
        return []
    return [
        "no stage has an option with code beside its first one, so there is no effect of code to show: code is every "
        "domain that the first option of a stage does not draw on; write the option without it first"
    ]


def _unread(study: Study, path: Path, tasks: Sequence[Task]) -> list[str]:
    """Of tasks whose published files are not in the study's folder: those that no hub has, and those read from one."""
    folder = path.parent / study.evaluate.data if study.evaluate.data else None
    missing = [task for task in tasks if not task.harness and not has_data(task, folder)]
    lost = [task for task in missing if "hub" not in task.data]
    read = [task.name for task in missing if "hub" in task.data]
    found = []
    if lost:
        told = "; ".join(f"{task.name} ({', '.join(task.data['files'])})" for task in lost)
        where = f"{folder} has not what they need" if folder else "name the folder that holds them"
        found.append(
            f"no hub has these tasks, so their published files are read from evaluate.data: {told}; {where}"
        )
    if read and folder:
        found.append(f"not in {folder}, so read from the hub when the study runs: {', '.join(read)}")
    return found


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
