"""The report: one HTML file that works offline, the same in Markdown, and the files it is made of."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from codestage.errors import RunError
from codestage.report import facts, questions
from codestage.report.answer import WORDS, answer, sure
from codestage.report.document import MOST_SHOWN, Document, Section, Table
from codestage.report.drawing import Picture, draw
from codestage.report.fitted import fitted_sections
from codestage.report.held_out import held_out, held_out_points
from codestage.report.markdown import to_markdown
from codestage.report.method import method
from codestage.report.opinions import disagreement, item_by_item, second_opinions
from codestage.report.published import published_section
from codestage.report.records import Records, read
from codestage.report.tables import all_effects, all_means, to_csv, to_latex
from codestage.report.text import plain
from codestage.report.until import until_resolved
from codestage.report.view import continuous_view, main_view


@dataclass(frozen=True)
class ReportFiles:
    """Where everything was written."""

    html: Path
    markdown: Path
    figures: tuple[Path, ...]
    tables: tuple[Path, ...]


MOST_LINKED = 3000
"""Rows of a table that the page itself carries as CSV, and that anyone would print."""


def write_report(folder: Path, out: Path, *, beside: Mapping[str, Any] | None = None) -> ReportFiles:
    """Make the report of a results folder: a pure function of the records, byte for byte.

    Args:
        folder: a study's folder, or its `results` folder.
        out: gets report.html, report.md, figures/*.svg|png and tables/*.csv|tex.
        beside: published numbers, as `codestage.analyse.audit` tells them, to set beside the study's own.

    Raises:
        UserError: records are missing or cannot be read.
        RunError: the report cannot be written.
    """
    records = read(folder)
    document = compose(records, beside)
    pictures = [draw(chart) for chart in document.charts]
    try:
        return _write(records, document, pictures, out)
    except OSError as error:
        raise RunError(
            f"{error.filename or out}: cannot be written ({error.strerror}). The records are "
            "untouched; make room or choose another folder and make the report again."
        ) from None


def compose(records: Records, beside: Mapping[str, Any] | None = None) -> Document:
    """All that the report says, before it is a page."""
    view = main_view(records)
    title = "At which training stage does code help?"
    subtitle = f"{records.study['name']} · {facts.summary(records)}"
    done = [
        facts.curves(records),
        held_out(records, view),
        facts.doses(records),
        facts.cleaning(records),
        facts.cost(records),
        method(records),
    ]
    if view is None:
        told = ("The records hold no scores, so that nothing can be answered.",)
        return Document(title, subtitle, (), told, None, [s for s in done if s is not None])
    family = partial(questions.family_section, view)
    sections: list[Section | None] = [
        until_resolved(records),
        *questions.perspectives(view, continuous_view(view)),
        *fitted_sections(view),
        questions.grid(view),
        questions.earlier(view),
        family("simple", "simple", "One change at a time", SIMPLE),
        family("schedule", "schedules", "Schedules", SCHEDULES),
        family("control", "controls", "Controls", CONTROLS),
        family("budget", "budgets", "Shorter budgets", BUDGETS),
        family("transfer", "transfer", "Negative transfer", TRANSFER),
        facts.reasoning(view),
        questions.abilities(view),
        second_opinions(view),
        item_by_item(view),
        published_section(view, beside) if beside else None,
        facts.detectable(view),
        *done,
    ]
    kept = [section for section in sections if section is not None]
    certain = [*sure(view), *held_out_points(view), *disagreement(view)]
    return Document(title, subtitle, answer(view), certain, questions.hero(view), kept)


SIMPLE = (
    "The effects above average over what the other stages did. Here every other stage keeps its first "
    "option: what a reader gets who changes this one thing and nothing else."
)
SCHEDULES = (
    "Schedules give the same code in another order: evenly, more and more, or less and less. "
    "Their totals are equal, so that a difference is one of order alone."
)
CONTROLS = (
    "Code in a mixture either takes the place of text or comes on top of it. The controls take the "
    "two apart: text alone with as many tokens, code instead of text, code besides it."
)
BUDGETS = (
    "The same questions where one stage had fewer tokens: whether an effect grows, shrinks or turns with "
    "the budget. Each shorter run branches from the longest one and ends with a decay of its own."
)
TRANSFER = (
    "Did code harm what has nothing to do with code? That no harm was found is no proof of none: "
    "only the verdicts “no harm” and “practically none” say that harm beyond the margin is ruled out, the second that "
    "gain is too."
)


def _write(records: Records, document: Document, pictures: list[Picture], out: Path) -> ReportFiles:
    figures, tables = [], []
    (out / "figures").mkdir(parents=True, exist_ok=True)
    (out / "tables").mkdir(exist_ok=True)
    for picture in pictures:
        for ending, content in (("svg", picture.svg), ("png", picture.png)):
            figures.append(out / "figures" / f"{picture.chart.name}.{ending}")
            figures[-1].write_bytes(content)
    named = {table.name: table for table in [*document.tables, *(c.table for c in document.charts)]}
    for table in (*named.values(), all_effects(records), all_means(records)):
        forms = {"csv": to_csv, "tex": to_latex}
        for ending, form in list(forms.items())[: 2 if len(table.rows) <= MOST_LINKED else 1]:
            tables.append(out / "tables" / f"{table.name}.{ending}")
            tables[-1].write_bytes(form(table).encode("utf-8"))
    html, markdown = out / "report.html", out / "report.md"
    html.write_bytes(to_html(document, pictures).encode("utf-8"))
    markdown.write_bytes(to_markdown(document).encode("utf-8"))
    return ReportFiles(html, markdown, tuple(figures), tuple(tables))


def to_html(document: Document, pictures: list[Picture]) -> str:
    """The page. Whatever comes from data is escaped by the template; our own SVG is not."""
    environment = Environment(
        loader=PackageLoader("codestage.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["csv_link"] = _csv_link
    environment.filters["latex_link"] = lambda table: "data:application/x-tex," + quote(to_latex(table))
    environment.filters["data_link"] = _data_link
    environment.filters["ours"] = Markup  # drawn by us: names in it are escaped already
    environment.filters["plain"] = plain
    context: dict[str, Any] = {
        "document": document,
        "words": WORDS,
        "pictures": {p.chart.name: p for p in pictures},
        "most": MOST_SHOWN,
        "most_linked": MOST_LINKED,
        "icon": base64.b64encode(ICON.encode()).decode(),
    }
    page = environment.get_template("page.html.j2").render(context)
    return re.sub(r"\n\s*\n+", "\n", page)


def _csv_link(table: Table) -> str:
    """The table itself; of a very long one, the file beside the page."""
    if len(table.rows) > MOST_LINKED:
        return f"tables/{table.name}.csv"
    return "data:text/csv;charset=utf-8," + quote(to_csv(table))


def _data_link(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M8 1v14" stroke="#888"/>'
    '<path d="M6 5h8M3 11h6" stroke="#0072b2" stroke-width="2"/></svg>'
)
