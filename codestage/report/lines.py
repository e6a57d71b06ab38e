"""Small charts side by side (curves with bands through measured points), and rows of estimates with intervals."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from codestage.report.drawing import (
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
from codestage.report.text import count

Number = float | None


@dataclass(frozen=True)
class Curve:
    """A fitted line with its band; beyond `measured_to` it is extrapolated and drawn dashed."""

    x: Sequence[float]
    y: Sequence[Number]
    low: Sequence[Number]
    high: Sequence[Number]
    colour: str
    measured_to: float | None = None


@dataclass(frozen=True)
class Mark:
    """A measured point; hollow: extrapolated."""

    x: float
    y: Number
    low: Number
    high: Number
    colour: str
    hollow: bool = False


@dataclass(frozen=True)
class Pane:
    title: str
    curves: Sequence[Curve]
    marks: Sequence[Mark]


def multiples(
    panes: Sequence[Pane],
    *,
    x: str,
    y: str,
    narrow: bool,
    tokens: bool = False,
    zero: bool = True,
    key: Sequence[tuple[str, str, bool]] = (),
) -> Figure:
    """Panes of equal size. `tokens`: x is logarithmic. `zero`: a line at 0. `key`: (name, colour, hollow)."""
    width = NARROW if narrow else WIDE
    columns = min(len(panes), 2 if narrow else 3) if len(panes) > 1 else 1
    lines = -(-len(panes) // columns)
    height, pitch = (1.25, 1.82) if narrow else (1.45, 2.02)
    foot = 0.62 + (0.2 * -(-len(key) // (2 if narrow else 4)) if key else 0.0)
    figure = sheet(width, lines * pitch + foot - 0.24)
    left = 0.58
    room = (width - left - 0.1) / columns
    for i, pane in enumerate(panes):
        line, column = divmod(i, columns)
        bottom = foot + (lines - 1 - line) * pitch
        axes = panel(figure, left + column * room, bottom, room - 0.22, height)
        _pane(axes, pane, zero=zero, tokens=tokens)
        title = "\n".join(textwrap.wrap(label(pane.title, 48), 20 if narrow else 30)[:2])
        axes.set_title(title, loc="left", size=7.5)
    _same_scale(figure.axes)
    if tokens:
        _token_ticks(figure.axes, sorted({m.x for pane in panes for m in pane.marks}), narrow)
    for i, axes in enumerate(figure.axes):
        if i % columns:
            axes.set_yticklabels([])
    w, h = figure.get_size_inches()
    below = foot - 0.42
    figure.text((left + (width - left) / 2) / w, below / h, x, ha="center", color=SOFT, size=8)
    figure.text(0.08 / w, 0.5 + foot / h / 3, y, rotation=90, ha="left", va="center", color=SOFT, size=8)
    if key:
        _key(figure, key, narrow)
    return figure


def _pane(axes: Axes, pane: Pane, *, zero: bool, tokens: bool) -> None:
    if tokens:
        axes.set_xscale("log", base=2)
    if zero:
        axes.axhline(0, color=SOFT, linewidth=1.0, zorder=1.5)
    for curve in pane.curves:
        _curve(axes, curve)
    for mark in pane.marks:
        if mark.y is None:
            continue
        if mark.low is not None and mark.high is not None:
            axes.plot([mark.x] * 2, [mark.low, mark.high], color=mark.colour, linewidth=1.3, zorder=2.5)
        axes.plot(
            [mark.x], [mark.y], marker="o", markersize=4.2, color=mark.colour, zorder=3,
            markerfacecolor=PAPER if mark.hollow else mark.colour, markeredgewidth=1.2,
        )  # fmt: skip
    axes.grid()
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=4)
    if not tokens:
        axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labelsize=7)


def _curve(axes: Axes, curve: Curve) -> None:
    known = [
        (x, y, low, high)
        for x, y, low, high in zip(curve.x, curve.y, curve.low, curve.high, strict=True)
        if y is not None
    ]
    band = [(x, low, high) for x, _, low, high in known if low is not None and high is not None]
    if band:
        xs, low, high = zip(*band, strict=True)
        axes.fill_between(xs, low, high, color=curve.colour, alpha=0.16, linewidth=0)
    end = curve.measured_to
    for dashes, piece in (
        ("-", [k for k in known if end is None or k[0] <= end * 1.0001]),
        ("--", [k for k in known if end is not None and k[0] >= end * 0.97]),
    ):
        if piece:
            xs, ys, *_ = zip(*piece, strict=True)
            axes.plot(xs, ys, color=curve.colour, linewidth=1.3, linestyle=dashes)


def _token_ticks(panes: Sequence[Axes], tokens: Sequence[float], narrow: bool) -> None:
    """Ticks where something was measured, as many as there is room for."""
    most = 3 if narrow else 4
    chosen = [tokens[round(i * (len(tokens) - 1) / (most - 1))] for i in range(most)]
    ticks = sorted(set(chosen)) if len(tokens) > most else tokens
    for axes in panes:
        axes.set_xticks(ticks, [count(t) for t in ticks])
        axes.xaxis.set_minor_locator(NullLocator())


def _same_scale(panes: Sequence[Axes]) -> None:
    """One y for all panes, from what is drawn there."""
    limits = [axes.get_ylim() for axes in panes]
    for axes in panes:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def _key(figure: Figure, key: Sequence[tuple[str, str, bool]], narrow: bool) -> None:
    marks = [
        Line2D(
            [], [], color=colour, marker="o", markersize=4.5, label=label(name, 40),
            linestyle="--" if hollow else "-", markerfacecolor=PAPER if hollow else colour,
        )
        for name, colour, hollow in key
    ]  # fmt: skip
    figure.legend(handles=marks, loc="lower left", ncols=2 if narrow else 4, columnspacing=1.2)


@dataclass(frozen=True)
class Span:
    """A row: an estimate with its interval, and how it reads. None: nothing to draw, only words."""

    label: str
    estimate: Number
    low: Number
    high: Number
    colour: str
    words: str
    hollow: bool = False


def spans(
    rows: Sequence[Span],
    *,
    x: str,
    narrow: bool,
    limits: tuple[float, float] | None = None,
    reference: float | None = None,
    gaps: Sequence[int] = (),
) -> Figure:
    """Rows of estimates with intervals, in words at the right. `gaps`: rows with a line above."""
    width = NARROW if narrow else WIDE
    names = [_name(row.label, 22 if narrow else 36) for row in rows]
    longest = [line for name in names for line in name.split("\n")]
    aside = label_width(longest, 1.42 if narrow else 2.5)
    written = min(1.5 if narrow else 2.4, 0.12 + 0.062 * max((len(r.words) for r in rows), default=0))
    deep = max(name.count("\n") + 1 for name in names)
    height = ROW * max(1.0, 0.72 * deep) * max(2, len(rows))
    figure = sheet(width, height + 0.62)
    axes = panel(figure, aside, 0.52, width - aside - written, height)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), names)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    if reference is not None:
        axes.axvline(reference, color=SOFT, linewidth=1.1, zorder=1.5)
    for gap in gaps:
        axes.axhline(gap - 0.5, color=RULE, linewidth=0.8)
    for at, row in enumerate(rows):
        _span(axes, at, row, narrow)
    if limits is not None:
        axes.set_xlim(*limits)
    axes.locator_params(axis="x", nbins=4 if narrow else 6)
    axes.set_xlabel("\n".join(textwrap.wrap(x, 40 if narrow else 80)))
    return figure


def _name(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(label(text, 2 * width), width)[:2])


def _span(axes: Axes, at: int, row: Span, narrow: bool) -> None:
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [at, at], color=row.colour, linewidth=1.8, zorder=2)
    if row.estimate is not None:
        axes.plot(
            [row.estimate], [at], marker="o", markersize=5.4, markeredgecolor=row.colour,
            markerfacecolor=PAPER if row.hollow else row.colour, markeredgewidth=1.4, zorder=3,
        )  # fmt: skip
    axes.annotate(
        "\n".join(textwrap.wrap(row.words, 24 if narrow else 44)[:2]),
        (1, at),
        xycoords=("axes fraction", "data"),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        size=6.4 if narrow else 7.2,
        color=INK if row.estimate is not None else SOFT,
        annotation_clip=False,
    )
