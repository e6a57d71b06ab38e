"""The section on budgets: how scores, losses and the effect of code go with tokens, and whether short runs decide as long ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from codestage.report.answer import place
from codestage.report.document import Cell, Chart, Section, Table
from codestage.report.drawing import BASE, CODE, MORE, family_colour
from codestage.report.lines import Curve, Mark, Pane, Span, multiples, spans
from codestage.report.text import (
    DASH,
    UNITS,
    capital,
    count,
    interval,
    metric_name,
    p_value,
    percent,
    plural,
    reach,
    signed,
)
from codestage.report.view import View

Entry = Mapping[str, Any]
SIDES = {"code": ("with code", CODE), "base": ("without", BASE)}
COSTS = {
    "acc": ("errors", "share of wrong answers"),
    "prob": ("doubt", "probability of other choices"),
    "bpb": ("bits", "bits per byte of the right answer"),
    "loss": ("loss", "loss, nats a token"),
}
"""Metric -> file name, and what is drawn: all of them costs, the lower the better."""
SHORT = {"acc": "accuracy", "prob": "probability", "bpb": "bits"}
SAID = (
    "Shorter runs branch from the longest one and end with a decay of their own. What lies beyond the longest budget is "
    "extrapolated: its interval says what seeds and items leave open, not whether the trend goes on."
)
DECIDES = (
    "Decision accuracy is the share of pairs of arms of which the shorter run picks the same winner as the whole one. "
    "Pairs that the whole one cannot tell apart itself count for “all”, not for “resolved”. The interval covers seeds and "
    "items, with these arms as given; noise in either run pulls it down."
)


def scaling_section(view: View, entries: Sequence[Entry], decided: Sequence[Entry]) -> Section | None:
    """Trends over budgets, fitted curves, decisions; None where the study has one budget and no losses."""
    shown = [e for e in entries if e["kind"] == "ladder" and _shows(view, e)]
    losses = [e for e in entries if e["kind"] != "ladder"]
    told = [d for d in decided if (d["measured"], d["cot"]) == (view.stage, view.cot)]
    if not (shown or losses or told):
        return None
    answers: list[str] = []
    charts: list[Chart] = []
    for group in _groups(shown):
        overall = next((e for e in group if e["level"] == "overall"), group[0])
        answers.append(_trend(view, overall))
        charts += _effect_charts(view, group, len(charts))
    bits = [e for e in entries if e["kind"] == "ladder" and e["level"] == "overall"]
    bits = [e for e in bits if (e["measured"], e["cot"]) == (view.stage, view.cot)]
    for metric in dict.fromkeys(e["metric"] for e in bits):
        name = f"scaling-{COSTS[metric][0]}"
        of = [e for e in bits if e["metric"] == metric]
        charts.append(
            _cost_chart(view, name, f"{capital(COSTS[metric][1])} against tokens, all tasks", of)
        )
    if losses:
        kinds = {"held-out ladder": "at the end of each budget", "learning curve": "along the training"}
        where = kinds[losses[0]["kind"]]
        charts.append(_cost_chart(view, "held-out-curves", f"Held-out loss {where}", losses))
    if told:
        answers += _decided(told, view)
        charts.append(_decision_chart(told, view))
    said = (SAID, DECIDES) if told else (SAID,)
    return Section("budgets-fitted", "From small to large", (*answers, *said), charts=charts)


def _shows(view: View, entry: Entry) -> bool:
    if (entry["measured"], entry["cot"]) != (view.stage, view.cot):
        return False
    own = view.task_metric(entry["name"]) if entry["level"] == "task" else view.metric
    return bool(entry["metric"] == own)


def _groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    found: dict[tuple[str, str], list[Entry]] = {}
    for e in entries:
        found.setdefault((e["ladder"], e["contrast"]), []).append(e)
    return list(found.values())


def _stage(entry: Entry) -> str:
    return str(entry["contrast"]).partition("@")[2]


def _trend(view: View, entry: Entry) -> str:
    """Whether the effect grows with the budget, and what it would be one doubling further."""
    trend, confidence = entry["trend"], view.records.confidence
    who = f"code {place(_stage(entry))} on {metric_name(entry['metric'])}"
    unit = UNITS.get(entry["unit"], entry["unit"])
    numbers = signed(trend["estimate"], entry["unit"])
    span = interval(trend["low"], trend["high"], entry["unit"])
    given = f"{numbers} {unit} for each doubling of tokens at {entry['ladder']} ({confidence} interval {span}"
    given += f", adjusted p {p_value(trend['p_adjusted'])})"
    if _sure(view, entry):
        verb = "rises" if trend["estimate"] > 0 else "falls"
        told = f"The effect of {who} {verb} with the budget: {given}."
    else:
        told = f"Whether the effect of {who} changes with the budget is not resolved: {given}."
    further = entry["extrapolated"]
    if further is not None:
        span = interval(further["low"], further["high"], entry["unit"])
        told += f" Extrapolated to {count(further['tokens'])} tokens it would be {signed(further['estimate'], entry['unit'])} ({span})."
    else:
        told += f" {plural(len(entry['budgets']), 'budget')} are too few to extrapolate."
    return told


def _sure(view: View, entry: Entry) -> bool:
    """Whether the trend is shown."""
    p = entry["trend"]["p_adjusted"]
    return p is not None and bool(p < view.records.alpha)


def _effect_charts(view: View, entries: Sequence[Entry], number: int) -> list[Chart]:
    """The effect at each budget, over all tasks and by domain; and the trend of every row."""
    stage, ladder = _stage(entries[0]), entries[0]["ladder"]
    colour, ending = family_colour(stage, view.families), f"-{number}" if number else ""
    top = [e for e in entries if e["level"] != "task"]
    panes = [Pane(str(e["name"]), [], _effect_marks(e, colour)) for e in top]
    unit = "percentage points" if entries[0]["unit"] == "points" else UNITS.get(entries[0]["unit"], "")
    subject = f"effect of code {place(stage)}"
    rows = [
        Span(
            str(e["name"]),
            e["trend"]["estimate"],
            e["trend"]["low"],
            e["trend"]["high"],
            colour,
            f"{signed(e['trend']['estimate'], e['unit'])} ({interval(e['trend']['low'], e['trend']['high'], e['unit'])})",
            hollow=not _sure(view, e),
        )
        for e in entries
    ]
    gaps = [i for i in range(1, len(entries)) if entries[i]["level"] != entries[i - 1]["level"]]
    return [
        Chart(
            f"effect-by-budget{ending}",
            capital(f"{subject} at each budget of {ladder}"),
            f"Bars: {view.records.confidence} interval. Hollow: extrapolated by one doubling along a straight line in doublings.",
            lambda narrow: multiples(
                panes, x=f"tokens at {ladder}", y=f"effect, {unit}", narrow=narrow, tokens=True,
                key=[("measured", colour, False), ("extrapolated", colour, True)],
            ),
            _effect_table(f"effect-by-budget{ending}", entries),
        ),
        Chart(
            f"trend{ending}",
            capital(f"{subject}: change for each doubling of tokens at {ladder}"),
            f"Bars: {view.records.confidence} interval. Filled: the change is shown (adjusted p below {view.records.alpha:g}).",
            lambda narrow: spans(
                rows, x=f"change of the effect for each doubling, {unit}", narrow=narrow, reference=0, gaps=gaps
            ),
            _trend_table(f"trend{ending}", entries),
        ),
    ]  # fmt: skip


def _effect_marks(entry: Entry, colour: str) -> list[Mark]:
    marks = [Mark(b["tokens"], b["estimate"], b["low"], b["high"], colour) for b in entry["budgets"]]
    e = entry["extrapolated"]
    return marks + ([Mark(e["tokens"], e["estimate"], e["low"], e["high"], colour, True)] if e else [])


def _effect_table(name: str, entries: Sequence[Entry]) -> Table:
    head = ["of", "what", "tokens", "effect", "interval"]
    rows, data = [], []
    for e in entries:
        measured = [("measured", b) for b in e["budgets"]]
        for what, b in measured + ([("extrapolated", e["extrapolated"])] if e["extrapolated"] else []):
            words = [str(e["name"]), what]
            shown = [signed(b["estimate"], e["unit"]), interval(b["low"], b["high"], e["unit"])]
            rows.append([*words, count(b["tokens"]), *shown])
            data.append([*words, b["tokens"], b["estimate"], reach(b["low"], b["high"])])
    return Table(name, "Effects at each budget", head, rows, data, 2)


def _trend_table(name: str, entries: Sequence[Entry]) -> Table:
    head = ["of", "for each doubling", "interval", "p", "adj. p"]
    rows, data = [], []
    for e in entries:
        t = e["trend"]
        shown = [signed(t["estimate"], e["unit"]), interval(t["low"], t["high"], e["unit"])]
        rows.append([str(e["name"]), *shown, p_value(t["p"]), p_value(t["p_adjusted"])])
        line: list[Cell] = [str(e["name"]), t["estimate"], reach(t["low"], t["high"])]
        data.append([*line, t["p"], t["p_adjusted"]])
    return Table(name, "Change of the effect for each doubling", head, rows, data)


def _title(entry: Entry) -> str:
    """What a pane of costs shows."""
    if entry["metric"] == "loss":
        return f"{entry['name']} ({entry['domain']}), {entry['ladder']}"
    return f"code {place(_stage(entry))}"


def _cost_chart(view: View, name: str, title: str, entries: Sequence[Entry]) -> Chart:
    panes = []
    several = entries[0]["metric"] != "loss" and len({e["ladder"] for e in entries}) > 1
    for e in entries:
        curves, marks = [], []
        for group in e["groups"]:
            colour = SIDES[group["name"]][1]
            law = group["law"]
            if law["form"] is not None:
                c = law["curve"]
                last = group["points"][-1]["tokens"]
                curves.append(Curve(c["tokens"], c["cost"], c["low"], c["high"], colour, last))
            marks += [Mark(p["tokens"], p["cost"], p["low"], p["high"], colour) for p in group["points"]]
        ladder = f", tokens at {e['ladder']}" if several else ""
        panes.append(Pane(f"{_title(e)}{ladder}", curves, marks))
    kind = COSTS[entries[0]["metric"]][1]
    refused = next((g["law"]["why"] for e in entries for g in e["groups"] if g["law"]["why"]), None)
    said = (
        f"No curve is fitted: {refused}."
        if refused
        else f"Lines: power laws with {view.records.confidence} bands; dashed: extrapolated."
    )
    along = any(e["kind"] == "learning curve" for e in entries)
    said += " Points along a training are not ends of one: rates are still high there." if along else ""
    return Chart(
        name,
        title,
        f"Lower is better. {said}",
        lambda narrow: multiples(
            panes, x="tokens of the stage", y=kind, narrow=narrow,
            tokens=True, zero=False, key=[(w, c, False) for w, c in SIDES.values()],
        ),
        _law_table(name, entries),
    )  # fmt: skip


def _law_table(name: str, entries: Sequence[Entry]) -> Table:
    head = ["of", "side", "form", "exponent", "interval", "offset", "interval of the offset",
            "at twice the tokens", "interval there"]  # fmt: skip
    rows, data = [], []
    for e in entries:
        for g in e["groups"]:
            law, words = g["law"], [_title(e), SIDES[g["name"]][0]]
            if law["form"] is None:
                rows.append([*words, str(law["why"]), *[DASH] * 6])
                data.append([*words, law["why"], *[None] * 6])
                continue
            parts = [
                (law["exponent"]["estimate"], law["exponent"]["low"], law["exponent"]["high"]),
                (law["offset"]["estimate"], law["offset"]["low"], law["offset"]["high"]),
                (law["next"]["cost"], law["next"]["low"], law["next"]["high"]),
            ]
            form = "with offset" if law["form"] == "offset" else "without offset"
            rows.append([*words, form, *(x for p in parts for x in (_three(p[0]), _between(*p[1:])))])
            data.append([*words, form, *(x for p in parts for x in (p[0], reach(*p[1:])))])
    return Table(name, "Fitted power laws", head, rows, data, 3)


def _three(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _between(low: float | None, high: float | None) -> str:
    return DASH if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _named(d: Entry, ladder: bool = True) -> str:
    """`2M at pretrain: bits for accuracy`; without `ladder` just `2M: …`."""
    by, of = SHORT.get(d["metric"], d["metric"]), SHORT.get(d["target"], d["target"])
    words = by if by == of else f"{by} for {of}"
    where = f" at {d['ladder']}" if ladder else ""
    return f"{count(d['tokens'])}{where}: {words}"


def _decided(decided: Sequence[Entry], view: View) -> list[str]:
    """One sentence for the main metric: how early the winner could be told."""
    told = []
    for d in decided:
        if d["level"] != "overall" or (d["metric"], d["target"]) != (view.metric, view.metric):
            continue
        accuracy, sure = d["accuracy"], d["resolved"]
        text = f"With {count(d['tokens'])} tokens at {d['ladder']}, {percent(accuracy['estimate'], 0)} % of {plural(accuracy['pairs'], 'pair')} of arms have the same winner as with {count(d['of'])} ({percent(accuracy['low'], 0)} to {percent(accuracy['high'], 0)} %)"
        if sure["pairs"]:
            text += (
                f"; of the {sure['pairs']} that the whole runs resolve, {percent(sure['estimate'], 0)} %"
            )
        else:
            text += "; the whole runs resolve none of them"
        told.append(f"{text}.")
    return told


def _decision_chart(decided: Sequence[Entry], view: View) -> Chart:
    overall = [d for d in decided if d["level"] == "overall"]
    several = len({d["ladder"] for d in overall}) > 1
    rows = []
    colours = dict(zip(dict.fromkeys((d["metric"], d["target"]) for d in overall), MORE, strict=False))
    for d in overall:
        for what in ("accuracy", "resolved"):
            a = d[what]
            if a["estimate"] is None:
                continue
            words = f"{percent(a['estimate'], 0)} % ({percent(a['low'], 0)} to {percent(a['high'], 0)}), {plural(a['pairs'], 'pair')}"
            said = "" if what == "accuracy" else " (resolved)"
            at, low, high = (None if a[k] is None else 100 * a[k] for k in ("estimate", "low", "high"))
            colour = colours[d["metric"], d["target"]]
            rows.append(
                Span(
                    f"{_named(d, several)}{said}",
                    at,
                    low,
                    high,
                    colour,
                    words,
                    hollow=what == "accuracy",
                )
            )
    return Chart(
        "decisions",
        "Would shorter runs have picked the same winners?",
        "Each row: pairs of arms decided by the shorter runs, in one score, as the whole runs decide. Filled: only pairs that the whole runs resolve. 50 % is a coin.",
        lambda narrow: spans(rows, x="pairs with the same winner, %", narrow=narrow, limits=(0, 102), reference=50),
        decision_table(
            "budget", "Decision accuracy of shorter budgets, per cent", [(_named(d), d) for d in decided]
        ),
    )  # fmt: skip


def decision_table(first: str, title: str, decided: Sequence[tuple[str, Entry]]) -> Table:
    """How often the same winner is picked; `decided` are names, of what `first` says, with what was counted."""
    head = [first, "of", "pairs", "same winner", "interval", "resolved pairs", "same winner there",
            "interval there"]  # fmt: skip
    rows, data = [], []
    for name, d in decided:
        row, line = [name, str(d["name"])], list[Cell]([name, str(d["name"])])
        for what in ("accuracy", "resolved"):
            a = d[what]
            row += [str(a["pairs"]), percent(a["estimate"], 0)]
            row.append(
                DASH if a["low"] is None else f"{percent(a['low'], 0)} to {percent(a['high'], 0)}"
            )
            line += [a["pairs"], a["estimate"], reach(a["low"], a["high"])]
        rows.append(row)
        data.append(line)
    return Table("decisions", title, head, rows, data, 2)
