"""Doses, budgets and mixtures on the page: what is said follows what was found, and nothing more."""

import copy
import csv
import io
import json
import re
from dataclasses import replace

import pytest
from ladder_fixture import made, peaked, study, write

from codestage.analyse.run import analyse
from codestage.errors import UserError
from codestage.report.document import Document
from codestage.report.doses_seen import dose_section, share, shares
from codestage.report.drawing import draw
from codestage.report.fitted import fitted_sections
from codestage.report.lines import Span, spans
from codestage.report.markdown import to_markdown
from codestage.report.mixtures_seen import mixture_section
from codestage.report.page import compose, to_html
from codestage.report.records import read
from codestage.report.small_to_large import scaling_section
from codestage.report.tables import to_csv, to_latex
from codestage.report.view import main_view

HOSTILE = """<script>alert('x')</script>"&|$\\`*_[a](http://evil.example)"""


def finished(folder, *, odd="", **options):
    """A results folder whose effects.json holds all sections."""
    records = made(study(odd=odd, items=40, **options), peaked, odd=odd, key=1)
    write(folder, records)
    effects = analyse(folder)
    (folder / "results" / "effects.json").write_text(json.dumps(effects, allow_nan=False))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("whole"), budgets=(1_000_000, 2_000_000, 4_000_000))


@pytest.fixture
def view(whole):
    return main_view(read(whole))


def entries(view, name):
    return copy.deepcopy(view.records.sections[name])


def page(view):
    """The sections alone as a document, and its HTML."""
    sections = [section for section in fitted_sections(view) if section is not None]
    document = Document("title", "subtitle", (), (), None, sections)
    return document, to_html(document, [draw(chart) for chart in document.charts])


def test_the_report_holds_the_sections_and_all_their_tables(view):
    titles = [section.title for section in compose(view.records).sections]
    for wanted in ("Dose and response", "From small to large", "Mixture laws"):
        assert wanted in titles
    document, html = page(view)
    for table in [*document.tables, *(chart.table for chart in document.charts)]:
        assert len({len(row) for row in csv.reader(io.StringIO(to_csv(table)))}) == 1
        assert to_latex(table)
    assert page(view)[1] == html  # the same each time
    assert to_markdown(document).count("![") == len(document.charts)


def test_the_answer_on_doses_says_what_was_found(view):
    found = entries(view, "doses")
    overall = next(e for e in found if e["level"] == "overall" and e["metric"] == "acc")
    section = dose_section(view, found)
    best = overall["best"]
    assert section.paragraphs[0].startswith(
        f"Best dose of code at pre-training over all tasks: {share(best['dose'])} "
        f"(95 % interval {shares(best['low'], best['high'])}), of 0 %, 10 %, 25 %, 40 % and 50 % tried."
    )
    flat = [e["name"] for e in found if e["metric"] == "acc" and e["level"] == "task" and e["flat"]]
    assert all(name in section.points[0].partition("no dependence resolved")[2] for name in flat)


@pytest.mark.parametrize(
    ("flat", "said"), [("shown", "makes practically no difference"), ("not resolved", "No best dose")]
)
def test_flat_shown_and_flat_not_resolved_are_two_things(view, flat, said):
    found = [e for e in entries(view, "doses") if e["level"] == "overall" and e["metric"] == "acc"]
    found[0] |= {"shape": "flat", "flat": flat, "best": None}
    section = dose_section(view, found)
    assert said in section.paragraphs[0]
    assert "Best dose" not in section.paragraphs[0]


def test_a_fall_from_the_first_dose_on_is_told_as_one(view):
    found = [e for e in entries(view, "doses") if e["level"] == "overall" and e["metric"] == "acc"]
    found[0]["shape"] = "falling"
    found[0]["best"] |= {"dose": 0.0, "low": 0.0, "high": 0.02}
    assert "0 % (95 % interval 0 to 2 %)" in dose_section(view, found).paragraphs[0]
    assert "Any more lowers accuracy" in dose_section(view, found).paragraphs[0]


def test_a_study_of_two_doses_has_no_section(view):
    assert dose_section(view, []) is None
    assert scaling_section(view, [], []) is None
    assert mixture_section(view, None) is None


def test_trends_claim_only_what_is_shown_and_extrapolation_is_called_that(view):
    found, decided = entries(view, "scaling"), entries(view, "decisions")
    (overall,) = [
        e
        for e in found
        if (e["contrast"], e["level"], e["metric"]) == ("code@pretrain", "overall", "acc")
    ]
    overall["trend"] |= {"estimate": 2.0, "low": 1.0, "high": 3.0, "p_adjusted": 0.01}
    said = scaling_section(view, found, decided).paragraphs[0]
    assert "rises with the budget: +2.0 points for each doubling" in said
    assert "Extrapolated to 16M tokens" in said
    overall["trend"]["p_adjusted"] = 0.2
    said = scaling_section(view, found, decided).paragraphs[0]
    assert "is not resolved" in said
    assert "rises" not in said
    overall["trend"] |= {"estimate": -2.0, "low": -3.0, "high": -1.0, "p_adjusted": 0.01}
    said = scaling_section(view, found, decided).paragraphs[0]
    assert (
        "falls with the budget: −2.0 points for each doubling" in said
    )  # a growing harm does not shrink


def test_refused_curves_and_laws_say_why(tmp_path):
    folder = finished(tmp_path, budgets=(4_000_000,), doses={"text": 0.0, "half": 0.5})
    view = main_view(read(folder))
    doses, scaled, mixed, _ = fitted_sections(view)
    assert doses is None
    assert any("2 budgets" in c.caption for c in scaled.charts)
    assert "too few to extrapolate" in scaled.paragraphs[0]
    assert mixed.paragraphs[0].startswith("No mixture law is fitted: 4 distinct mixtures")


def test_the_proposal_claims_a_gain_only_where_its_interval_does(view):
    found = entries(view, "mixtures")
    row = next(r for r in found["rows"] if r["level"] == "overall")
    row["best"] |= {"gain": 0.05, "gain_low": 0.02, "gain_high": 0.08}
    section = mixture_section(view, found)
    assert "+0.050 bits per byte (95 % interval +0.020 to +0.080)." in section.paragraphs[0]
    assert "not shown" not in section.paragraphs[0]
    row["best"]["gain_low"] = -0.01
    assert "that it gains anything is not shown" in mixture_section(view, found).paragraphs[0]
    assert any(line in point for line in row["best"]["yaml"].values() for point in section.points)
    row["laws"][row["chosen"]]["rmse"] = 2 * row["mean_rmse"]
    assert "nothing to stand on" in mixture_section(view, found).paragraphs[1]
    assert "end of what was tried" in section.paragraphs[0]  # all the code there was at tuning


def test_names_of_any_kind_stay_text(tmp_path):
    folder = finished(tmp_path, odd=HOSTILE, budgets=(2_000_000, 4_000_000))
    document, html = page(main_view(read(folder)))
    assert len(document.sections) == 3
    assert "<script" not in html
    assert "alert(&#39;x&#39;)" in html  # shown, as text
    assert "http://evil" not in "".join(re.findall(r'(?:href|src)="([^"#]*)"', html))
    assert "<script" not in to_markdown(document)


def test_sections_that_cannot_be_read_are_told(view):
    broken = replace(view, records=replace(view.records, sections={"doses": [{"stage": "tune"}]}))
    with pytest.raises(UserError, match=r"effects\.json: doses"):
        fitted_sections(broken)


@pytest.mark.parametrize("narrow", [True, False])
def test_charts_draw_what_is_unknown_as_nothing(narrow):
    rows = [Span("a", None, None, None, "#d55e00", "flat"), Span("b", 1.0, None, None, "#d55e00", "1")]
    figure = spans(rows, x="x", narrow=narrow)
    axes = figure.axes[0]
    assert [list(line.get_xdata()) for line in axes.lines] == [[1.0]]
    assert [t.get_text() for t in axes.texts] == ["flat", "1"]


def test_panes_share_one_scale(view):
    charts = dose_section(view, entries(view, "doses")).charts
    figure = next(c for c in charts if c.name == "dose-curves").draw(False)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
