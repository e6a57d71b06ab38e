"""A study that added seeds until it was resolved: how each question came to be settled."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from codestage.report.document import Cell, Chart, Section, Table
from codestage.report.drawing import NARROW, RULE, SOFT, WIDE, family_colour, label, panel, sheet
from codestage.report.records import Records
from codestage.report.text import capital, count, interval, listed, p_value, plural, reach, signed

STOPPED = {
    "resolved": "every question was settled",
    "max-seeds": "the largest number of seeds was reached",
    "budget": "the next round would have gone over the budget",
}
STATES = {"up": "raised", "down": "lowered", "equivalent": "practically none", "open": "open"}


def until_resolved(records: Records) -> Section | None:
    """Confidence sequences by the number of seeds; None for a study with a fixed number."""
    found: Mapping[str, Any] | None = records.sections.get("sequential")
    if not found:
        return None
    contrasts: Sequence[Mapping[str, Any]] = found["contrasts"]
    told: Mapping[str, Any] = records.study.get("until") or {}
    settled = [c for c in contrasts if c["state"] != "open"]
    stopped = STOPPED.get(str(told.get("stopped")), "it was stopped")
    said = (
        f"Seeds were added where a question was still open, and looked at after each. The study ended because {stopped}. "
        f"The intervals hold the truth at all looks together with {100 * (1 - found['alpha']):g} % (confidence sequences), so "
        "that looking often does not make findings. A question is settled when its interval leaves out zero, or lies "
        f"within {found['margin']:g} points on both sides."
    )
    families = list(dict.fromkeys(str(c["family"]) for c in contrasts))
    title = f"{len(settled)} of {plural(len(contrasts), 'question')} settled"
    if settled:
        names = [f"{c['label']} ({STATES[c['state']]}, {c['settled_after']} seeds)" for c in settled]
        title += f": {listed(names)}"
    chart = Chart(
        "until",
        title,
        "Band: what is left after each number of seeds. Dot: estimate. Dashed: differences that count as none.",
        lambda narrow: _plot(contrasts, float(found["margin"]), families, narrow),
        _table(title, contrasts),
    )
    return Section("until", "Seeds until resolved", (said,), charts=[chart])


def _plot(
    contrasts: Sequence[Mapping[str, Any]], margin: float, families: Sequence[str], narrow: bool
) -> Figure:
    """A panel a contrast: the confidence sequence in points against seeds."""
    columns = 1 if narrow else min(3, len(contrasts))
    lines = -(-len(contrasts) // columns)
    width, height = (NARROW if narrow else WIDE), 1.7
    figure = sheet(width, lines * (height + 0.85))
    room = width / columns
    most = max((look["seeds"] for c in contrasts for look in c["looks"]), default=2)
    for i, contrast in enumerate(contrasts):
        bottom = 0.5 + (lines - 1 - i // columns) * (height + 0.85)
        axes = panel(figure, (i % columns) * room + 0.5, bottom, room - 0.62, height)
        colour = family_colour(str(contrast["family"]), families)
        looks = [look for look in contrast["looks"] if look["low"] is not None]
        xs = [look["seeds"] for look in looks]
        axes.fill_between(
            xs,
            [k["low"] for k in looks],
            [k["high"] for k in looks],
            color=colour,
            alpha=0.25,
            linewidth=0,
        )
        axes.plot(
            [k["seeds"] for k in contrast["looks"]], [k["estimate"] for k in contrast["looks"]],
            marker="o", markersize=3.5, color=colour, linewidth=1.0,
        )  # fmt: skip
        axes.axhline(0, color=SOFT, linewidth=1.0)
        for side in (-margin, margin):
            axes.axhline(side, color=RULE, linewidth=1.0, linestyle="--")
        axes.set_xlim(1.7, most + 0.3)
        ends = [v for k in looks for v in (k["low"], k["high"])] or [-10.0, 10.0]
        reach = min(60.0, max(abs(v) for v in ends))
        axes.set_ylim(-1.1 * reach, 1.1 * reach)
        axes.set_title(label(capital(str(contrast["label"])), 30), loc="left")
        axes.set_xlabel("seeds")
        axes.set_ylabel("points")
    return figure


def _table(title: str, contrasts: Sequence[Mapping[str, Any]]) -> Table:
    head = [
        "question",
        "seeds",
        "estimate",
        "interval",
        "evidence against none (e)",
        "p at any time",
        "state",
    ]
    rows: list[list[str]] = []
    data: list[list[Cell]] = []
    for c in contrasts:
        last = c["looks"][-1]["seeds"] if c["looks"] else len(c["seeds"])
        shown = [signed(c["estimate"]), interval(c["low"], c["high"])]
        rows.append(
            [c["label"], count(last), *shown, count(c["e"]), p_value(c["p"]), STATES[c["state"]]]
        )
        data.append(
            [
                c["label"],
                last,
                c["estimate"],
                reach(c["low"], c["high"]),
                c["e"],
                c["p"],
                STATES[c["state"]],
            ]
        )
    return Table("until", title, head, rows, data)
