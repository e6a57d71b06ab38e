"""The tables: cells as people read them, the same cells as data, and both as CSV and LaTeX."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from codestage.report.answer import WORDS, claim
from codestage.report.document import Cell, Table
from codestage.report.records import Effect, Mean, Records
from codestage.report.text import (
    DASH,
    big,
    count,
    duration,
    interval,
    latex,
    metric_name,
    p_value,
    percent,
    plain,
    reach,
    signed,
    size,
)

EFFECT_HEAD = ("estimate", "interval", "p", "adj. p", "q", "items", "seeds", "detectable", "verdict")
EFFECT_DATA = (
    "estimate", "low", "high", "p", "p_adjusted", "q", "n_items", "seeds", "mde", "unit", "verdict",
)  # fmt: skip


def effect_table(name: str, title: str, effects: Iterable[Effect], *, by: str = "name") -> Table:
    """Effects with everything that belongs to a number. `by`: "name" (task or domain) or "label"."""
    effects = list(effects)
    metrics = len({e.metric for e in effects}) > 1
    rows, data = [], []
    for e in effects:
        words = [e.label, "all tasks" if e.level == "overall" else e.name]
        words = words[:1] if by == "label" and e.level == "overall" else words
        rows.append([*words, *([metric_name(e.metric)] if metrics else []), *_shown(e)])
        data.append([*words, *([e.metric] if metrics else []), *_raw(e)])
    words_head = ["question"] + (
        ["of"] if rows and len(rows[0]) - len(EFFECT_HEAD) - metrics > 1 else []
    )
    head = words_head + (["metric"] if metrics else [])
    return Table(name, title, [*head, *EFFECT_HEAD], rows, data, len(head))


def _shown(e: Effect) -> list[str]:
    return [
        signed(e.estimate, e.unit),
        interval(e.low, e.high, e.unit),
        p_value(e.p),
        p_value(e.p_adjusted),
        p_value(e.q),
        count(e.n_items),
        count(e.seeds),
        size(e.mde, e.unit),
        _verdict(e),
    ]


def _verdict(e: Effect) -> str:
    """A loss that is lower is better: neither raised nor lowered would say which."""
    said = claim(e)
    return (
        {"raised": "better", "lowered": "worse"}.get(said, WORDS[said])
        if e.metric == "loss"
        else WORDS[said]
    )


def _raw(e: Effect) -> list[Cell]:
    """As the shown columns, so that CSV and page have the same head: the interval is one cell."""
    return [
        e.estimate,
        reach(e.low, e.high),
        e.p,
        e.p_adjusted,
        e.q,
        e.n_items,
        e.seeds,
        e.mde,
        _verdict(e),
    ]


def all_effects(records: Records) -> Table:
    """Every effect of the study, nothing left out; only as files."""
    head = ["contrast", "label", "family", "level", "name", "metric", "stage", "cot", *EFFECT_DATA]
    data = [[getattr(e, key) for key in head] for e in records.effects]
    rows = [
        [DASH if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in r] for r in data
    ]
    return Table("effects", "Every effect of the study", head, rows, data, 8)


def all_means(records: Records) -> Table:
    """Every score of every arm; only as files."""
    head = [
        "arm", "stage", "cot", "level", "name", "metric", "mean", "low", "high", "n_items", "seeds",
        "chance", "above_chance",
    ]  # fmt: skip
    data = [[getattr(m, key) for key in head] for m in records.means]
    rows = [
        [DASH if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in r] for r in data
    ]
    return Table("arms", "Every score of every arm", head, rows, data, 6)


def shrunk_table(effects: Iterable[Effect]) -> Table | None:
    """Tasks' effects drawn towards each other, for readers who want the likeliest size of a single one."""
    rows: list[list[str]] = []
    data: list[list[Cell]] = []
    for e in effects:
        if e.shrunk is None:
            continue
        mean, low, high = e.shrunk
        shown = [signed(e.estimate, e.unit), interval(e.low, e.high, e.unit), signed(mean, e.unit)]
        rows.append([e.label, e.name, *shown, interval(low, high, e.unit)])
        data.append([e.label, e.name, e.estimate, reach(e.low, e.high), mean, reach(low, high)])
    if not rows:
        return None
    head = ["question", "task", "estimate", "interval", "drawn together", "credible interval"]
    title = "Tasks drawn towards each other (Bayesian shrinkage)"
    return Table("shrunk", title, head, rows, data, 2)


def score_table(
    name: str, title: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Mean | None]]]
) -> Table:
    """Scores in per cent, an arm a row; missing is a dash."""
    shown = [[arm, *(percent(m.mean) if m else DASH for m in means)] for arm, means in rows]
    data: list[list[Cell]] = [[arm, *(m.mean if m else None for m in means)] for arm, means in rows]
    return Table(name, title, ["arm", *heads], shown, data)


def dose_table(records: Records) -> Table:
    """Planned and realised tokens of each run's stages by source, seeds with equal doses together."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for run in records.runs:
        for stage in run["stages"]:
            for source in dict.fromkeys([*stage["tokens_planned"], *stage["tokens_realised"]]):
                doses = (stage["tokens_planned"].get(source), stage["tokens_realised"].get(source))
                epochs = (stage.get("epochs") or {}).get(source)
                key = (run["arm"], stage["name"], source, *doses, epochs)
                groups.setdefault(key, []).append(run["seed"])
    head = ["arm", "stage", "source", "planned", "realised", "difference", "epochs", "seeds"]
    rows, data = [], []
    for (arm, stage, source, planned, realised, epochs), seeds in groups.items():
        gap = None if planned is None or realised is None else realised - planned
        exact = [f"{v:,}" if v is not None else DASH for v in (planned, realised, gap)]
        passes = DASH if epochs is None else f"{epochs:.2f}"
        rows.append([arm, stage, source, *exact, passes, str(len(seeds))])
        data.append([arm, stage, source, planned, realised, gap, epochs, len(seeds)])
    return Table("doses", "Tokens drawn beside tokens planned", head, rows, data, 3)


def cost_table(records: Records) -> Table:
    """What the study cost, and what it would have cost without sharing work between arms."""
    cost = records.study.get("cost") or {}
    cost = {"seconds": records.study.get("seconds")} | cost
    kinds = {"seconds": duration, "train_seconds": duration, "flops": big}
    names = {
        "seconds": "time of the whole study, wall clock",
        "train_seconds": "time of training, all workers added up",
        "tokens_trained": "tokens trained on",
        "tokens_unshared": "tokens if nothing were shared between arms",
        "flops": "floating-point operations of training",
    }
    entries = [(key, value) for key, value in cost.items() if value is None or _number(value)]
    rows = [[names.get(key, key.replace("_", " ")), kinds.get(key, count)(v)] for key, v in entries]
    data: list[list[Cell]] = [[key, value] for key, value in entries]
    for stage, mean in stage_seconds(records).items():
        rows.append([f"seconds a run, stage {stage}", duration(mean)])
        data.append([f"seconds_per_run:{stage}", mean])
    return Table("cost", "What the study cost", ["what", "value"], rows, data)


def stage_seconds(records: Records) -> dict[str, float]:
    """Mean seconds a run took for each stage; stages that nobody timed are left out."""
    found: dict[str, list[float]] = {}
    for run in records.runs:
        for stage in run["stages"]:
            if stage.get("seconds") is not None:
                found.setdefault(str(stage["name"]), []).append(float(stage["seconds"]))
    return {name: sum(seconds) / len(seconds) for name, seconds in found.items()}


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def status_table(records: Records) -> Table:
    """How many answers could be read: unparsed, empty and missing are different things."""
    head = ["task", "chain of thought", "answers", "ok", "unparsed", "empty", "missing", "cut"]
    data: list[list[Cell]] = [
        [task, cot, sum(found.values()), *(found.get(s, 0) for s in head[3:])]
        for (task, cot), found in sorted(records.statuses.items())
    ]
    rows = [[str(v) if isinstance(v, str) else f"{v:,}" for v in row] for row in data]
    return Table("answers", "What became of the answers", head, rows, data, 2)


def to_csv(table: Table) -> str:
    """Numbers at full precision; an unknown value is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([["" if v is None else v for v in row] for row in table.data])
    return out.getvalue()


def to_latex(table: Table) -> str:
    """A booktabs table; needs `\\usepackage{booktabs}` and nothing else."""
    spec = "l" * table.words + "r" * (len(table.columns) - table.words)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(table.title)}}}",
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        " & ".join(latex(c) for c in table.columns) + r" \\",
        r"\midrule",
        *(" & ".join(latex(plain(c)) for c in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
