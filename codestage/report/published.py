"""Published effects of code beside one's own, in one forest plot."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from codestage.report.answer import place
from codestage.report.document import Cell, Chart, Section, Table
from codestage.report.drawing import OTHER, family_colour
from codestage.report.forest import Panel, Row, axis_name, forest
from codestage.report.records import Effect
from codestage.report.text import capital, count, interval, listed, p_value, plural, signed
from codestage.report.view import View

STATED = ("stated", "given")


def published_section(view: View, published: Mapping[str, Any]) -> Section | None:
    """One forest plot: published differences of a stage, then one's own main effect of code at that stage.

    `published` is what `analyse.audit.audit` says of a table. Taken are, for each stage, the first two arms of its first
    table and size: of Ma et al. 2024 NL to CODE before tuning and NN to NC after it, both with 2.6B parameters. A stage of
    one's own is matched by its name, or else by its kind. None where no stage is in both.
    """
    panels: list[Panel] = []
    table: list[Cells] = []
    told: list[dict[str, Any]] = []
    for family in view.stage_families:
        theirs = _taken(published, _names(view, family))
        mine = _own(view, family)
        if not theirs or not mine:
            continue
        asked, colour = f"code {place(family)}", family_colour(family, view.families)
        rows = [Row(_label(d), _effect(d, family), colour=OTHER) for d in theirs]
        rows += [Row(f"here: {_tasks(effect)}", effect, colour=colour) for effect in mine]
        panels.append(Panel(capital(asked), colour, rows, gaps=[len(theirs)]))
        table += [_published_cells(asked, d) for d in theirs]
        table += [_own_cells(asked, effect) for effect in mine]
        told, own = told + theirs, mine[0]
    if not panels:
        return None
    axis = axis_name(own, "accuracy", view.records.confidence)
    chart = Chart(
        "published",
        _title(told),
        "Grey: as published. In colour: this study. Filled: resolved, or of the published ones larger than sampling error "
        "(Holm over the whole file). Hollow: not. No bar: the number of items is not known.",
        lambda narrow: forest(panels, axis=axis, narrow=narrow, stacked=True),
        Table("published", "Published effects of code beside this study's", COLUMNS, *_split(table), 3),
    )
    return Section("published", "Beside published numbers", _said(published, told, own), charts=[chart])


COLUMNS = ("question", "of", "source", "estimate", "interval", "p", "adj. p", "items", "items from")


def _names(view: View, family: str) -> tuple[str, ...]:
    """What a published stage must be called to be the stage of `family`."""
    training = view.records.study.get("training") or {}
    return family, str((training.get(family) or {}).get("kind") or family)


def _taken(published: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """The first two arms of the first table and size of a stage, task by task."""
    here = [d for d in published["differences"] if d["stage"] in names]
    keys = ("paper", "table", "size", "from", "to")
    return [d for d in here if all(d[k] == here[0][k] for k in keys)]


def _own(view: View, family: str) -> list[Effect]:
    """The main effect over all tasks, then by domain; in points, as the published ones are."""
    contrast = view.main(family)
    if contrast is None or view.unit != "points":
        return []
    found = [view.effect(contrast, "overall")]
    found += [view.effect(contrast, "domain", domain) for domain in view.records.domains]
    return [effect for effect in found if effect is not None]


def _effect(difference: Mapping[str, Any], family: str) -> Effect:
    """A published difference in the form of an effect; what nobody knows of it is None."""
    larger = difference["larger_than_sampling_error"]
    known: dict[str, Any] = {
        "contrast": "published",
        "label": f"{difference['from']} to {difference['to']}",
        "family": family,
        "level": "task",
        "name": difference["task"],
        "metric": "acc",
        "stage": difference["stage"],
        "cot": "off",
        "estimate": difference["points"],
        "unit": "points",
        "verdict": ("up" if difference["points"] > 0 else "down") if larger else "open",
    }
    shared = {k: difference[k] for k in ("low", "high", "p", "p_adjusted")}
    own = {"n_items": difference["n"], "seeds": None, "mde": None}
    empty: dict[str, Any] = dict.fromkeys(f.name for f in fields(Effect))
    return Effect(**(empty | known | shared | own))


def _source(difference: Mapping[str, Any]) -> str:
    table = f", table {difference['table']}" if difference["table"] else ""
    return f"{difference['paper'] or 'published'}{table}: {difference['from']} to {difference['to']}"


def _items(difference: Mapping[str, Any]) -> str:
    if difference["n"] is None:
        return "items not known"
    told = plural(difference["n"], "item")
    return told if difference["n_from"] in STATED else f"{told}, {difference['n_from']}"


def _label(difference: Mapping[str, Any]) -> str:
    return f"{difference['paper'] or 'published'}: {difference['task']}, {_items(difference)}"


def _tasks(effect: Effect) -> str:
    return "all tasks" if effect.level == "overall" else effect.name


Cells = tuple[list[str], list[Cell]]


def _published_cells(asked: str, d: Mapping[str, Any]) -> Cells:
    words = [asked, str(d["task"]), _source(d)]
    origin = d["n_from"] if d["n"] is not None else "not known"
    shown = [
        signed(d["points"]),
        interval(d["low"], d["high"]),
        p_value(d["p"]),
        p_value(d["p_adjusted"]),
    ]
    span = f"{d['low']} to {d['high']}" if d["low"] is not None else None
    raw: list[Cell] = [d["points"], span, d["p"], d["p_adjusted"], d["n"], origin]
    return [*words, *shown, count(d["n"]), str(origin)], [*words, *raw]


def _own_cells(asked: str, e: Effect) -> Cells:
    words = [asked, _tasks(e), "this study"]
    shown = [signed(e.estimate), interval(e.low, e.high), p_value(e.p), p_value(e.p_adjusted)]
    span = f"{e.low} to {e.high}" if e.low is not None else None
    raw: list[Cell] = [e.estimate, span, e.p, e.p_adjusted, e.n_items, "counted"]
    return [*words, *shown, count(e.n_items), "counted"], [*words, *raw]


def _split(cells: Sequence[Cells]) -> tuple[list[list[str]], list[list[Cell]]]:
    return [shown for shown, _ in cells], [raw for _, raw in cells]


def _title(told: Sequence[Mapping[str, Any]]) -> str:
    """The finding: how many of the published differences can be told from none."""
    tested = [d for d in told if d["p"] is not None]
    larger = sum(bool(d["larger_than_sampling_error"]) for d in tested)
    none = "none" if larger == 0 else str(larger)
    without = len(told) - len(tested)
    more = f"; {without} cannot be tested" if without else ""
    return f"Of {plural(len(tested), 'published difference')} {none} is larger than sampling error{more}"


def _said(
    published: Mapping[str, Any], told: Sequence[Mapping[str, Any]], own: Effect
) -> tuple[str, ...]:
    """What may be read from the picture, and what may not."""
    origins = listed(list(dict.fromkeys(_source(d) for d in told)))
    guessed = sorted({str(d["task"]) for d in told if d["n"] is not None and d["n_from"] not in STATED})
    luck = (
        "this study's do not"
        if own.seeds and own.seeds > 1
        else "so do this study's, which has one seed"
    )
    said = [
        f"Published: {origins}. Other models, data and tasks than here: the picture compares sizes and what each study could see, "
        "and is no test of one against the other. Published intervals are those of unpaired shares over items; they "
        f"leave out how trainings differ by chance; {luck}."
    ]
    if guessed:
        said.append(
            f"The number of items of {listed(guessed)} is not stated; it is inferred in {published['file']}, and the bars "
            "rest on it."
        )
    return tuple(said)
