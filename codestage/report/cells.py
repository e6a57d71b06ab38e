"""Charts of scores: the arms × tasks map, the grid's cell means, and what tasks could show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from codestage.report.drawing import (
    BASE,
    CODE,
    INK,
    MORE,
    NARROW,
    ROW,
    RULE,
    SOFT,
    WIDE,
    label,
    label_width,
    panel,
    sheet,
)
from codestage.report.records import Mean
from codestage.report.text import DASH, signed

Points = float | None


def above(mean: Mean | None) -> Points:
    """Percentage points above chance; None where either is unknown."""
    if mean is None or mean.mean is None or mean.chance is None:
        return None
    return 100 * (mean.mean - mean.chance)


@dataclass(frozen=True)
class Heat:
    """A map of numbers: `values[row][column]` in points above chance."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[Points]]
    gaps: Sequence[int] = ()
    """Columns with a line before them: where a domain begins."""


def heat_map(heat: Heat, narrow: bool) -> Figure:
    """Arms down, tasks across; on a phone the other way round, so that the names stay readable."""
    rows, columns, values = list(heat.rows), list(heat.columns), [list(r) for r in heat.values]
    if narrow:
        rows, columns = columns, rows
        values = [list(column) for column in zip(*heat.values, strict=True)]
    width, cell = (NARROW, 0.27) if narrow else (WIDE, 0.3)
    names, heads = [label(r, 30) for r in rows], [label(c, 24) for c in columns]
    aside, top = (
        label_width(names, 1.3 if narrow else 2.1),
        label_width(heads, 1.8) * (1.0 if narrow else 0.85),
    )
    figure = sheet(width, cell * len(rows) + top + 0.1)
    axes = panel(figure, aside, 0.05, width - aside - 0.35, cell * len(rows))
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    top_value = max((abs(v) for row in values for v in row if v is not None), default=1.0) or 1.0
    small = 5.2 if len(columns) > (7 if narrow else 14) else 6.8
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            _cell(axes, x, y, value, top_value, small)
    axes.set_yticks(range(len(rows)), names)
    turn = 90 if narrow else 40
    axes.set_xticks(range(len(columns)), heads, rotation=turn, ha="left", rotation_mode="anchor")
    if narrow:
        for tick in axes.get_xticklabels():
            tick.set_verticalalignment("center")
    axes.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, pad=2)
    axes.tick_params(axis="x", labelcolor=INK)
    for gap in heat.gaps:
        (axes.axhline if narrow else axes.axvline)(gap - 0.5, color=INK, linewidth=0.9)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def _cell(axes: Axes, x: int, y: int, value: Points, top: float, small: float) -> None:
    """Stronger colour: further above chance. Never darker than letters can be read on."""
    if value is not None:
        strength = min(0.62, 0.62 * abs(value) / top)
        colour = CODE if value < 0 else MORE[1]
        axes.add_patch(
            Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=colour, alpha=strength, linewidth=0)
        )
    shown = DASH if value is None else signed(round(value)).removesuffix(".0")
    axes.text(x, y, shown, ha="center", va="center", size=small)


@dataclass(frozen=True)
class Line:
    """A line of the interaction plot: one option of the first stage over those of the last."""

    name: str
    colour: str
    means: Sequence[Mean | None]


def option_colours(options: Sequence[str]) -> dict[str, str]:
    """The base grey, the first code option vermilion, others their own."""
    palette = [BASE, CODE, MORE[0], *MORE[2:]]
    return {option: palette[i % len(palette)] for i, option in enumerate(options)}


def interaction_plot(lines: Sequence[Line], ticks: Sequence[str], axis: str, narrow: bool) -> Figure:
    """Cell means with intervals; parallel lines mean no interaction. Chance is the dotted line."""
    width, height = (NARROW, 2.5) if narrow else (WIDE, 2.6)
    figure = sheet(width, height + 0.95)
    right = 1.15 if narrow else 1.7
    axes = panel(figure, 0.5, 0.62, width - 0.5 - right, height)
    ends: list[tuple[float, Line]] = []
    for i, line in enumerate(lines):
        known = [(x, m) for x, m in enumerate(line.means) if m is not None and m.mean is not None]
        shift = 0.04 * (i - (len(lines) - 1) / 2)
        xs, ys = [x + shift for x, _ in known], [100 * float(m.mean or 0) for _, m in known]
        for x, m in zip(xs, (m for _, m in known), strict=True):
            if m.low is not None and m.high is not None:
                axes.plot([x, x], [100 * m.low, 100 * m.high], color=line.colour, linewidth=1.6)
        axes.plot(xs, ys, color=line.colour, marker="o", markersize=5, linewidth=1.4)
        if ys:
            ends.append((ys[-1], line))
    axes.set_xlim(-0.35, len(ticks) - 0.65)
    axes.set_xticks(range(len(ticks)), [label(t, 10 if narrow else 22) for t in ticks])
    axes.set_xlabel(axis)
    axes.set_ylabel("%")
    axes.grid(axis="y")
    _chance_line(axes, lines)
    _name_ends(axes, ends, 16 if narrow else 24)
    return figure


def _chance_line(axes: Axes, lines: Sequence[Line]) -> None:
    known = [m.chance for line in lines for m in line.means if m is not None and m.chance is not None]
    if not known:
        return
    chance = 100 * known[0]
    axes.axhline(chance, color=INK, linewidth=1.0, linestyle=":")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, chance - 0.06 * (high - low)), high)
    axes.annotate(
        "chance", (0, chance), xycoords=("axes fraction", "data"), xytext=(3, 3),
        textcoords="offset points", size=7, color=SOFT,
    )  # fmt: skip


def _name_ends(axes: Axes, ends: list[tuple[float, Line]], length: int) -> None:
    """The lines' names at their right ends, kept apart: no legend to look up."""
    low, high = axes.get_ylim()
    step, last = 0.075 * (high - low), float("-inf")
    for y, line in sorted(ends, key=lambda end: end[0]):
        last = max(y, last + step)
        axes.annotate(
            label(line.name, length), (1, last), xycoords=("axes fraction", "data"),
            xytext=(4, 0), textcoords="offset points", va="center", size=7.5, color=line.colour,
            weight="bold", annotation_clip=False,
        )  # fmt: skip


@dataclass(frozen=True)
class Strip:
    """All arms' scores at one task."""

    name: str
    means: Sequence[Mean]
    colours: Sequence[str]
    able: bool | None


MOST_DOTS = 40
"""Arms shown one by one in a strip; more are shown as a range."""


def chance_plot(strips: Sequence[Strip], narrow: bool, gaps: Sequence[int] = ()) -> Figure:
    """A dot for each arm, a tick where chance is: which tasks the models could do at all."""
    names = [label(s.name) for s in strips]
    aside, width = label_width(names, 1.35), NARROW if narrow else WIDE
    height = ROW * max(2, len(strips))
    figure = sheet(width, height + 0.75)
    axes = panel(figure, aside, 0.55, width - aside - 0.15, height)
    axes.set_ylim(len(strips) - 0.4, -0.6)
    for y, strip in enumerate(strips):
        if len(strip.means) > MOST_DOTS:
            _spread(axes, y, strip)
        else:
            _dots(axes, y, strip)
        chance = next((m.chance for m in strip.means if m.chance is not None), None)
        if chance is not None:
            axes.plot([100 * chance] * 2, [y - 0.42, y + 0.42], color=INK, linewidth=1.6)
    axes.set_yticks(range(len(strips)), names)
    for tick, strip in zip(axes.get_yticklabels(), strips, strict=True):
        tick.set_color(INK if strip.able is not False else BASE)
    for gap in gaps:
        axes.axhline(gap - 0.5, color=RULE, linewidth=0.8)
    axes.set_xlim(-2, 102)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    many = any(len(s.means) > MOST_DOTS for s in strips)
    what = "line: all arms, thick: the middle half" if many else "dots: arms"
    what += ", with intervals" if not (narrow or many) else ""
    axes.set_xlabel(f"score, % ({what}; black tick: chance)")
    return figure


def _dots(axes: Axes, y: int, strip: Strip) -> None:
    n = max(1, len(strip.means) - 1)
    for i, (mean, colour) in enumerate(zip(strip.means, strip.colours, strict=True)):
        if mean.mean is None:
            continue
        at = y + 0.5 * (i / n - 0.5)
        if mean.low is not None and mean.high is not None:
            axes.plot([100 * mean.low, 100 * mean.high], [at, at], color=colour, linewidth=0.8)
        axes.plot([100 * mean.mean], [at], marker="o", markersize=2.6, color=colour)


def _spread(axes: Axes, y: int, strip: Strip) -> None:
    scores = [100 * m.mean for m in strip.means if m.mean is not None]
    if scores:
        low, first, middle, third, high = np.percentile(scores, [0, 25, 50, 75, 100])
        axes.plot([low, high], [y, y], color=CODE, linewidth=0.9)
        axes.plot([first, third], [y, y], color=CODE, linewidth=3.2)
        axes.plot([middle], [y], marker="o", markersize=3.2, color=CODE)
