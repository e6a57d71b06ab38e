"""What a report consists of, before it is a page: HTML and Markdown render the same pieces.

All text here is plain: markup is the business of the renderers, which escape everything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

Cell = str | int | float | None
MOST_SHOWN = 300
"""Rows of a table on the page; its CSV has all."""


@dataclass(frozen=True)
class Table:
    """Cells as shown (`rows`) and as data (`data`, written to CSV); the same columns."""

    name: str
    """File name without its ending; chosen by us, never taken from data."""
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    data: Sequence[Sequence[Cell]]
    words: int = 1
    """How many columns from the left hold words; the others are numbers, set to the right."""


@dataclass(frozen=True)
class Chart:
    """A picture that says one thing: its title is the finding or the question."""

    name: str
    title: str
    caption: str
    draw: Callable[[bool], Figure]
    """Draws it; True: narrow, for a phone."""
    table: Table
    """The numbers that are drawn."""


@dataclass(frozen=True)
class Sentence:
    """One sentence of the answer. `claim` is raised, lowered, none, spared, open or unknown."""

    claim: str
    family: str
    lead: str
    """What is claimed, printed strong; `rest` gives estimate, interval, and what is left open."""
    rest: str

    @property
    def text(self) -> str:
        return f"{self.lead}{self.rest}"


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it: paragraphs first, then points, charts and tables."""

    anchor: str
    title: str
    paragraphs: Sequence[str] = ()
    points: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Document:
    title: str
    subtitle: str
    answer: Sequence[Sentence]
    sure: Sequence[str]
    """How sure the answer is: the points directly under it."""
    hero: Chart | None
    sections: Sequence[Section] = field(default_factory=tuple)

    @property
    def charts(self) -> list[Chart]:
        first = [self.hero] if self.hero else []
        return first + [chart for section in self.sections for chart in section.charts]

    @property
    def tables(self) -> list[Table]:
        return [table for section in self.sections for table in section.tables]
