"""Forest plots: a row for each task, domain or contrast, its estimate and its interval.

Filled: the effect is resolved. Hollow: it is not. A diamond: practically none; a triangle: no harm. Grey: the task was
at chance in every arm, so that it could not show anything.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from codestage.report.answer import claim
from codestage.report.drawing import (
    BASE,
    INK,
    NARROW,
    PAPER,
    ROW,
    RULE,
    SOFT,
    WIDE,
    label,
    label_width,
    panel,
    sheet,
)
from codestage.report.records import Effect
from codestage.report.text import UNITS, interval, signed


@dataclass(frozen=True)
class Row:
    label: str
    effect: Effect | None
    muted: bool = False
    colour: str | None = None
    """Instead of the panel's."""


@dataclass(frozen=True)
class Panel:
    """One question, asked of the same rows as its neighbours; of its own ones where panels are `stacked`."""

    title: str
    colour: str
    rows: Sequence[Row]
    gaps: Sequence[int] = ()
    """Rows with a line above."""


def forest(
    panels: Sequence[Panel], *, axis: str, narrow: bool, gaps: Sequence[int] = (), stacked: bool = False
) -> Figure:
    """Panels side by side, or one below the other on a phone, or where `stacked`.

    `gaps`: rows with a line above, in every panel.
    """
    labels = [[_label(row.label, narrow) for row in part.rows] for part in panels]
    longest = [line for names in labels for text in names for line in text.split("\n")]
    aside = label_width(longest, 1.45 if narrow else 2.5)
    low, high = _range([row for p in panels for row in p.rows])
    numbers = stacked or len(panels) == 1
    if narrow or numbers:
        figure = _stacked(panels, labels, aside, narrow, numbers)
    else:
        figure = _beside(panels, labels[0], aside)
    for axes, part in zip(figure.axes, panels, strict=True):
        _draw(axes, part, [*gaps, *part.gaps])
        axes.set_xlim(low, high)
        if axis.startswith(EFFECT):
            _hints(axes)
        if numbers:
            _write_numbers(axes, part.rows)
    named = figure.axes[0] if not narrow and len(panels) < 3 else figure.axes[len(panels) // 2]
    for axes in figure.axes if narrow or stacked else [named]:
        axes.set_xlabel(_folded(axis, 44 if narrow else 90))
    _key(figure)
    return figure


def _height(labels: Sequence[str]) -> float:
    """Inches that rows with these names need."""
    lines = max((text.count("\n") + 1 for text in labels), default=1)
    return ROW * max(1.0, 0.72 * lines) * max(2, len(labels))


MARKERS = {"none": "D", "spared": "^"}
"""Claims that have a mark of their own."""
FOOT, HEAD, KEY = 0.72, 0.34, 0.3
EFFECT = "effect of code on"


def _label(text: str, narrow: bool) -> str:
    """A row's name in up to three lines."""
    width = 20 if narrow else 34
    lines = textwrap.wrap(label(text, 3 * width), width)
    return "\n".join([*lines[:2], " ".join(lines[2:])] if len(lines) > 2 else lines)


def _stacked(
    panels: Sequence[Panel], labels: Sequence[Sequence[str]], aside: float, narrow: bool, numbers: bool
) -> Figure:
    width = NARROW if narrow else WIDE
    written = (1.3 if narrow else 1.75) if numbers else 0.1
    head = HEAD if any(part.title for part in panels) else 0.05
    heights = [_height(names) for names in labels]
    figure = sheet(width, sum(heights) + (head + 0.45) * len(panels) + KEY)
    bottom = KEY + sum(heights) + (head + 0.45) * len(panels)
    for part, names, height in zip(panels, labels, heights, strict=True):
        bottom -= height + head
        axes = panel(figure, aside, bottom, width - aside - written, height)
        bottom -= 0.45
        _frame(axes, part.rows, names)
        axes.set_title(part.title, loc="left")
    return figure


def _beside(panels: Sequence[Panel], labels: Sequence[str], aside: float) -> Figure:
    height = _height(labels)
    figure = sheet(WIDE, height + FOOT + HEAD)
    room = (WIDE - aside - 0.1) / len(panels)
    for i, part in enumerate(panels):
        axes = panel(figure, aside + i * room, FOOT, room - 0.14, height)
        _frame(axes, part.rows, labels if i == 0 else [""] * len(labels))
        axes.set_title(part.title, loc="left", color=part.colour)
    return figure


def _frame(axes: Axes, rows: Sequence[Row], labels: Sequence[str]) -> None:
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), labels)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(BASE if row.muted else INK)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=5)


def _draw(axes: Axes, part: Panel, gaps: Sequence[int]) -> None:
    axes.axvline(0, color=SOFT, linewidth=1.1, zorder=1.5)
    for gap in gaps:
        axes.axhline(gap - 0.5, color=RULE, linewidth=0.8)
    for y, row in enumerate(part.rows):
        effect, said = row.effect, claim(row.effect)
        if effect is None or effect.estimate is None:
            axes.text(0, y, " –", va="center", color=SOFT)
            continue
        colour = BASE if row.muted else row.colour or part.colour
        if effect.low is not None and effect.high is not None:
            axes.plot([effect.low, effect.high], [y, y], color=colour, linewidth=1.8, zorder=2)
        resolved = said in ("raised", "lowered")
        axes.plot(
            [effect.estimate],
            [y],
            marker=MARKERS.get(said, "o"),
            markersize=5.6 if MARKERS.get(said, "o") == "o" else 5.0,
            markerfacecolor=colour if resolved else PAPER,
            markeredgecolor=colour,
            markeredgewidth=1.4,
            zorder=3,
        )


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    """One scale for all panels, zero inside; outliers of wide intervals still fit."""
    ends = [0.0]
    for row in rows:
        if row.effect is not None:
            ends += [v for v in (row.effect.low, row.effect.high, row.effect.estimate) if v is not None]
    reach = (max(ends) - min(ends)) or 1.0
    return min(ends) - 0.08 * reach, max(ends) + 0.08 * reach


def _hints(axes: Axes) -> None:
    """Which side is which, in words."""
    low, high = axes.get_xlim()
    if axes.get_window_extent().width < 1.8 * axes.figure.dpi:
        return  # no room for both
    for x, word, side in ((low, "← code hurts", "left"), (high, "code helps →", "right")):
        if abs(x) > 0.3 * (high - low):
            axes.text(x, len(axes.get_yticks()) - 0.42, word, ha=side, va="bottom", size=6.2, color=SOFT)


def _write_numbers(axes: Axes, rows: Sequence[Row]) -> None:
    for y, row in enumerate(rows):
        effect = row.effect
        if effect is None or effect.estimate is None:
            continue
        shown = (
            f"{signed(effect.estimate, effect.unit)}  ({interval(effect.low, effect.high, effect.unit)})"
        )
        axes.annotate(
            shown,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=7.2,
            annotation_clip=False,
        )


def _key(figure: Figure) -> None:
    """What the marks mean, in every chart."""
    style: dict[str, Any] = {"linestyle": "-", "linewidth": 1.6, "color": SOFT, "markeredgecolor": SOFT}
    marks = [
        Line2D([], [], marker="o", markerfacecolor=SOFT, label="resolved", **style),
        Line2D([], [], marker="o", markerfacecolor=PAPER, label="not resolved", **style),
        Line2D(
            [],
            [],
            marker="D",
            markersize=5,
            markerfacecolor=PAPER,
            label="practically none",
            **style,
        ),
    ]
    figure.legend(handles=marks, loc="lower left", ncols=3, columnspacing=1.2, handletextpad=0.5)


def _folded(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))


def axis_name(effect: Effect | None, metric: str, confidence: str) -> str:
    """`effect of code on accuracy, percentage points (95 % interval)`."""
    unit = effect.unit if effect is not None else "points"
    shown = "percentage points" if unit == "points" else UNITS.get(unit, unit)
    return f"{EFFECT} {metric}, {shown} (bars: {confidence} interval)"
