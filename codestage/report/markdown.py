"""The report as Markdown: the same pieces, with the saved figures beside it."""

from codestage.report.document import MOST_SHOWN, Chart, Document, Section, Table
from codestage.report.text import markdown as escape


def to_markdown(document: Document) -> str:
    """The whole report; pictures are linked as `figures/NAME.svg`."""
    parts = [f"# {escape(document.title)}", escape(document.subtitle), "## The answer"]
    parts += [
        f"{i}. **{escape(s.lead)}**{escape_rest(s.rest)}" for i, s in enumerate(document.answer, 1)
    ]
    parts.append("\n".join(f"- {escape(point)}" for point in document.sure))
    if document.hero is not None:
        parts += _chart(document.hero)
    for section in document.sections:
        parts += _section(section)
    return "\n\n".join(part for part in parts if part) + "\n"


def escape_rest(text: str) -> str:
    """Text that goes on within a line keeps its leading blank or comma."""
    return f"{' ' if text.startswith(' ') else ''}{escape(text)}"


def _section(section: Section) -> list[str]:
    parts = [f"## {escape(section.title)}", *map(escape, section.paragraphs)]
    parts.append("\n".join(f"- {escape(point)}" for point in section.points))
    for chart in section.charts:
        parts += _chart(chart)
    for table in section.tables:
        parts += [f"**{escape(table.title)}**", _table(table)]
    return parts


def _chart(chart: Chart) -> list[str]:
    title = escape(chart.title)
    picture = f"![{title}](figures/{chart.name}.svg)"
    return [f"**{title}**", picture, escape(chart.caption), _table(chart.table)]


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    rule = ["---" if i < table.words else "---:" for i in range(len(table.columns))]
    lines = [table.columns, rule, *table.rows[:MOST_SHOWN]]
    cells = [[c if line is rule else escape(c) for c in line] for line in lines]
    shown = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    if len(table.rows) <= MOST_SHOWN:
        return shown
    return f"{shown}\n\nThe first {MOST_SHOWN} of {len(table.rows):,} rows; tables/{table.name}.csv has all."
