"""The sections that tell what was done: what could be seen, curves, doses, cost, method."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from codestage.report.bands import schedule_bands
from codestage.report.cells import option_colours
from codestage.report.document import Chart, Section, Table
from codestage.report.plots import (
    Dose,
    Loss,
    Seen,
    all_source_colours,
    cost_plot,
    cot_plot,
    curve_plot,
    detectable_plot,
    dose_plot,
)
from codestage.report.questions import contrast_chart, question
from codestage.report.records import Curve, Mean, Records
from codestage.report.tables import (
    cost_table,
    dose_table,
    effect_table,
    score_table,
    stage_seconds,
    status_table,
)
from codestage.report.text import DASH, capital, count, duration, listed, plural, size
from codestage.report.view import View

MOST_DOSES, MOST_CURVES = 40, 60
"""Bars and lines that a chart shows of one stage."""
DASHES = ("-", "--", "-.", ":")


def reasoning(view: View) -> Section | None:
    """Chain of thought off, supplied and generated: scores, effects, answers that could be read."""
    records = view.records
    modes = list(dict.fromkeys(m.cot for m in records.means if m.stage == view.stage))
    rows = []
    for task in records.tasks:
        name = str(task["name"])
        by_mode = {mode: _scores(view, name, mode) for mode in modes}
        if sum(bool(means) for means in by_mode.values()) > 1:
            rows.append((name, {mode: means for mode, means in by_mode.items() if means}))
    effects = [
        e
        for e in records.effects
        if e.family == "cot" and e.stage == view.stage and e.metric == view.metric
    ]
    charts = []
    top = [e for e in effects if e.level == "overall"]
    if top:
        charts.append(contrast_chart(view, top, "reasoning", "Reasoning before the answer"))
    if rows:
        title = "Does it help to reason step by step before answering?"
        heads = [f"{mode}, mean of the arms" for mode in modes]
        table = score_table(
            "cot",
            title,
            heads,
            [(name, [_mean(by.get(m, ())) for m in modes]) for name, by in rows],
        )
        charts.append(
            Chart(
                "cot",
                title,
                "Supplied: the right steps are given. Generated: the model writes them itself.",
                lambda narrow: cot_plot(rows, narrow),
                table,
            )
        )
    if not charts:
        return None
    said = "Asked in up to three ways: for the answer alone; with correct steps supplied, which tells whether a model can use them; with steps that it has to write itself."
    rest = [e for e in effects if e.level != "overall"]
    tables = [effect_table("cot-effects", "Chain of thought: by domain and task", rest)] if rest else []
    return Section(
        "cot", "Chain of thought", (said,), charts=charts, tables=[*tables, status_table(records)]
    )


def _scores(view: View, task: str, mode: str) -> list[Mean]:
    metric = view.task_metric(task)
    return [
        m
        for m in view.records.means
        if m.level == "task"
        and m.name == task
        and m.cot == mode
        and m.stage == view.stage
        and m.metric == metric
    ]


def _mean(means: Any) -> Mean | None:
    """A made-up row for the table of means: only its `mean` is shown."""
    known = [m for m in means if m.mean is not None]
    if not known:
        return None
    first = known[0]
    values = {
        **first.__dict__,
        "mean": sum(m.mean for m in known) / len(known),
        "low": None,
        "high": None,
    }
    return Mean(**values)


def detectable(view: View) -> Section | None:
    """The smallest effect that would have been found four times in five, beside the estimates."""
    groups: list[tuple[str, str | None]] = [("overall", None)]
    groups += [("domain", d) for d in view.records.domains]
    groups += [("task", str(t["name"])) for t in view.records.tasks]
    rows = []
    for level, name in groups:
        effects = {}
        for family in view.families:
            contrast = view.main(family)
            effects[family] = view.effect(contrast, level, name) if contrast else None
        if any(e is not None and e.mde is not None for e in effects.values()):
            rows.append(Seen("all tasks" if name is None else name, effects))
    if not rows:
        return None
    overall = [e.mde for e in rows[0].effects.values() if e is not None and e.mde is not None]
    title = "What the study could have seen"
    if overall and rows[0].name == "all tasks":
        title += f": over all tasks, effects from {size(min(overall))} points on"
    names = {family: capital(question(family)) for family in view.families}
    effects_all = [e for row in rows for e in row.effects.values() if e is not None]
    chart = Chart(
        "detectable",
        title,
        "Bar: smallest effect found four times in five (80 % power). Dot: size of the estimate. A dot inside its bar is usually not resolved.",
        lambda narrow: detectable_plot(rows, names, narrow),
        effect_table("detectable", title, effects_all),
    )
    said = "An effect smaller than its bar may well exist: this study would mostly have missed it. More items shrink the part that comes from items, more seeds the part that comes from training."
    return Section("detectable", "What could have been detected", (said,), charts=[chart])


def curves(records: Records) -> Section | None:
    """Mean loss over seeds of each arm and stage."""
    if not records.curves:
        return None
    first, last = records.stages[0], records.stages[-1]
    options = records.study["options"]
    colours, arms = (
        option_colours(options[first]),
        {str(a["name"]): a for a in records.study["arms"]},
    )
    dashes = {o: DASHES[i % len(DASHES)] for i, o in enumerate(options[last])} if first != last else {}
    by_arm: dict[tuple[str, str], list[Curve]] = {}
    for curve in records.curves:
        by_arm.setdefault((curve.arm, curve.stage), []).append(curve)
    stages: dict[str, list[Loss]] = {}
    seen: set[tuple[str, ...]] = set()
    data: list[tuple[str, str, str, float, float]] = []
    for stage in records.stages:
        for name, arm in arms.items():
            parts = by_arm.get((name, stage), [])
            prefix = (
                stage,
                *[arm["factors"][s] for s in records.stages[: records.stages.index(stage) + 1]],
            )
            if not parts or prefix in seen:
                continue
            seen.add(prefix)  # arms that agree up to here share their training
            tokens, loss = _mean_curve(parts)
            colour = colours.get(arm["factors"].get(first), "#56b4e9")
            dash = dashes.get(arm["factors"].get(last), "-") if stage == last else "-"
            if len(stages.setdefault(stage, [])) < MOST_CURVES:
                stages[stage].append(Loss(tokens, loss, colour, dash))
            data.append((name, stage, str(len(parts)), float(tokens[-1]), float(loss[-1])))
    rows = [[a, s, n, count(t), f"{v:.3f}"] for a, s, n, t, v in data]
    table = Table(
        "curves",
        "Loss at the end of each stage",
        ["arm", "stage", "seeds", "tokens", "loss, nats a token"],
        rows,
        data,
        2,
    )
    key = [(f"{first}: {o}", c, "-") for o, c in colours.items()]
    key += [(f"{last}: {o}", "#5b6570", d) for o, d in dashes.items()]
    if any("@" in str(a["factors"].get(first)) for a in arms.values()):
        key.append(("controls", "#56b4e9", "-"))
    said = "Training loss, mean over seeds. Arms see different mixtures, so their losses are not scores: code is easier to predict than prose."
    chart = Chart(
        "curves",
        "Did training run its course? Loss of every arm by stage",
        "Each line is one arm; arms that share a stage share its line."
        + (f" Only the first {MOST_CURVES} of a stage are drawn." if len(data) > MOST_CURVES else ""),
        lambda narrow: curve_plot(stages, key, narrow),
        table,
    )
    return Section("curves", "Learning curves", (said,), charts=[chart])


def _mean_curve(parts: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds on the grid of the first; beyond a shorter run's end nothing is made up."""
    grid = parts[0].tokens
    grid = grid[grid <= min(p.tokens.max() for p in parts)]
    return grid, np.mean([np.interp(grid, p.tokens, p.loss) for p in parts], axis=0)


def doses(records: Records) -> Section | None:
    """What was drawn, not what was asked for."""
    stages: dict[str, list[Dose]] = {}
    seen = set()
    for run in records.runs:
        for stage in run["stages"]:
            key = (stage["name"], stage["option"])
            if key not in seen:
                seen.add(key)
                dose = Dose(stage["option"], stage["tokens_realised"], stage["tokens_planned"])
                stages.setdefault(stage["name"], []).append(dose)
    if not stages:
        return None
    shown = {stage: doses_[:MOST_DOSES] for stage, doses_ in stages.items()}
    more = sum(map(len, stages.values())) - sum(map(len, shown.values()))
    gap = _largest_gap(records)
    bands = schedule_bands(records)
    sources = list(dict.fromkeys(s for ds in stages.values() for d in ds for s in d.realised))
    every = all_source_colours(records)
    colours = {source: every[source] for source in sources}
    title = (
        "Every stage drew exactly the tokens that were planned"
        if gap == 0
        else "Doses: what was drawn differs from the plan"
        if gap is not None
        else "Doses: what was drawn in each stage"
    )
    said = "Counted from the batches that were trained on, source by source, beside the plan."
    if gap:
        said += f" The largest difference of one source in one stage is {gap:,} tokens."
    return Section(
        "doses",
        "Realised doses",
        (said,),
        charts=[
            Chart(
                "doses",
                title,
                "One bar an option of a stage. Black tick: planned."
                + (f" {more:,} more options are in the table." if more else ""),
                lambda narrow: dose_plot(shown, colours, narrow),
                dose_table(records),
            ),
            *([bands] if bands else []),
        ],
    )


def _largest_gap(records: Records) -> int | None:
    gaps = [
        abs(stage["tokens_realised"].get(source, 0) - planned)
        for run in records.runs
        for stage in run["stages"]
        for source, planned in stage["tokens_planned"].items()
    ]
    return max(gaps, default=None)


def cleaning(records: Records) -> Section | None:
    """What became of the documents of each source before training."""
    sources: Mapping[str, Any] = records.study.get("data") or {}
    if not sources:
        return None
    rules = ("evaluation item", "near evaluation item")
    found = sum(int(s["removed"].get(rule, 0)) for s in sources.values() for rule in rules)
    said = (
        f"{plural(found, 'document')} that held an evaluation item, word for word or nearly, "
        f"{'was' if found == 1 else 'were'} found and taken out before training."
        if found
        else "Every document was searched for the evaluation items; none was found."
    )
    rows, data = [], []
    for name, source in sources.items():
        removed = listed([f"{rule} {n:,}" for rule, n in source["removed"].items()]) or "none"
        kinds = source.get("kinds") or {}
        kept = max(1, source["kept"])
        told = listed([f"{kind} {100 * n / kept:.0f} %" for kind, n in kinds.items()])
        domain = str((records.study.get("domains") or {}).get(name, DASH))
        splits = _training_splits(source)
        rows.append([name, domain, told, splits, removed, f"{source['read']:,}", f"{source['kept']:,}"])
        data.append([name, domain, told, splits, removed, source["read"], source["kept"]])
    if any(source.get("training") for source in sources.values()):
        said += (
            " Where the training split of a task is in the data, its score measures what was taught as well "
            "as what carries over; the number of documents that hold an example of one is in the table."
        )
    head = ["source", "domain", "of which", "training splits", "removed", "documents read", "kept"]
    table = Table("data", "Documents of each source", head, rows, data, 5)
    return Section("data", "The data", (said,), tables=[table])


def _training_splits(source: Mapping[str, Any]) -> str:
    """The tasks of whose training splits a source holds examples: by name, or how many."""
    found: Mapping[str, int] = source.get("training") or {}
    if len(found) > 3:
        return f"{len(found)} tasks ({sum(found.values()):,})"
    return listed([f"{task} ({documents:,})" for task, documents in found.items()]) or "none"


def cost(records: Records) -> Section:
    """Time, tokens with and without sharing, machine."""
    known: Mapping[str, Any] = records.study.get("cost") or {}
    said, charts = [], []
    trained, unshared = known.get("tokens_trained"), known.get("tokens_unshared")
    if trained and unshared:
        saved = f"{100 * (1 - trained / unshared):.0f} %"
        said.append(
            f"{count(trained)} tokens were trained on. Each arm on its own would have taken "
            f"{count(unshared)}: arms that agree up to a point share the work up to that point, "
            f"which saved {saved} of it."
        )
        charts.append(
            Chart(
                "cost",
                f"What the study cost: sharing saved {saved} of the tokens",
                "Seconds of stages that several arms share are counted for each of them.",
                lambda narrow: cost_plot(trained, unshared, stage_seconds(records), narrow),
                cost_table(records),
            )
        )
    machine = records.study.get("machine") or {}
    points = [f"{capital(str(k).replace('_', ' '))}: {v}" for k, v in machine.items() if v is not None]
    tables = [] if charts else [cost_table(records)]
    return Section("cost", "Cost", tuple(said), points=points, charts=charts, tables=tables)


def summary(records: Records) -> str:
    """The line under the page's title."""
    cost_ = records.study.get("cost") or {}
    parts = [
        plural(len(records.study["arms"]), "arm"),
        plural(len(records.study["seeds"]), "seed"),
        plural(len(records.tasks), "task"),
    ]
    if cost_.get("tokens_trained") is not None:
        parts.append(f"{count(cost_['tokens_trained'])} tokens trained")
    if records.study.get("seconds") is not None:
        parts.append(duration(records.study["seconds"]))
    return " · ".join(parts)
