"""The section on mixture laws: the best mixture they propose, how sure, and which arm to train next."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from codestage.report.document import Cell, Chart, Section, Table
from codestage.report.doses_seen import share, shares
from codestage.report.drawing import CODE, MORE, NARROW, SOFT, WIDE, panel, sheet
from codestage.report.lines import Span, spans
from codestage.report.text import DASH, UNITS, interval, listed, plural, reach, signed
from codestage.report.view import View

Entry = Mapping[str, Any]
LAWS = {"log-linear": "log-linear law", "quadratic": "quadratic regression"}
SAID = (
    "A law predicts the score of a mixture from its shares: a log-linear one, c + k exp(t·r), and a quadratic ridge "
    "regression. Each arm is predicted from the others; the law with the smaller error proposes. Only mixtures between "
    "those tried are considered. Intervals come from draws over seeds and items with random weights of the arms."
)


def mixture_section(view: View, found: Entry | None) -> Section | None:
    """The proposal over all tasks first; None where fewer than three mixtures were tried."""
    if found is None:
        return None
    if found["refused"] is not None:
        told = f"No mixture law is fitted: {found['refused']}."
        return Section("mixtures", "Mixture laws", (told,))
    rows = found["rows"]
    overall = next((r for r in rows if r["level"] == "overall"), None)
    if overall is None:
        return None
    unit = UNITS.get(overall["unit"], overall["unit"])
    paragraphs = (*_answer(overall, found, unit, view), SAID)
    charts = [_share_chart(overall, view), _error_chart(overall, unit)]
    return Section(
        "mixtures", "Mixture laws", paragraphs, points=_paste(overall), charts=charts,
        tables=[_law_table(rows), _best_table(rows)],
    )  # fmt: skip


def _answer(row: Entry, found: Entry, unit: str, view: View) -> list[str]:
    best, law = row["best"], row["laws"][row["chosen"]]
    gain = interval(best["gain_low"], best["gain_high"], row["unit"])
    arms = found["mixtures"][best["best_tried"]]["arms"]
    lead = f"Proposed mixture over all tasks: {_mix(best['shares'], True)}."
    lead += f" Against the best arm tried ({listed([str(a) for a in arms])}) it is predicted to gain {signed(best['gain'], row['unit'])} {unit} ({view.records.confidence} interval {gain})"
    lead += "." if _positive(best["gain_low"]) else ": that it gains anything is not shown."
    if not best["gain"]:
        lead = f"No mixture between those tried is predicted to beat the best arm tried ({listed([str(a) for a in arms])}), which is {_mix(best['shares'], True)}."
    if edge := _edge(best["shares"], found):
        lead += f" At {listed(edge)} it lies at the end of what was tried: whether going further helps is not known."
    rank = "unknown" if law["rank"] is None else f"{law['rank']:.2f}"
    error = f"{LAWS[row['chosen']].capitalize()}: it predicts arms left out with an error of {_size(law['rmse'], row['unit'])} {unit} and a rank correlation of {rank}; their mean alone misses by {_size(row['mean_rmse'], row['unit'])}."
    if law["rmse"] is not None and row["mean_rmse"] is not None and law["rmse"] >= row["mean_rmse"]:
        error += " It predicts no better than the mean: the proposal has nothing to stand on."
    nxt = row["next"]
    if nxt["why"] == "improvement":
        why = f"most is expected of it: {_size(nxt['improvement'], row['unit'])} {unit} better than the best arm tried"
    else:
        why = f"no mixture is expected to improve, and the draws disagree most about it (by {_size(nxt['disagreement'], row['unit'])} {unit})"
    return [lead, error, f"The next arm to train is {_mix(nxt['shares'], False)}, for {why}."]


def _edge(parts: Sequence[Entry], found: Entry) -> list[str]:
    """Stages at which a share is the lowest or the highest of those tried."""
    tried: dict[tuple[str, str], list[float]] = {}
    for mixture in found["mixtures"]:
        for p in mixture["shares"]:
            tried.setdefault((p["stage"], p["source"]), []).append(p["share"])
    ends = []
    for p in parts:
        values = tried[p["stage"], p["source"]]
        if max(values) > min(values) and not min(values) + 0.002 < p["share"] < max(values) - 0.002:
            ends.append(str(p["stage"]))
    return list(dict.fromkeys(ends))


def _positive(value: float | None) -> bool:
    return value is not None and value > 0


def _size(value: float | None, unit: str) -> str:
    return DASH if value is None else f"{value:.4f}" if unit == "bits" else f"{value:.2f}"


def _mix(parts: Sequence[Entry], spans: bool) -> str:
    """`at pretrain prose 75 % (70 to 80 %) and python 25 % (20 to 30 %)`."""
    stages: dict[str, list[str]] = {}
    for p in parts:
        told = f"{p['source']} {share(p['share'])}"
        told += f" ({shares(p['low'], p['high'])})" if spans else ""
        stages.setdefault(p["stage"], []).append(told)
    return "; ".join(f"at {stage} {listed(told)}" for stage, told in stages.items())


def _paste(row: Entry) -> list[str]:
    """The lines for the study file."""
    told = []
    for part, name in (("best", "the proposal"), ("next", "the next arm")):
        for stage, line in row[part]["yaml"].items():
            told.append(f"To try {name}, under options of stage {stage}: {line}")
    return told


def _share_chart(row: Entry, view: View) -> Chart:
    rows = []
    for p in row["best"]["shares"]:
        words = f"{share(p['share'])} ({shares(p['low'], p['high'])})"
        at, low, high = (None if p[k] is None else 100 * p[k] for k in ("share", "low", "high"))
        rows.append(Span(f"{p['stage']}: {p['source']}", at, low, high, CODE, words))
    head = ["stage", "source", "share", "interval", "next arm"]
    after = [p["share"] for p in row["next"]["shares"]]
    shown, data = [], []
    for p, n in zip(row["best"]["shares"], after, strict=True):
        names = [str(p["stage"]), str(p["source"])]
        shown.append([*names, share(p["share"]), shares(p["low"], p["high"]), share(n)])
        data.append([*names, p["share"], reach(p["low"], p["high"]), n])
    return Chart(
        "proposal",
        "The proposed mixture, over all tasks",
        f"Bars: {view.records.confidence} interval of the best share.",
        lambda narrow: spans(rows, x="share of the stage's tokens, %", narrow=narrow, limits=(-3, 103)),
        Table("proposal", "Proposed mixture and next arm", head, shown, data, 2),
    )


def _error_chart(row: Entry, unit: str) -> Chart:
    pairs = [(p["measured"], p["predicted"]) for p in row["left_out"]]
    rows = [[_size(m, row["unit"]), _size(p, row["unit"])] for m, p in pairs]
    data: list[list[Cell]] = [[m, p] for m, p in pairs]
    what = "bits per byte" if row["unit"] == "bits" else "wrong answers, %"
    return Chart(
        "left-out",
        f"Every arm predicted from the others, by the {LAWS[row['chosen']]}",
        "Each dot an arm; on the line the prediction is right. Lower is better.",
        lambda narrow: _scatter(pairs, what, narrow),
        Table("left-out", f"Arms left out, {unit}", ["measured", "predicted"], rows, data, 0),
    )


def _scatter(pairs: Sequence[tuple[float, float]], what: str, narrow: bool) -> Figure:
    width = NARROW if narrow else WIDE
    side = 2.4 if narrow else 2.9
    figure = sheet(width, side + 0.75)
    axes: Axes = panel(figure, 0.75, 0.6, side, side)
    ends = [v for pair in pairs for v in pair]
    reach = (max(ends) - min(ends)) or 1.0
    span = (min(ends) - 0.06 * reach, max(ends) + 0.06 * reach)
    axes.plot(span, span, color=SOFT, linewidth=1.0)
    axes.plot(
        [m for m, _ in pairs],
        [p for _, p in pairs],
        marker="o",
        markersize=5,
        linestyle="",
        color=MORE[1],
    )
    axes.set_xlim(*span)
    axes.set_ylim(*span)
    axes.locator_params(nbins=5)
    axes.set_xlabel(f"measured, {what}")
    axes.set_ylabel("predicted from the other arms")
    axes.grid()
    axes.set_axisbelow(True)
    return figure


def _law_table(rows: Sequence[Entry]) -> Table:
    head = ["of", "chosen"]
    head += [f"{name}: {what}" for name in LAWS.values() for what in ("error", "rank")] + ["mean alone"]
    shown, data = [], []
    for r in rows:
        words = [str(r["name"]), LAWS[r["chosen"]]]
        row, line = list(words), list[Cell](words)
        for name in LAWS:
            law = r["laws"][name]
            row += [_size(law["rmse"], r["unit"]), DASH if law["rank"] is None else f"{law['rank']:.2f}"]
            line += [law["rmse"], law["rank"]]
        shown.append([*row, _size(r["mean_rmse"], r["unit"])])
        data.append([*line, r["mean_rmse"]])
    title = f"Errors on arms left out, {plural(len(rows), 'row')}"
    return Table("mixture-laws", title, head, shown, data, 2)


def _best_table(rows: Sequence[Entry]) -> Table:
    head = ["of", "stage", "source", "best share", "interval", "gain", "interval of the gain"]
    shown, data = [], []
    for r in rows:
        best = r["best"]
        for p in best["shares"]:
            words = [str(r["name"]), str(p["stage"]), str(p["source"])]
            gain = interval(best["gain_low"], best["gain_high"], r["unit"])
            shown.append(
                [
                    *words,
                    share(p["share"]),
                    shares(p["low"], p["high"]),
                    signed(best["gain"], r["unit"]),
                    gain,
                ]
            )
            ends = reach(best["gain_low"], best["gain_high"])
            data.append([*words, p["share"], reach(p["low"], p["high"]), best["gain"], ends])
    return Table("best-mixtures", "The best mixture for everything", head, shown, data, 3)
