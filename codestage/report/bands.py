"""Schedules as they were drawn: what share of every stretch of a stage came from which domain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from codestage.report.document import Cell, Chart, Table
from codestage.report.drawing import NARROW, WIDE, label, panel, sheet
from codestage.report.plots import all_source_colours
from codestage.report.records import Records

MOST_BANDS = 12
"""Options shown; those whose mixture changes come first."""


@dataclass(frozen=True)
class Band:
    """One option of a stage: share of each source `[window]`, adding up to 1."""

    stage: str
    option: str
    shares: Mapping[str, np.ndarray]

    @property
    def changes(self) -> bool:
        return any(np.ptp(share) > 0.02 for share in self.shares.values())


def schedule_bands(records: Records) -> Chart | None:
    """A small picture for each option; None where no mixture changes within a stage, or nobody counted."""
    bands: dict[tuple[str, str], Band] = {}
    for run in records.runs:
        for stage in run["stages"]:
            key = (str(stage["name"]), str(stage["option"]))
            if key not in bands and stage.get("drawn"):
                drawn = {
                    source: np.array(parts, dtype=float) for source, parts in stage["drawn"].items()
                }
                total = np.sum(list(drawn.values()), axis=0)
                shares = {s: d / np.where(total > 0, total, 1) for s, d in drawn.items() if d.any()}
                bands[key] = Band(*key, shares)
    if not any(band.changes for band in bands.values()):
        return None
    shown = sorted(bands.values(), key=lambda band: not band.changes)[:MOST_BANDS]
    drawn_from = dict.fromkeys(s for band in shown for s in band.shares)
    every = all_source_colours(records)
    colours = {source: every[source] for source in drawn_from}
    title = "Schedules: what each stretch of a stage drew"
    more = (
        f" {len(bands) - len(shown)} more options are in the table." if len(bands) > len(shown) else ""
    )
    return Chart(
        "schedule-bands",
        title,
        f"From the beginning of a stage (left) to its end, counted from the batches.{more}",
        lambda narrow: _plot(shown, colours, narrow),
        _table(title, list(bands.values())),
    )


def _plot(bands: Sequence[Band], colours: Mapping[str, str], narrow: bool) -> Figure:
    columns = 2 if narrow else 4
    lines = -(-len(bands) // columns)
    width, height = (NARROW if narrow else WIDE), 0.8
    foot = 0.15 + 0.19 * -(-len(colours) // (2 if narrow else 4))
    figure = sheet(width, lines * (height + 0.55) + foot)
    room = width / columns
    for i, band in enumerate(bands):
        bottom = foot + 0.15 + (lines - 1 - i // columns) * (height + 0.55)
        axes = panel(figure, (i % columns) * room + 0.08, bottom, room - 0.16, height)
        n = len(next(iter(band.shares.values())))
        under = np.zeros(n)
        for source, share in band.shares.items():
            axes.stairs(
                under + share,
                np.arange(n + 1) / n,
                baseline=under,
                fill=True,
                color=colours[source],
                alpha=0.85,
            )
            under = under + share
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(label(f"{band.stage}: {band.option}", 26), loc="left", fontsize=7.5)
    marks = [Patch(color=c, alpha=0.85, label=label(s, 20)) for s, c in colours.items()]
    figure.legend(handles=marks, loc="lower left", ncols=2 if narrow else 4, columnspacing=1.2)
    return figure


def _table(title: str, bands: Sequence[Band]) -> Table:
    """Each source's share at the beginning, in the middle, at the end, and over the whole stage."""
    rows: list[list[str]] = []
    data: list[list[Cell]] = []
    for band in bands:
        for source, share in band.shares.items():
            values = [share[0], share[len(share) // 2], share[-1]]
            rows.append([band.stage, band.option, source, *(f"{100 * v:.1f}" for v in values)])
            data.append([band.stage, band.option, source, *(float(f"{v:.6g}") for v in values)])
    head = ["stage", "option", "source", "first stretch, %", "middle, %", "last, %"]
    return Table("schedule-bands", title, head, rows, data, 3)
