"""How every chart looks, and how it becomes SVG and PNG with the same bytes each time.

Colours are the colour-blind safe ones of Okabe and Ito. Each has one meaning on the whole page and
a name: in the page's SVG the colour is a CSS variable, so that it follows light and dark.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from codestage.report.document import Chart
from codestage.report.text import plain, short

INK, SOFT, RULE, PAPER = "#1b1f24", "#5b6570", "#d5dae0", "#fefefe"
PRETRAIN, TUNE, CROSS, OTHER = "#0072b2", "#009e73", "#a0449a", "#56616d"
BASE, CODE = "#7d8794", "#d55e00"
MORE = ("#e69f00", "#56b4e9", "#8c6d31", "#cc79a7", "#117733", "#332288")

VARIABLES = {
    INK: "ink",
    SOFT: "soft",
    RULE: "rule",
    PAPER: "paper",
    PRETRAIN: "pretrain",
    TUNE: "tune",
    CROSS: "cross",
    OTHER: "other",
    BASE: "base",
    CODE: "code",
    **{colour: f"more{i}" for i, colour in enumerate(MORE)},
}
FAMILY = {"pretrain": PRETRAIN, "tune": TUNE, "interaction": CROSS}

WIDE, NARROW = 7.6, 3.7
"""Widths in inches; the page shows them some 1.5 times larger."""
ROW = 0.235
"""Height of a row of a forest plot, inches."""

STYLE = {
    "axes.edgecolor": RULE,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "svg.fonttype": "none",  # letters stay letters: they can be read aloud and searched
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a name is a "$"
    "xtick.color": SOFT,
    "xtick.labelsize": 7.5,
    "xtick.major.size": 0,
    "ytick.color": INK,
    "ytick.labelsize": 8.0,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Picture:
    """A chart drawn: two SVGs for the page (no size of their own), two files to keep."""

    chart: Chart
    wide: str
    narrow: str
    svg: bytes
    png: bytes


def family_colour(family: str, families: Sequence[str] = ()) -> str:
    """Colour of a question: fixed for the two usual stages and their interaction."""
    if family in FAMILY:
        return FAMILY[family]
    rest = [name for name in families if name not in FAMILY]
    return MORE[rest.index(family) % len(MORE)] if family in rest else OTHER


def sheet(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes placed in inches from the lower left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def label(text: object, length: int = 26) -> str:
    return short(text, length)


def label_width(labels: Sequence[str], limit: float = 1.9) -> float:
    """Inches that the longest label needs at the size of tick labels."""
    return min(limit, 0.16 + 0.071 * max((len(text) for text in labels), default=0))


def draw(chart: Chart) -> Picture:
    """Draw a chart for the page (wide and narrow) and for the folder of figures."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": f"codestage {chart.name}"}):
        wide = chart.draw(False)
        inline = [
            _page_svg(_svg(wide), f"{chart.name}-w"),
            _page_svg(_svg(chart.draw(True)), f"{chart.name}-n"),
        ]
        _entitle(wide, chart.title)
        box = wide.get_tightbbox().padded(0.15)  # found once: each "tight" draws again
        return Picture(chart, inline[0], inline[1], _svg(wide, box), _png(wide, box))


def _entitle(figure: Figure, title: str) -> None:
    """The title above the picture, for the files: on the page it is a heading."""
    height = figure.get_size_inches()[1]
    text = "\n".join(textwrap.wrap(plain(title), 88))
    figure.text(0.0, 1 + 0.12 / height, text, ha="left", va="bottom", weight="bold", size=9.5)


def _save(figure: Figure, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Names may hold letters that the drawing font lacks: the SVG still carries them as text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()


def _svg(figure: Figure, box: Bbox | None = None) -> bytes:
    """No date and no program version inside, so that equal records give equal bytes."""
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    paper = {"bbox_inches": box, "facecolor": "white"} if box else {}
    return _save(figure, "svg", metadata=metadata, **paper)


def _png(figure: Figure, box: Bbox) -> bytes:
    return _save(figure, "png", dpi=160, metadata={"Software": None}, bbox_inches=box, facecolor="white")


def _page_svg(svg: bytes, prefix: str) -> str:
    """The `<svg>` element alone, its ids unique on the page, its colours and font the page's."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None
    text = re.sub(r"<svg[^>]*>", f'<svg {box.group()} aria-hidden="true">', text, count=1)
    styled = re.sub(r'style="([^"]*)"', lambda found: f'style="{_themed(found[1])}"', text)
    return re.sub(r"\n\s*", "\n", styled)


def _themed(style: str) -> str:
    style = re.sub(r"(font: [^;]*?)'DejaVu Sans'[^;]*", r"\1var(--sans)", style)
    return re.sub(
        r"#[0-9a-f]{6}",
        lambda found: f"var(--{VARIABLES[found[0]]})" if found[0] in VARIABLES else found[0],
        style,
    )
