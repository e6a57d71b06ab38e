"""Charts of what was done and what could be seen: detectable effects, curves, doses, reasoning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
    family_colour,
    label,
    label_width,
    panel,
    sheet,
)
from codestage.report.records import Effect, Mean, Records


@dataclass(frozen=True)
class Seen:
    """A row of the detectability chart: the same question at one level, for each family."""

    name: str
    effects: Mapping[str, Effect | None]
    """family -> effect"""


def detectable_plot(rows: Sequence[Seen], names: Mapping[str, str], narrow: bool) -> Figure:
    """Bars reach to the smallest effect likely to be found, dots are what was estimated."""
    families = list(names)
    width, each = (NARROW if narrow else WIDE), ROW * (0.55 + 0.3 * len(families))
    labels = [label(row.name) for row in rows]
    aside, height = label_width(labels, 1.35), max(0.6, each * len(rows))
    figure = sheet(width, height + (1.35 if narrow else 1.0))
    foot = 0.95 if narrow else 0.62
    axes = panel(figure, aside, foot, width - aside - 0.15, height)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    thick = 0.8 / max(1, len(families))
    for y, row in enumerate(rows):
        for i, family in enumerate(families):
            effect, at = row.effects.get(family), y - 0.4 + (i + 0.5) * thick
            if effect is None:
                continue
            colour = family_colour(family, families)
            if effect.mde is not None:
                axes.barh([at], [effect.mde], thick * 0.86, color=colour, alpha=0.25)
            if effect.estimate is not None:
                axes.plot([abs(effect.estimate)], [at], marker="o", markersize=3.6, color=colour)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("size of an effect, percentage points")
    marks: list[Patch | Line2D] = [
        Patch(color=family_colour(f, families), alpha=0.5, label=names[f]) for f in families
    ]
    marks.append(
        Line2D([], [], marker="o", color=SOFT, linestyle="", markersize=4, label="estimated size")
    )
    figure.legend(handles=marks, loc="lower left", ncols=2 if narrow else 4, columnspacing=1.2)
    return figure


@dataclass(frozen=True)
class Loss:
    """Mean loss of an arm over its seeds at one stage, tokens `[points]`."""

    tokens: np.ndarray
    loss: np.ndarray
    colour: str
    dashes: str


def curve_plot(
    stages: Mapping[str, Sequence[Loss]], key: Sequence[tuple[str, str, str]], narrow: bool
) -> Figure:
    """Training loss against tokens, one panel a stage. `key`: (name, colour, line style)."""
    width, height = (NARROW if narrow else WIDE), 2.0
    columns = 1 if narrow else min(2, len(stages))
    lines = -(-len(stages) // columns)
    shown = list(key)
    foot = 0.2 + 0.17 * -(-len(shown) // (2 if narrow else 4))
    figure = sheet(width, lines * (height + 0.85) + foot)
    room = width / columns
    for i, (stage, curves) in enumerate(stages.items()):
        bottom = foot + 0.5 + (lines - 1 - i // columns) * (height + 0.85)
        axes = panel(figure, (i % columns) * room + 0.52, bottom, room - 0.68, height)
        for curve in curves:
            axes.plot(
                curve.tokens / 1e6, curve.loss, color=curve.colour, linestyle=curve.dashes,
                linewidth=1.2,
            )  # fmt: skip
        axes.set_title(label(stage, 30), loc="left")
        axes.set_xlabel("tokens of the stage, millions")
        axes.set_ylabel("loss, nats a token")
        axes.grid()
    marks = [
        Line2D([], [], color=c, linestyle=d, linewidth=1.8, label=label(n, 24)) for n, c, d in shown
    ]
    figure.legend(handles=marks, loc="lower left", ncols=2 if narrow else 4, columnspacing=1.2)
    return figure


@dataclass(frozen=True)
class Dose:
    """What one arm really drew in one stage, and what was planned, tokens by source."""

    name: str
    realised: Mapping[str, int]
    planned: Mapping[str, int]


def source_colours(sources: Sequence[str], domains: Mapping[str, str]) -> dict[str, str]:
    """Text sources grey, code sources vermilion, other domains their own; no two alike."""
    spare = iter(MORE * (1 + len(sources)))
    first = {"text": BASE, "code": CODE}
    colours: dict[str, str] = {}
    for source in sources:
        wanted = first.get(domains.get(source, ""))
        colours[source] = wanted if wanted and wanted not in colours.values() else next(spare)
    return colours


def all_source_colours(records: Records) -> dict[str, str]:
    """The colour of each source on the whole page, whichever of them a chart shows."""
    domains = {str(k): str(v) for k, v in (records.study.get("domains") or {}).items()}
    stages = [stage for run in records.runs for stage in run["stages"]]
    drawn = [s for stage in stages for s in (*stage["tokens_realised"], *stage.get("drawn", ()))]
    return source_colours(list(dict.fromkeys([*domains, *drawn])), domains)


def dose_plot(stages: Mapping[str, Sequence[Dose]], colours: Mapping[str, str], narrow: bool) -> Figure:
    """Stacked bars of realised tokens; the black tick is the planned total."""
    names = [label(d.name, 24) for doses in stages.values() for d in doses]
    width, aside = (NARROW if narrow else WIDE), label_width(names, 1.45 if narrow else 1.8)
    heights = [ROW * max(1.5, len(doses)) for doses in stages.values()]
    foot = 0.22 + 0.19 * -(-(len(colours) + 1) // (2 if narrow else 4))
    figure = sheet(width, sum(heights) + 0.85 * len(heights) + foot)
    top = sum(heights) + 0.85 * len(heights) + foot
    for (stage, doses), height in zip(stages.items(), heights, strict=True):
        top -= 0.3 + height
        axes = panel(figure, aside, top, width - aside - 0.2, height)
        top -= 0.55
        axes.set_ylim(len(doses) - 0.4, -0.6)
        for y, dose in enumerate(doses):
            left = 0.0
            for source, tokens in dose.realised.items():
                axes.barh([y], [tokens / 1e6], 0.62, left=left, color=colours[source], alpha=0.85)
                left += tokens / 1e6
            planned = sum(dose.planned.values()) / 1e6
            axes.plot([planned] * 2, [y - 0.42, y + 0.42], color=INK, linewidth=1.4)
        axes.set_yticks(range(len(doses)), [label(d.name, 24) for d in doses])
        axes.set_title(label(stage, 40), loc="left")
        axes.set_xlabel("tokens drawn, millions")
        axes.set_xlim(left=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    marks: list[Patch | Line2D] = [
        Patch(color=c, alpha=0.85, label=label(s, 20)) for s, c in colours.items()
    ]
    marks.append(Line2D([], [], color=INK, marker="|", linestyle="", markersize=9, label="planned"))
    figure.legend(handles=marks, loc="lower left", ncols=2 if narrow else 4, columnspacing=1.2)
    return figure


def cost_plot(trained: float, unshared: float, seconds: Mapping[str, float], narrow: bool) -> Figure:
    """Tokens trained on beside what every arm on its own would have taken, and seconds a run by stage."""
    names = ["trained on", "if nothing were shared"]
    width, aside = (NARROW if narrow else WIDE), label_width([*names, *seconds], 1.6)
    heights = [ROW * 2, ROW * max(1, len(seconds))]
    figure = sheet(width, sum(heights) + 1.45)
    top = panel(figure, aside, 0.95 + heights[1], width - aside - 0.3, heights[0])
    top.barh([0, 1], [trained / 1e6, unshared / 1e6], 0.62, color=[CODE, BASE], alpha=0.85)
    top.set_yticks([0, 1], names)
    top.set_ylim(1.6, -0.6)
    top.set_xlabel("tokens, millions")
    low = panel(figure, aside, 0.45, width - aside - 0.3, heights[1])
    low.barh(range(len(seconds)), list(seconds.values()), 0.62, color=BASE, alpha=0.85)
    low.set_yticks(range(len(seconds)), [label(name, 22) for name in seconds])
    low.set_ylim(len(seconds) - 0.4, -0.6)
    low.set_xlabel("seconds a run, by stage (mean)")
    for axes in (top, low):
        axes.grid(axis="x")
        axes.set_axisbelow(True)
    return figure


COT_COLOURS = {"off": BASE, "supplied": MORE[1], "generated": MORE[0]}


def cot_plot(tasks: Sequence[tuple[str, Mapping[str, Sequence[Mean]]]], narrow: bool) -> Figure:
    """A row a task, a dot for each way of asking: mean over the arms, bars from worst to best arm."""
    names = [label(name) for name, _ in tasks]
    modes = list(dict.fromkeys(mode for _, means in tasks for mode in means))
    width, aside = (NARROW if narrow else WIDE), label_width(names, 1.35)
    height = ROW * 1.5 * max(2, len(tasks))
    figure = sheet(width, height + 0.95)
    axes = panel(figure, aside, 0.7, width - aside - 0.15, height)
    axes.set_ylim(len(tasks) - 0.4, -0.6)
    for y, (_, by_mode) in enumerate(tasks):
        for i, mode in enumerate(modes):
            scores = [100 * m.mean for m in by_mode.get(mode, ()) if m.mean is not None]
            at = y + 0.26 * (i - (len(modes) - 1) / 2)
            if scores:
                colour = COT_COLOURS.get(mode, MORE[3])
                axes.plot([min(scores), max(scores)], [at, at], color=colour, linewidth=1.4)
                axes.plot([float(np.mean(scores))], [at], marker="o", markersize=5, color=colour)
        chance = next((m.chance for ms in by_mode.values() for m in ms if m.chance is not None), None)
        if chance is not None:
            axes.plot([100 * chance] * 2, [y - 0.44, y + 0.44], color=INK, linewidth=1.6)
    axes.set_yticks(range(len(tasks)), names)
    axes.set_xlim(-2, 102)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines["left"].set_color(RULE)
    axes.set_xlabel("score, % (dot: mean of the arms; bar: worst to best arm)")
    marks = [
        Line2D(
            [],
            [],
            color=COT_COLOURS.get(m, MORE[3]),
            marker="o",
            markersize=4,
            label=f"chain of thought {label(m, 12)}",
        )
        for m in modes
    ]
    marks.append(Line2D([], [], color=INK, marker="|", linestyle="", markersize=9, label="chance"))
    figure.legend(handles=marks, loc="lower left", ncols=2 if narrow else 4, columnspacing=1.2)
    return figure
