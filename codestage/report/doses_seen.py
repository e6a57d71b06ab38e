"""The section on doses: how much code was best, for what, and where nothing depends on it."""

from collections.abc import Mapping, Sequence
from typing import Any

from codestage.report.answer import place
from codestage.report.document import Cell, Chart, Section, Table
from codestage.report.drawing import BASE, family_colour
from codestage.report.lines import Curve, Mark, Pane, Span, multiples, spans
from codestage.report.text import (
    DASH,
    UNITS,
    capital,
    interval,
    listed,
    metric_name,
    p_value,
    plural,
    reach,
    signed,
)
from codestage.report.view import View

Entry = Mapping[str, Any]
SHAPES = {
    "peak": "rises and falls again",
    "trough": "falls and rises again",
    "rising": "rises with the dose",
    "falling": "falls with the dose",
    "irregular": "depends on the dose, in no simple way",
    "flat": "flat",
}
MOST = 15
"""Curves drawn at the most; of more, only all tasks and the domains."""
SAID = (
    "The dose is the share of the stage's tokens that came from domains which its first option did not draw on, as the "
    "batches held them. A quadratic is fitted to the differences from the lowest dose. Where it is not shown to beat a "
    "flat line (adjusted p below {alpha:g}), no dose is called best."
)


def dose_section(view: View, entries: Sequence[Entry]) -> Section | None:
    """Best doses, with the curves that they come from; None where no stage tried three doses."""
    shown = [e for e in entries if _shows(view, e)]
    if not shown:
        return None
    stages = list(dict.fromkeys(str(e["stage"]) for e in shown))
    answers, points, charts = [], [], []
    for stage in stages:
        here = [e for e in shown if e["stage"] == stage]
        answers.append(_answer(view, stage, here))
        points += _points(view, stage, here)
        charts += _charts(view, stage, here, len(stages) > 1)
    said = SAID.format(alpha=view.records.alpha)
    return Section("best-dose", "Dose and response", (*answers, said), points=points, charts=charts)


def _shows(view: View, entry: Entry) -> bool:
    if (entry["measured"], entry["cot"]) != (view.stage, view.cot):
        return False
    own = view.task_metric(entry["name"]) if entry["level"] == "task" else view.metric
    return bool(entry["metric"] == own)


def share(value: float | None) -> str:
    """`25 %`; small doses with a decimal."""
    if value is None:
        return DASH
    percent = 100 * value
    whole = (
        f"{percent:.0f}" if percent >= 10 or abs(percent - round(percent)) < 0.05 else f"{percent:.1f}"
    )
    return f"{whole} %"


def shares(low: float | None, high: float | None) -> str:
    """`10 to 50 %`."""
    return f"{share(low).removesuffix(' %')} to {share(high)}"


def _best(view: View, entry: Entry) -> str:
    """`25 % (95 % interval 20 to 30 %)`."""
    best = entry["best"]
    return (
        f"{share(best['dose'])} ({view.records.confidence} interval {shares(best['low'], best['high'])})"
    )


def _answer(view: View, stage: str, entries: Sequence[Entry]) -> str:
    """One sentence over all tasks."""
    subject = f"code {place(stage)}"
    entry = next((e for e in entries if e["level"] == "overall"), None)
    if entry is None:
        return f"Over all tasks the dose of {subject} was not measured."
    tried = listed([share(p["dose"]) for p in entry["points"]])
    if entry["best"] is None:
        return f"{_flat(entry, subject, metric_name(view.metric), f'over all tasks ({tried} tried)')}."
    best, unit = entry["best"], UNITS.get(entry["unit"], entry["unit"])
    told = f"Best dose of {subject} over all tasks: {_best(view, entry)}, of {tried} tried."
    if best["dose"] <= entry["points"][0]["dose"]:
        return f"{told} Any more lowers {metric_name(view.metric)}: it {SHAPES[entry['shape']]}."
    gain = interval(best["gain_low"], best["gain_high"], entry["unit"])
    told += f" It gains {signed(best['gain'], entry['unit'])} {unit} ({gain}) on the lowest dose; "
    return f"{told}{metric_name(view.metric)} {SHAPES[entry['shape']]}."


def _flat(entry: Entry, subject: str, metric: str, where: str) -> str:
    if entry["flat"] == "shown":
        return f"The dose of {subject} makes practically no difference to {metric} {where}: all doses are shown to lie within the margin"
    return f"No best dose of {subject} {where}: whether {metric} depends on it is not resolved"


def _points(view: View, stage: str, entries: Sequence[Entry]) -> list[str]:
    """Tasks by what was found."""
    tasks = [e for e in entries if e["level"] == "task"]
    if not tasks:
        return []
    found = [f"{e['name']} {_best(view, e)}" for e in tasks if e["best"] is not None]
    flat = [str(e["name"]) for e in tasks if e["flat"] == "shown"]
    unresolved = [str(e["name"]) for e in tasks if e["flat"] == "not resolved"]
    told = []
    if found:
        told.append(f"best dose {'; '.join(found)}")
    if flat:
        told.append(f"flat, shown to be within the margin, for {listed(flat)}")
    if unresolved:
        told.append(f"no dependence resolved for {listed(unresolved)}")
    return [capital(f"code {place(stage)}, by task: {'; '.join(told)}.")]


def _charts(view: View, stage: str, entries: Sequence[Entry], several: bool) -> list[Chart]:
    colour = family_colour(stage, view.families)
    ending = f"-{[*view.records.stages].index(stage)}" if several else ""
    table = _table(f"best-dose{ending}", entries)
    found = sum(e["best"] is not None for e in entries if e["level"] == "task")
    tasks = sum(e["level"] == "task" for e in entries)
    title = capital(f"code {place(stage)}: a best dose is shown on {found} of {plural(tasks, 'task')}")
    highest = max(p["dose"] for e in entries for p in e["points"])
    rows = [_span(view, e, colour) for e in entries]
    gaps = [i for i in range(1, len(entries)) if entries[i]["level"] != entries[i - 1]["level"]]
    charts = [
        Chart(
            f"best-dose{ending}",
            title,
            f"Bars: {view.records.confidence} interval of the best dose, from joint draws through the fitted curve. Lines part all tasks, domains and single tasks.",
            lambda narrow: spans(
                rows, x="best dose, % of the stage's tokens", narrow=narrow, gaps=gaps,
                limits=(-4, 100 * highest + 4),
            ),
            table,
        )
    ]  # fmt: skip
    drawn = entries if len(entries) <= MOST else [e for e in entries if e["level"] != "task"]
    panes = [_pane(e, colour) for e in drawn]
    left_out = "" if len(drawn) == len(entries) else " Single tasks are in the table."
    unit = "percentage points" if entries[0]["unit"] == "points" else UNITS.get(entries[0]["unit"], "")
    charts.append(
        Chart(
            f"dose-curves{ending}",
            capital(f"how {metric_name(view.metric)} follows the dose of code {place(stage)}"),
            f"Points: measured at each dose, against the lowest. Line and band: the quadratic with its {view.records.confidence} interval; grey where no dependence is shown.{left_out}",
            lambda narrow: multiples(
                panes, x="dose, % of the stage's tokens", y=f"difference, {unit}", narrow=narrow
            ),
            _curve_table(f"dose-curves{ending}", entries),
        )
    )
    return charts


def _span(view: View, entry: Entry, colour: str) -> Span:
    best = entry["best"]
    if best is None:
        words = "flat: shown" if entry["flat"] == "shown" else "flat: not resolved"
        return Span(str(entry["name"]), None, None, None, BASE, words)
    words = f"{share(best['dose'])} ({shares(best['low'], best['high'])})"
    ends = [None if best[k] is None else 100 * best[k] for k in ("dose", "low", "high")]
    return Span(str(entry["name"]), ends[0], ends[1], ends[2], colour, words)


def _pane(entry: Entry, colour: str) -> Pane:
    shade = colour if entry["best"] is not None else BASE
    curve = entry["curve"]
    return Pane(
        str(entry["name"]),
        [Curve([100 * x for x in curve["dose"]], curve["estimate"], curve["low"], curve["high"], shade)],
        [Mark(100 * p["dose"], p["estimate"], p["low"], p["high"], shade) for p in entry["points"]],
    )


def _table(name: str, entries: Sequence[Entry]) -> Table:
    head = ["of", "shape", "best dose", "interval", "gain", "interval of the gain", "per 10 % of dose",
            "p", "adj. p", "p of the bend"]  # fmt: skip
    rows, data = [], []
    for e in entries:
        best, unit = e["best"] or {}, e["unit"]
        shape = e["shape"] if e["flat"] is None else f"flat, {e['flat']}"
        slope = e["slope"]
        rows.append(
            [
                str(e["name"]),
                shape,
                share(best.get("dose")),
                shares(best["low"], best["high"]) if best else DASH,
                signed(best.get("gain"), unit),
                interval(best.get("gain_low"), best.get("gain_high"), unit),
                f"{signed(slope['estimate'], unit)} ({interval(slope['low'], slope['high'], unit)})",
                p_value(e["p"]),
                p_value(e["p_adjusted"]),
                p_value(e["p_bend"]),
            ]
        )
        line: list[Cell] = [str(e["name"]), shape, best.get("dose")]
        line += [reach(best.get("low"), best.get("high")), best.get("gain")]
        line += [reach(best.get("gain_low"), best.get("gain_high")), slope["estimate"]]
        data.append([*line, e["p"], e["p_adjusted"], e["p_bend"]])
    return Table(name, "Best doses", head, rows, data, 2)


def _curve_table(name: str, entries: Sequence[Entry]) -> Table:
    head = ["of", "options", "dose", "difference", "interval", "nearest monotone"]
    rows, data = [], []
    for e in entries:
        for p in e["points"]:
            words = [str(e["name"]), listed([str(o) for o in p["options"]])]
            rows.append(
                [
                    *words,
                    share(p["dose"]),
                    signed(p["estimate"], e["unit"]),
                    interval(p["low"], p["high"], e["unit"]),
                    signed(p["monotone"], e["unit"]),
                ]
            )
            ends = reach(p["low"], p["high"])
            data.append([*words, p["dose"], p["estimate"], ends, p["monotone"]])
    return Table(name, "Differences from the lowest dose", head, rows, data, 2)
