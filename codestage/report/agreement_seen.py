"""Sections of `codestage compare`: agreement of orders, decisions of smaller models, family and size as factors."""

from collections.abc import Mapping, Sequence
from typing import Any

from codestage.report.document import Chart, Section, Table
from codestage.report.drawing import MORE
from codestage.report.lines import Span, spans
from codestage.report.small_to_large import SHORT, decision_table
from codestage.report.text import (
    UNITS,
    capital,
    interval,
    listed,
    metric_name,
    p_value,
    percent,
    plural,
    reach,
    signed,
)

Entry = Mapping[str, Any]


def confidence(found: Entry) -> str:
    return f"{100 * (1 - found['alpha']):g} %"


def orders(found: Entry) -> Section | None:
    """Kendall's W of options and arms."""
    rows = [o for o in found["orders"] if o["w"] is not None and o["cot"] == _mode(found["orders"])]
    if not rows:
        return None
    top = [o for o in rows if o["level"] == "overall"] or rows
    told = []
    for o in top:
        what = "the arms" if o["of"] == "arms" else f"the options of {o['of']}"
        shown = "" if o["p"] < found["alpha"] else ", which chance could give too"
        told.append(
            f"On the order of {what} by {metric_name(o['metric'])}, the studies agree with W = {o['w']:.2f} "
            f"({confidence(found)} interval {o['low']:.2f} to {o['high']:.2f}, p {p_value(o['p'])}{shown})."
        )
    colours = dict(zip(dict.fromkeys(o["metric"] for o in rows), MORE, strict=False))
    bars = [
        Span(
            f"{'arms' if o['of'] == 'arms' else o['of']}, {SHORT.get(o['metric'], o['metric'])}: {o['name']}",
            o["w"], o["low"], o["high"], colours[o["metric"]],
            f"{o['w']:.2f} ({o['low']:.2f} to {o['high']:.2f}), p {p_value(o['p'])}",
            hollow=not o["p"] < found["alpha"],
        )
        for o in rows
        if o["level"] != "task"
    ]  # fmt: skip
    said = "Kendall's W: 1 is the same order in every study, 0 none in common. p counts how often random orders agree as much; the interval covers seeds and items."
    chart = Chart(
        "orders",
        "Do the studies put options and arms in the same order?",
        "Filled: agreement shown (p below 0.05).",
        lambda narrow: spans(bars, x="Kendall's W", narrow=narrow, limits=(-0.03, 1.03)),
        _order_table(rows),
    )
    return Section("orders", "Agreement of orders", (*told, said), charts=[chart])


def _mode(rows: Sequence[Entry]) -> str | None:
    modes = [r["cot"] for r in rows]
    return "off" if "off" in modes else modes[0] if modes else None


def _order_table(rows: Sequence[Entry]) -> Table:
    head = ["order of", "metric", "tasks", "members", "W", "interval", "p"]
    shown, data = [], []
    for o in rows:
        words = [str(o["of"]), metric_name(o["metric"]), str(o["name"])]
        shown.append(
            [
                *words,
                str(len(o["members"])),
                f"{o['w']:.3f}",
                f"{o['low']:.3f} to {o['high']:.3f}",
                p_value(o["p"]),
            ]
        )
        data.append([*words, len(o["members"]), o["w"], reach(o["low"], o["high"]), o["p"]])
    return Table("orders", "Kendall's W", head, shown, data, 3)


def decisions(found: Entry) -> Section | None:
    """Decision accuracy of every study for the largest."""
    rows = [d for d in found["decisions"] if d["cot"] == _mode(found["decisions"])]
    if not rows:
        return None
    shown = [d for d in rows if d["level"] == "overall"] or rows
    # One pair is right or wrong: it is in the table.
    shown = [d for d in shown if d["pairs"] > 1] or shown
    colours = dict(zip(dict.fromkeys((d["metric"], d["target"]) for d in shown), MORE, strict=False))
    bars = []
    for d in shown:
        a, words = d["accuracy"], _deciding(d)
        at, low, high = (None if a[k] is None else 100 * a[k] for k in ("estimate", "low", "high"))
        text = f"{percent(a['estimate'], 0)} % ({percent(a['low'], 0)} to {percent(a['high'], 0)}), {plural(a['pairs'], 'pair')}"
        bars.append(Span(words, at, low, high, colours[d["metric"], d["target"]], text))
    said = f"The share of pairs of options or arms of which a study picks the same winner as {shown[0]['of']}, the largest. Pairs that the largest itself cannot resolve are left out in the table's second half. 50 % is a coin."
    chart = Chart(
        "decisions",
        f"Would smaller models have picked the winners of {shown[0]['of']}?",
        f"Bars: {confidence(found)} interval over seeds and items; noise in either study pulls it down.",
        lambda narrow: spans(bars, x="pairs with the same winner, %", narrow=narrow, limits=(0, 102), reference=50),
        decision_table(
            "study", "Decision accuracy for the largest study, per cent", [(_deciding(d), d) for d in rows]
        ),
    )  # fmt: skip
    return Section("decisions", "From small to large", (said,), charts=[chart])


def _deciding(d: Entry) -> str:
    by, of = SHORT.get(d["metric"], d["metric"]), SHORT.get(d["target"], d["target"])
    what = "arms" if d["deciding"] == "arms" else f"options of {d['deciding']}"
    return f"{d['study']}, {what}: {by if by == of else f'{by} for {of}'}"


def factors(rows: Sequence[Entry], found: Entry) -> Section | None:
    """Size and family as factors of each effect."""
    sized = [r for r in rows if r["size"] is not None]
    of_family = [r for r in rows if r["model_family"] is not None]
    if not sized and not of_family:
        return None
    points = [_size_point(r, found) for r in sized if r["level"] == "overall"]
    points += [_family_point(r) for r in of_family if r["level"] == "overall"]
    said = "Size: random-effects regression of the effect on doublings of the parameters, three studies or more. Family: whether the families' means differ. Studies that differ in both tell the two apart only as far as the design crosses them. p-values here are not adjusted."
    return Section(
        "factors", "Family and size as factors", (said,), points=points, tables=[_factor_table(rows)]
    )


def _size_point(r: Entry, found: Entry) -> str:
    s, unit = r["size"], UNITS.get(r["unit"], r["unit"])
    told = f"{signed(s['per_doubling'], r['unit'])} {unit} for each doubling of parameters ({confidence(found)} interval {interval(s['low'], s['high'], r['unit'])}, p {p_value(s['p'])})"
    verb = "changes" if s["p"] < found["alpha"] else "is not shown to change"
    return f"{capital(r['label'])} {verb} with size: {told}."


def _family_point(r: Entry) -> str:
    means = listed(
        [
            f"{f['family']} {signed(f['mean'], r['unit'])} ({plural(f['studies'], 'study', 'studies')})"
            for f in r["model_family"]["families"]
        ]
    )
    return f"{capital(r['label'])} by family: {means}; p of no difference {p_value(r['model_family']['p'])}."


def _factor_table(rows: Sequence[Entry]) -> Table:
    head = ["question", "of", "per doubling of parameters", "interval", "p", "p of families"]
    shown, data = [], []
    for r in rows:
        s, f = r["size"] or {}, r["model_family"] or {}
        words = [str(r["label"]), str(r["name"])]
        ends = interval(s.get("low"), s.get("high"), r["unit"])
        slope = signed(s.get("per_doubling"), r["unit"])
        shown.append([*words, slope, ends, p_value(s.get("p")), p_value(f.get("p"))])
        span = reach(s.get("low"), s.get("high"))
        data.append([*words, s.get("per_doubling"), span, s.get("p"), f.get("p")])
    return Table("factors", "Size and family", head, shown, data, 2)
