"""The page of `codestage compare`: do families and sizes of models agree on what code does?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codestage.analyse.across import compare
from codestage.errors import RunError
from codestage.report.agreement_seen import confidence, decisions, factors, orders
from codestage.report.answer import WORDS, claim
from codestage.report.document import Cell, Chart, Document, Section, Sentence, Table
from codestage.report.drawing import OTHER, draw, family_colour
from codestage.report.forest import Panel, Row, axis_name, forest
from codestage.report.markdown import to_markdown
from codestage.report.page import to_html
from codestage.report.records import Effect
from codestage.report.tables import to_csv, to_latex
from codestage.report.text import (
    DASH,
    UNITS,
    capital,
    count,
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
MAIN = ("acc", "prob", "bpb")


@dataclass(frozen=True)
class ComparisonFiles:
    """Where everything was written."""

    json: Path
    html: Path
    markdown: Path
    answer: tuple[str, ...]
    """The page's answer, sentence by sentence."""


def write_comparison(folders: Sequence[Path], out: Path) -> tuple[dict[str, Any], ComparisonFiles]:
    """Compare studies and write compare.json, compare.html, compare.md, figures/ and tables/ into `out`.

    Raises:
        UserError: the studies cannot be read, or share no question or no task.
        RunError: a file cannot be written.
    """
    found = compare(folders)
    document = compose(found)
    pictures = [draw(chart) for chart in document.charts]
    answer = tuple(sentence.text for sentence in document.answer)
    files = ComparisonFiles(out / "compare.json", out / "compare.html", out / "compare.md", answer)
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        (out / "tables").mkdir(exist_ok=True)
        for picture in pictures:
            (out / "figures" / f"{picture.chart.name}.svg").write_bytes(picture.svg)
            (out / "figures" / f"{picture.chart.name}.png").write_bytes(picture.png)
        for table in [*document.tables, *(c.table for c in document.charts)]:
            (out / "tables" / f"{table.name}.csv").write_text(to_csv(table), encoding="utf-8")
            (out / "tables" / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
        files.json.write_text(json.dumps(found, indent=1, allow_nan=False), encoding="utf-8")
        files.html.write_text(to_html(document, pictures), encoding="utf-8")
        files.markdown.write_text(to_markdown(document), encoding="utf-8")
    except OSError as error:
        place = error.filename or out
        raise RunError(
            f"{place}: cannot be written ({error.strerror}); name another with --out"
        ) from None
    return found, files


def compose(found: Entry) -> Document:
    """All that the page says."""
    rows = _main(found)
    studies = [str(s["label"]) for s in found["studies"]]
    top = [r for r in rows if r["level"] == "overall"] or [r for r in rows if r["level"] == "domain"]
    top = [r for r in top if r["family"] in _stages(rows)]
    sentences = [_sentence(r, found) for r in top][:4]
    hero = _study_chart("by-study", "Each study's effects of code", top, found) if top else None
    sections = [
        _levels(rows, found),
        orders(found),
        decisions(found),
        factors(rows, found),
        _about(found),
    ]
    return Document(
        "Do families and sizes agree on what code does?",
        listed(studies),
        sentences,
        _sure(found),
        hero,
        [s for s in sections if s is not None],
    )


def _main(found: Entry) -> list[Entry]:
    """Effects after the last stage, without chain of thought where there are such, in the first metric there is."""
    rows = [e for e in found["effects"] if e["family"] not in ("cot",)]
    last = rows[-1]["stage"] if rows else None
    rows = [e for e in rows if e["stage"] == last]
    cot = "off" if any(e["cot"] == "off" for e in rows) else rows[0]["cot"] if rows else None
    rows = [e for e in rows if e["cot"] == cot]
    metric = next((m for m in MAIN if any(e["metric"] == m for e in rows)), None)
    return [e for e in rows if e["metric"] == metric]


def _stages(rows: Sequence[Entry]) -> list[str]:
    return [f for f in dict.fromkeys(str(r["family"]) for r in rows) if f not in ("schedule", "control")]


def _effect(row: Entry, numbers: Entry) -> Effect:
    """An effect as the charts know it; what was not told is unknown."""
    known = dict.fromkeys(Effect.__dataclass_fields__)
    return Effect(**known | {k: row[k] for k in KEYS} | {k: numbers.get(k) for k in NUMBERS})  # type: ignore[arg-type]


KEYS = ("contrast", "label", "family", "level", "name", "metric", "stage", "cot", "unit")
NUMBERS = ("estimate", "low", "high", "verdict")


def _sentence(row: Entry, found: Entry) -> Sentence:
    """Whether studies agree on one question."""
    signs, differ, pooled = row["signs"], row["differ"], row["pooled"]
    where = "over all tasks" if row["level"] == "overall" else f"on {row['name']}"
    subject = capital(f"{row['label']}, {metric_name(row['metric'])} {where}")
    unit = UNITS.get(row["unit"], row["unit"])
    if pooled is None or signs["share"] is None:
        return Sentence("unknown", row["family"], subject, ": measured in fewer than two studies.")
    many = max(signs["positive"], signs["signed"] - signs["positive"])
    side = "positive" if signs["positive"] * 2 >= signs["signed"] else "negative"
    mean = f"mean effect {signed(pooled['estimate'], row['unit'])} {unit} ({confidence(found)} interval {interval(pooled['low'], pooled['high'], row['unit'])})"
    share = (
        f"{percent(signs['low'], 0)} to {percent(signs['high'], 0)} % of such studies would be positive"
    )
    rest = f": {mean}; {many} of {plural(signs['signed'], 'study', 'studies')} {side} ({share})."
    apart = differ["p_adjusted"] < found["alpha"]
    said = "open"
    if pooled["low"] > 0 or pooled["high"] < 0:
        said = "raised" if pooled["low"] > 0 else "lowered"
    if apart:
        rest += f" The studies differ by more than chance (adjusted p {p_value(differ['p_adjusted'])})"
    else:
        rest += f" That the studies differ is not shown (adjusted p {p_value(differ['p_adjusted'])})"
    tau = f"{_plain(differ['tau_low'], row['unit'])} to {_plain(differ['tau_high'], row['unit'])}"
    rest += (
        f": true effects spread by a standard deviation of {_plain(differ['tau'], row['unit'])} ({tau})."
    )
    return Sentence(said, row["family"], subject, rest)


def _plain(value: float | None, unit: str) -> str:
    return signed(value, unit).lstrip("+")


def _sure(found: Entry) -> list[str]:
    studies = found["studies"]
    families = {s["family"] for s in studies}
    sizes = {s["parameters"] for s in studies}
    points = [
        f"{plural(len(studies), 'study', 'studies')} of {plural(len(families), 'family', 'families')} and {plural(len(sizes), 'size')}, on {plural(len(found['tasks']), 'task')} that all asked.",
        "Each study is one draw of its family and size: intervals across studies speak of studies like these, and few of them leave the spread between studies wide open.",
        "Tests of a difference between studies are adjusted for the number of questions of a kind (Holm); intervals of means are not.",
    ]
    return [*points, *(str(n) for n in found["notes"])]


def _study_chart(name: str, title: str, rows: Sequence[Entry], found: Entry) -> Chart:
    """A panel a question, a row a study, the mean below."""
    rows = [r for r in rows if r["family"] in _stages(rows)][:3]
    families = [str(r["family"]) for r in rows]
    panels = []
    for r in rows:
        told = [Row(str(s["study"]), _effect(r, s)) for s in r["studies"]]
        if r["pooled"] is not None:
            told.append(
                Row(
                    "mean of studies",
                    _effect(r, {**r["pooled"], "verdict": _pooled_verdict(r)}),
                    colour=OTHER,
                )
            )
        where = "" if r["level"] == "overall" else f", {r['name']}"
        panels.append(Panel(capital(f"{r['label']}{where}"), family_colour(r["family"], families), told))
    axis = axis_name(panels[0].rows[0].effect, metric_name(rows[0]["metric"]), confidence(found))
    return Chart(
        name,
        title,
        "Filled: resolved. Hollow: not resolved. Diamond: practically none.",
        lambda narrow: forest(panels, axis=axis, narrow=narrow, gaps=[len(found["studies"])]),
        _effect_table(name, rows),
    )


def _pooled_verdict(row: Entry) -> str:
    pooled = row["pooled"]
    if pooled["low"] > 0:
        return "up"
    return "down" if pooled["high"] < 0 else "open"


def _effect_table(name: str, rows: Sequence[Entry]) -> Table:
    head = ["question", "of", "study", "effect", "interval", "verdict"]
    shown, data = [], []
    for r in rows:
        for s in r["studies"]:
            words = [str(r["label"]), str(r["name"]), str(s["study"])]
            said = WORDS[claim(_effect(r, s))]
            ends = interval(s["low"], s["high"], r["unit"])
            shown.append([*words, signed(s["estimate"], r["unit"]), ends, said])
            data.append([*words, s["estimate"], reach(s["low"], s["high"]), said])
    return Table(name, "Effects in every study", head, shown, data, 3)


def _levels(rows: Sequence[Entry], found: Entry) -> Section | None:
    """Mean effects and signs by domain and task."""
    rows = [r for r in rows if r["level"] != "overall" and r["pooled"] is not None]
    if not rows:
        return None
    charts = []
    for i, family in enumerate(_stages(rows)):
        here = [r for r in rows if r["family"] == family]
        one = [r for r in here if r["contrast"] == here[0]["contrast"]]
        told = [
            Row(str(r["name"]), _effect(r, {**r["pooled"], "verdict": _pooled_verdict(r)})) for r in one
        ]
        colour = family_colour(family, _stages(rows))
        gaps = [j for j in range(1, len(one)) if one[j]["level"] != one[j - 1]["level"]]
        axis = axis_name(told[0].effect, metric_name(one[0]["metric"]), confidence(found))
        charts.append(_mean_chart(i, one, told, colour, gaps, axis))
    said = "The mean over studies, its interval by the spread between them. By domain and by task; filled: its interval excludes zero."
    return Section("means", "By domain and task", (said,), charts=charts, tables=[_pooled_table(rows)])


def _mean_chart(
    i: int, rows: Sequence[Entry], told: Sequence[Row], colour: str, gaps: Sequence[int], axis: str
) -> Chart:
    return Chart(
        f"means-{i}",
        capital(f"{rows[0]['label']}: mean over studies"),
        "Lines part domains and tasks.",
        lambda narrow: forest([Panel("", colour, told)], axis=axis, narrow=narrow, gaps=gaps),
        _effect_table(f"means-{i}", rows),
    )


def _pooled_table(rows: Sequence[Entry]) -> Table:
    head = ["question", "of", "mean", "interval", "positive", "sign test p", "Q", "p of differing", "adj. p",
            "spread", "interval of the spread"]  # fmt: skip
    shown, data = [], []
    for r in rows:
        words, p, d, s = [str(r["label"]), str(r["name"])], r["pooled"], r["differ"], r["signs"]
        unit = r["unit"]
        shown.append(
            [
                *words,
                signed(p["estimate"], unit),
                interval(p["low"], p["high"], unit),
                f"{s['positive']} of {s['signed']}",
                p_value(s["p"]),
                f"{d['q']:.1f}",
                p_value(d["p"]),
                p_value(d["p_adjusted"]),
                _plain(d["tau"], unit),
                f"{_plain(d['tau_low'], unit)} to {_plain(d['tau_high'], unit)}",
            ]
        )
        line: list[Cell] = [*words, p["estimate"], reach(p["low"], p["high"])]
        line += [f"{s['positive']} of {s['signed']}", s["p"], d["q"], d["p"], d["p_adjusted"]]
        data.append([*line, d["tau"], reach(d["tau_low"], d["tau_high"])])
    return Table("pooled", "Means over studies, and how studies differ", head, shown, data, 2)


def _about(found: Entry) -> Section:
    head = ["study", "family", "parameters", "hidden size", "layers", "seeds"]
    keys = ("parameters", "hidden_size", "layers", "seeds")
    shown, data = [], []
    for s in found["studies"]:
        words = [str(s["label"]), DASH if s["family"] is None else str(s["family"])]
        shown.append([*words, *(count(s[k]) for k in keys)])
        data.append([s["label"], s["family"], *(s[k] for k in keys)])
    table = Table("studies", "The studies", head, shown, data, 2)
    said = f"Compared on: {listed([str(t) for t in found['tasks']])}."
    return Section("studies", "The studies", (said,), tables=[table])
