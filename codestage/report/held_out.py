"""Loss on rows that no arm trains on: the same rows for every arm, so that losses compare."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from codestage.report.answer import claim
from codestage.report.document import Cell, Chart, Section, Table
from codestage.report.drawing import family_colour
from codestage.report.forest import EFFECT, Panel, Row, forest
from codestage.report.questions import MARKS, question
from codestage.report.records import Effect, HeldOut, Records
from codestage.report.tables import effect_table
from codestage.report.text import DASH, capital, listed
from codestage.report.view import View

BETTER = "Positive: what is named first predicts the source better, by so many nats a token."


def held_out(records: Records, view: View | None) -> Section | None:
    """What code did to the loss on each source, and each arm's loss at the end of each stage."""
    if not records.held_out:
        return None
    said = (
        "Nats a token on rows that were kept from all arms, at the end of each stage. Differences are paired by seed; their "
        "intervals tell how trainings differ, not how other rows of a source would. In the table of arms, means over seeds, "
        "a column may be read downwards; sources differ in how easily they are predicted, so a row may not be read across."
    )
    chart, table = (_chart(view), _contrasts(view)) if view else (None, None)
    tables = [t for t in (table, _arms(records)) if t]
    return Section("held-out", "Held-out loss", (said,), charts=[chart] if chart else [], tables=tables)


def held_out_points(view: View) -> list[str]:
    """One point under the answer: on which sources code at each stage lowered or raised the loss."""
    parts, mains = [], _mains(view)
    for family in [f for f in view.stage_families if f in mains]:
        effects = mains[family]
        told = []
        for said, word in (("raised", "lower"), ("lowered", "higher")):
            found = [f"by {_size(e)} on {e.name}" for e in effects if claim(e) == said]
            told += [f"{word} {listed(found)}"] if found else []
        left = [e.name for e in effects if claim(e) not in ("raised", "lowered")]
        told += [f"not resolved on {listed(left)}"] if left else []
        parts.append(f"{capital(question(family))}: {'; '.join(told)}.")
    shown = f"Loss on held-out rows, in nats a token with {view.records.confidence} intervals."
    return [" ".join([shown, *parts])] if parts else []


def _size(effect: Effect) -> str:
    """How much the loss differs, whichever way."""
    assert effect.estimate is not None
    assert effect.low is not None
    assert effect.high is not None
    ends = sorted((abs(effect.low), abs(effect.high)))
    return f"{abs(effect.estimate):.3f} ({ends[0]:.3f} to {ends[1]:.3f})"


def _effects(records: Records) -> list[Effect]:
    """The rows of `losses` as the effects they are."""
    none: Mapping[str, Any] = dict.fromkeys(("n_items", "bootstrap", "mixed", "shrunk", "items"))
    return [
        Effect(
            **none,
            **{key: value for key, value in row.items() if key not in ("source", "domain")},
            level="task",
            name=row["source"],
            metric="loss",
            cot="off",
        )
        for row in records.sections.get("losses") or ()
    ]


def _mains(view: View) -> dict[str, list[Effect]]:
    """Family -> the effects of its main contrast on each source, after the last stage."""
    here = [e for e in _effects(view.records) if e.stage == view.stage]
    found = {f: [e for e in here if e.contrast == view.main(f)] for f in view.families}
    return {family: effects for family, effects in found.items() if effects}


def _chart(view: View) -> Chart | None:
    mains = _mains(view)
    if not mains:
        return None
    panels = [
        Panel(
            capital(question(family)),
            family_colour(family, view.families),
            [Row(e.name, e) for e in effects],
        )
        for family, effects in mains.items()
    ]
    effects = [e for found in mains.values() for e in found]
    title = "What code did to the loss on held-out rows of each source"
    axis = f"{EFFECT} held-out rows, nats a token saved (bars: {view.records.confidence} interval)"
    return Chart(
        "held-out-effects",
        title,
        f"After the last stage. {BETTER} {MARKS}",
        lambda narrow: forest(panels, axis=axis, narrow=narrow),
        effect_table("held-out-effects", title, effects),
    )


def _contrasts(view: View) -> Table | None:
    """All other contrasts, and code at each earlier stage right after it."""
    shown = {(e.contrast, e.stage) for found in _mains(view).values() for e in found}
    others = [
        e if e.stage == view.stage else replace(e, label=f"{e.label}, right after {e.stage}")
        for e in _effects(view.records)
        if (e.contrast, e.stage) not in shown
    ]
    title = f"Every other comparison on held-out rows. {BETTER}"
    return effect_table("held-out-contrasts", title, others) if others else None


def _arms(records: Records) -> Table:
    """Each arm's loss on what every source holds out, at the end of each stage; mean over seeds."""
    sources = list(dict.fromkeys((h.source, h.domain) for h in records.held_out))
    rows: list[list[str]] = []
    data: list[list[Cell]] = []
    for arm in [str(a["name"]) for a in records.study["arms"]]:
        for stage in records.stages:
            found = [h for h in records.held_out if (h.arm, h.stage) == (arm, stage)]
            if not found:
                continue
            losses = [_last([h for h in found if h.source == source]) for source, _ in sources]
            rows.append([arm, stage, *(DASH if x is None else f"{x:.3f}" for x in losses)])
            data.append([arm, stage, *losses])
    head = ["arm", "stage", *(f"{source} ({domain})" for source, domain in sources)]
    return Table("held-out", "Loss on held-out rows of each source", head, rows, data, 2)


def _last(found: Sequence[HeldOut]) -> float | None:
    """Mean over seeds of the last measurement; None where there is none."""
    ends = {h.seed: h.loss for h in sorted(found, key=lambda h: h.tokens)}
    return float(np.mean(list(ends.values()))) if ends else None
