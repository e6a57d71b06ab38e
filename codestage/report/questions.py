"""The sections that answer: the three perspectives, the grid, schedules, controls, reasoning."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from codestage.report.answer import WORDS, claim, headline, place, resolved_names, told_apart
from codestage.report.cells import (
    Heat,
    Line,
    Strip,
    above,
    chance_plot,
    heat_map,
    interaction_plot,
    option_colours,
)
from codestage.report.document import Chart, Section
from codestage.report.drawing import BASE, family_colour
from codestage.report.forest import Panel, Row, axis_name, forest
from codestage.report.records import Effect, Mean, Records
from codestage.report.tables import effect_table, score_table, shrunk_table
from codestage.report.text import UNITS, capital, listed, metric_name, plural
from codestage.report.view import View

MOST_ROWS = 40
"""Rows that a chart shows; of more, those at both ends."""
MARKS = "Filled: resolved. Hollow: not resolved. Diamond: practically none."


def question(family: str) -> str:
    return "interaction" if family == "interaction" else f"code {place(family)}"


def _main_effect(view: View, family: str, level: str, name: str | None = None) -> Effect | None:
    contrast = view.main(family)
    return view.effect(contrast, level, name) if contrast else None


def hero(view: View) -> Chart | None:
    """Code at each stage and their interaction, over all tasks."""
    effects = [(f, _main_effect(view, f, "overall")) for f in view.families]
    if not any(effect for _, effect in effects):
        return None
    rows = [Row(capital(question(f)), e, colour=family_colour(f, view.families)) for f, e in effects]
    axis = axis_name(effects[0][1], metric_name(view.metric), view.records.confidence)
    return Chart(
        "overall",
        headline(view),
        f"Over all tasks, after the last stage. {MARKS}",
        lambda narrow: forest([Panel("", BASE, rows)], axis=axis, narrow=narrow),
        effect_table("overall", "Effects of code over all tasks", [e for _, e in effects if e]),
    )


def _ordered_tasks(records: Records) -> tuple[list[str], list[int]]:
    """Tasks grouped by domain, and the rows at which a domain begins."""
    names: list[str] = []
    gaps = []
    for domain in records.domains:
        gaps.append(len(names))
        names += [str(t["name"]) for t in records.tasks if t["domain"] == domain]
    return names, gaps[1:]


def _forest_chart(
    name: str, title: str, view: View, level: str, names: Sequence[str], gaps: Sequence[int] = ()
) -> Chart:
    """One panel a family, one row a domain or task."""
    panels, effects = [], []
    for family in view.families:
        found = {n: _main_effect(view, family, level, n) for n in names}
        mute = {n for n in names if level == "task" and view.able(n) is False}
        rows = [Row(n, found[n], muted=n in mute) for n in names]
        colour = family_colour(family, view.families)
        panels.append(Panel(capital(question(family)), colour, rows))
        effects += [e for e in found.values() if e is not None]
    metric = "score" if level == "task" and not view.continuous else metric_name(view.metric)
    axis = axis_name(effects[0] if effects else None, metric, view.records.confidence)
    grey = " Grey names: at chance in every arm." if level == "task" else ""
    return Chart(
        name,
        title,
        f"{MARKS}{grey}",
        lambda narrow: forest(panels, axis=axis, narrow=narrow, gaps=gaps),
        effect_table(name, title, effects),
    )


def perspectives(view: View, continuous: View | None) -> list[Section]:
    """Overall, by domain, by task: one section each for the last two, the hero is the first."""
    sections = []
    domains = [
        d for d in view.records.domains if any(_main_effect(view, f, "domain", d) for f in view.families)
    ]
    if domains:
        charts = [_forest_chart("domains", _finding(view, "domain"), view, "domain", domains)]
        if continuous is not None:
            title = f"The same by domain in the continuous score: {metric_name(continuous.metric)}"
            charts.append(_forest_chart("continuous", title, continuous, "domain", domains))
        said = "A domain's score is the mean of its tasks."
        said += (
            " Small models differ first in what they find likely, before they answer differently; "
            "so the likelihood score stands beside the accuracy."
            if continuous
            else ""
        )
        sections.append(Section("domains", "By domain", (said,), charts=charts))
    names, gaps = _ordered_tasks(view.records)
    if any(_main_effect(view, f, "task", n) for f in view.families for n in names):
        chart = _forest_chart("tasks", _finding(view, "task"), view, "task", names, gaps)
        said = "Each task in its own metric; lines part the domains. Adjusted p-values count all comparisons of a family."
        drawn = shrunk_table(
            e for f in view.stage_families for e in view.effects(f, "task") if e.contrast == view.main(f)
        )
        sections.append(
            Section("tasks", "By task", (said,), charts=[chart], tables=[drawn] if drawn else [])
        )
    return sections


def _finding(view: View, level: str) -> str:
    """`By task: code at pre-training raised 7 of 11; …`: the title as the finding."""
    parts = []
    for family in view.families:
        found = resolved_names(view, family, level)
        total = sum(map(len, found.values()))
        if not total:
            continue
        told = [f"{WORDS[s]} on {len(found[s])}" for s in ("raised", "lowered") if s in found]
        words = listed(told) if told else "resolved on none"
        parts.append(f"{question(family)} {words} of {total}")
    return capital(f"by {level}: {'; '.join(parts)}")


def grid(view: View) -> Section | None:
    """Scores of all arms: the map, and the means of the grid's cells."""
    records = view.records
    names, gaps = _ordered_tasks(records)
    arms = [str(a["name"]) for a in [*records.arms("grid"), *records.arms("control")]]
    means = {a: [view.mean(a, "task", n) for n in names] for a in arms}
    arms = [a for a in arms if any(m is not None for m in means[a])]
    if not arms:
        return None
    table = score_table("cells", "Scores in per cent", names, [(a, means[a]) for a in arms])
    arms, left_out = both_ends(arms, {a: _score(view.mean(a, "overall")) for a in arms})
    heat = Heat(arms, names, [[above(m) for m in means[a]] for a in arms], gaps)
    title = "What every arm scores on every task, in points above chance"
    charts = [
        Chart(
            "cells",
            title,
            "Blue: above chance; red: below; a dash: no score. Tables give the scores themselves."
            + (f" {left_out}" if left_out else ""),
            lambda narrow: heat_map(heat, narrow),
            table,
        )
    ]
    plot = _interaction_chart(view)
    said = "A score alone says little: what matters are the differences above, which are paired by item and seed."
    return Section(
        "grid", "The grid, cell by cell", (said,), charts=[*([plot] if plot else []), *charts]
    )


def _score(mean: Mean | None) -> float:
    return mean.mean if mean is not None and mean.mean is not None else 0.0


def both_ends(names: Sequence[str], values: Mapping[str, float]) -> tuple[list[str], str]:
    """At most `MOST_ROWS` names, those of the smallest and largest values, in their order; and what is said of it."""
    if len(names) <= MOST_ROWS:
        return list(names), ""
    ranked = sorted(names, key=lambda name: values[name])
    kept = {*ranked[: MOST_ROWS // 2], *ranked[-MOST_ROWS // 2 :]}
    said = f"Shown: the {MOST_ROWS // 2} lowest and highest of {len(names):,}; the table has all."
    return [name for name in names if name in kept], said


def _interaction_chart(view: View) -> Chart | None:
    records = view.records
    first, last = records.stages[0], records.stages[-1]
    options: Mapping[str, Sequence[str]] = records.study["options"]
    cells = {tuple(a["factors"].values()): str(a["name"]) for a in records.arms("grid")}
    if len(records.stages) != 2 or not all(len(key) == 2 for key in cells):
        return None
    colours = option_colours(options[first])
    lines = [
        Line(o, colours[o], [view.mean(cells.get((o, t), ""), "overall") for t in options[last]])
        for o in options[first]
    ]
    if not any(line.means for line in lines) or all(m is None for line in lines for m in line.means):
        return None
    title = f"Mean {metric_name(view.metric)} of the grid's cells: parallel lines would mean that the stages add up"
    axis = f"option at stage {last} (lines: option at {first})"
    table = score_table(
        "grid", title, [str(t) for t in options[last]], [(line.name, line.means) for line in lines]
    )
    return Chart(
        "grid",
        title,
        f"Bars: {records.confidence} intervals of each cell's own mean; they are wider than those of paired differences.",
        lambda narrow: interaction_plot(lines, options[last], axis, narrow),
        table,
    )


def family_section(view: View, family: str, anchor: str, title: str, said: str) -> Section | None:
    """Schedules, controls, transfer: all contrasts of a family, overall and below it."""
    effects = view.effects(family)
    top = [e for e in effects if e.level == "overall"] or [e for e in effects if e.level == "task"]
    if not top:
        return None
    chart = contrast_chart(view, top, anchor, title)
    rest = [e for e in effects if e.level != top[0].level]
    tables = [effect_table(f"{anchor}-all", f"{title}: by domain and task", rest)] if rest else []
    points = _harmed(view) if family == "transfer" else []
    return Section(anchor, title, (said,), points=points, charts=[chart], tables=tables)


def _harmed(view: View) -> list[str]:
    """For each stage, the tasks on which code was shown to do harm."""
    points = []
    for family in view.stage_families:
        found = resolved_names(view, family, "task")
        harmed = found.get("lowered", [])
        told = f"lowered {listed(harmed)}" if harmed else "harm was shown on no task"
        points.append(f"{capital(question(family))}: {told}, of {sum(map(len, found.values()))}.")
        below = [
            e for e in view.effects("transfer", "task") if e.contrast == f"transfer-{view.main(family)}"
        ]
        safe = [e.name for e in below if claim(e) in ("raised", "none", "spared")]
        if below:
            points.append(
                f"{capital(question(family))}: harm beyond the margin{_margin(view)} is ruled out on {listed(safe) or 'no task'}, of {len(below)}."
            )
    return points


def _margin(view: View) -> str:
    """` of 2 points`: the largest loss that counts as none, where it is known."""
    margin = view.records.margins.get(view.metric)
    return "" if margin is None else f" of {margin:g} {UNITS.get(view.unit, view.unit)}"


def earlier(view: View) -> Section | None:
    """What code did to the model at the end of its own stage, before any later one."""
    charts = []
    for i, stage in enumerate(view.records.stages[:-1]):
        before = replace(view, stage=stage)
        effects = [e for e in before.effects(stage) if e.level != "task"]
        if effects:
            title = f"Right after {stage}, before any later stage: {question(stage)}"
            charts.append(_rows_chart(before, f"after-{i}", title, effects))
    if not charts:
        return None
    said = (
        "A base model that has not been tuned may answer badly for want of the form of an answer. What "
        "code did is therefore judged after the last stage; this is how it stood before."
    )
    return Section("earlier", "Before tuning", (said,), charts=charts)


def _rows_chart(view: View, name: str, title: str, effects: Sequence[Effect]) -> Chart:
    """One panel, a row an effect, named by what it is over."""
    colour = family_colour(effects[0].family, view.families)
    rows = [Row(e.name, e, colour=colour) for e in effects]
    axis = axis_name(effects[0], metric_name(view.metric), view.records.confidence)
    return Chart(
        name,
        title,
        MARKS,
        lambda narrow: forest([Panel("", colour, rows)], axis=axis, narrow=narrow),
        effect_table(name, title, effects),
    )


def contrast_chart(view: View, effects: Sequence[Effect], anchor: str, subject: str) -> Chart:
    """A row a contrast (or a task, where there is one contrast only)."""
    one = len({e.contrast for e in effects}) == 1 and len(effects) > 1
    every = {
        e.name if one else e.label if e.level == "overall" else f"{e.label}: {e.name}": e
        for e in effects
    }
    kept, left_out = both_ends(list(every), {name: e.estimate or 0.0 for name, e in every.items()})
    rows = [
        Row(
            name, every[name], muted=every[name].level == "task" and view.able(every[name].name) is False
        )
        for name in kept
    ]
    told: dict[str, int] = {}
    for e in effects:
        told[claim(e)] = told.get(claim(e), 0) + 1
    words = listed([f"{n} of {len(effects)} {WORDS[s]}" for s, n in told.items()])
    title = f"{subject}: {words}"
    axis = axis_name(effects[0], metric_name(view.metric), view.records.confidence)
    if anchor != "transfer":
        axis = axis.replace("effect of code on", "difference in")
    colour = family_colour(effects[0].family)
    return Chart(
        anchor,
        title,
        f"{MARKS} {left_out}" if left_out else MARKS,
        lambda narrow: forest([Panel("", colour, rows)], axis=axis, narrow=narrow),
        effect_table(anchor, title, effects, by="label"),
    )


def abilities(view: View) -> Section | None:
    """Which tasks could show anything: chance and every arm."""
    records = view.records
    names, gaps = _ordered_tasks(records)
    arms = [*records.arms("grid"), *records.arms("control")]
    first = records.stages[0]
    colours = option_colours(list(records.study["options"].get(first, ())))
    strips = []
    for name in names:
        found = [(a, view.mean(str(a["name"]), "task", name)) for a in arms]
        known: list[tuple[Mean, str]] = [
            (m, colours.get(a["factors"].get(first), BASE)) for a, m in found if m is not None
        ]
        strips.append(Strip(name, [m for m, _ in known], [c for _, c in known], view.able(name)))
    if not any(s.means for s in strips):
        return None
    able = sum(s.able is True for s in strips)
    told = told_apart(view)
    mute = [s.name for s in strips if s.able is False and s.name not in told]
    title = f"{able} of {plural(len(strips), 'task')} came out above chance in at least one arm"
    said = "A task at chance in every arm cannot show an effect: no difference there means that nothing was measured, not that code does nothing."
    more = (
        f"Not shown above chance, and unable to resolve anything: {listed(mute)}."
        if mute
        else "Every task could be done better than by guessing in at least one arm, or told arms apart."
    )
    table = score_table(
        "chance",
        title,
        names,
        [(str(a["name"]), [view.mean(str(a["name"]), "task", n) for n in names]) for a in arms],
    )
    key = f"Colour: option at {first} ({listed([f'{o}: {w}' for o, w in zip(colours, _colour_words(len(colours)), strict=True)])})."
    return Section(
        "chance",
        "What each task could show",
        (said, more),
        charts=[Chart("chance", title, key, lambda narrow: chance_plot(strips, narrow, gaps), table)],
    )


def _colour_words(n: int) -> list[str]:
    words = ["grey", "orange", "amber", "brown", "pink", "green", "indigo"]
    return [words[i % len(words)] for i in range(n)]
